// Output-stationary systolic array, every register written out: the peer of accelsim's kernels.
//
// Row i's activations enter at the left edge and move right, column j's weights enter at the top and move down, one PE a
// cycle. Each PE multiplies what its two operand registers hold and adds to its accumulator. While `drain` is high the
// accumulators move down one row a cycle instead, zeros behind them, and leave at the bottom.

module os_lean_pe (
    input  logic               clk,
    input  logic               drain,
    input  logic signed [7:0]  a_in,
    input  logic signed [7:0]  b_in,
    input  logic signed [31:0] acc_in,
    output logic signed [7:0]  a_out,
    output logic signed [7:0]  b_out,
    output logic signed [31:0] acc_out
);
  always_ff @(posedge clk) begin
    a_out <= a_in;
    b_out <= b_in;
    acc_out <= drain ? acc_in : acc_out + a_out * b_out;
  end
endmodule

module os_lean #(
    parameter int ROWS = 16,
    parameter int COLS = 16
) (
    input  logic                 clk,
    input  logic                 control,  // drain
    input  logic [ROWS*8-1:0]    left,
    input  logic [COLS*8-1:0]    top,
    output logic [COLS*32-1:0]   bottom
);
  logic signed [7:0]  a   [ROWS][COLS+1];
  logic signed [7:0]  b   [ROWS+1][COLS];
  logic signed [31:0] acc [ROWS+1][COLS];

  for (genvar i = 0; i < ROWS; i++) begin : g_left
    assign a[i][0] = left[i*8+:8];
  end
  for (genvar j = 0; j < COLS; j++) begin : g_edge
    assign b[0][j] = top[j*8+:8];
    assign acc[0][j] = 32'sd0;
    assign bottom[j*32+:32] = acc[ROWS][j];
  end
  for (genvar i = 0; i < ROWS; i++) begin : g_row
    for (genvar j = 0; j < COLS; j++) begin : g_col
      os_lean_pe pe (
          .clk(clk), .drain(control),
          .a_in(a[i][j]), .b_in(b[i][j]), .acc_in(acc[i][j]),
          .a_out(a[i][j+1]), .b_out(b[i+1][j]), .acc_out(acc[i+1][j])
      );
    end
  end
endmodule
