// Weight-stationary systolic array, every register written out: the peer of accelsim's kernels.
//
// While `load` is high the weight registers form a chain that moves down one row a cycle. Else activations enter at the
// left edge and move right, and psums start from zero at the top, take one product in every row, and leave at the bottom.

module ws_lean_pe (
    input  logic               clk,
    input  logic               load,
    input  logic signed [7:0]  a_in,
    input  logic signed [7:0]  w_in,
    input  logic signed [31:0] psum_in,
    output logic signed [7:0]  a_out,
    output logic signed [7:0]  w_out,
    output logic signed [31:0] psum_out
);
  always_ff @(posedge clk) begin
    a_out <= a_in;
    if (load) w_out <= w_in;
    psum_out <= psum_in + a_in * w_out;
  end
endmodule

module ws_lean #(
    parameter int ROWS = 16,
    parameter int COLS = 16
) (
    input  logic                 clk,
    input  logic                 control,  // load
    input  logic [ROWS*8-1:0]    left,
    input  logic [COLS*8-1:0]    top,
    output logic [COLS*32-1:0]   bottom
);
  logic signed [7:0]  a    [ROWS][COLS+1];
  logic signed [7:0]  w    [ROWS+1][COLS];
  logic signed [31:0] psum [ROWS+1][COLS];

  for (genvar i = 0; i < ROWS; i++) begin : g_left
    assign a[i][0] = left[i*8+:8];
  end
  for (genvar j = 0; j < COLS; j++) begin : g_edge
    assign w[0][j] = top[j*8+:8];
    assign psum[0][j] = 32'sd0;
    assign bottom[j*32+:32] = psum[ROWS][j];
  end
  for (genvar i = 0; i < ROWS; i++) begin : g_row
    for (genvar j = 0; j < COLS; j++) begin : g_col
      ws_lean_pe pe (
          .clk(clk), .load(control),
          .a_in(a[i][j]), .w_in(w[i][j]), .psum_in(psum[i][j]),
          .a_out(a[i][j+1]), .w_out(w[i+1][j]), .psum_out(psum[i+1][j])
      );
    end
  end
endmodule
