// The output-stationary array of docs/timing.md, every register written out: the peer of accelsim's kernels.
//
// Element k of every row and column arrives in the same cycle; feeders at the edges delay row i by i cycles and column j
// by j. Row i's activations move right and column j's weights move down, one PE a cycle. A flag that says whether there is
// an element travels with the activations, and with it the weight that meets it: only then a PE adds a product, so that
// what is in the registers between passes does no harm. `done` tells the controller that the far corner's stream has
// ended. While `drain` is high psums move down one row a cycle, zeros behind them, so that the next pass finds empty
// registers; they leave at the bottom.

module os_pe (
    input  logic               clk,
    input  logic               drain,
    input  logic signed [7:0]  a_in,
    input  logic               valid_in,
    input  logic signed [7:0]  b_in,
    input  logic signed [31:0] psum_in,
    output logic signed [7:0]  a,
    output logic               valid,
    output logic signed [7:0]  b,
    output logic signed [31:0] psum
);
  always_ff @(posedge clk) begin
    a <= a_in;
    valid <= valid_in;
    b <= b_in;
    if (drain) psum <= psum_in;
    else if (valid) psum <= psum + a * b;
  end
endmodule

module os_array #(
    parameter int ROWS = 16,
    parameter int COLS = 16
) (
    input  logic               clk,
    input  logic [1:0]         control,  // drain, valid
    input  logic [ROWS*8-1:0]  left,
    input  logic [COLS*8-1:0]  top,
    output logic [COLS*32-1:0] bottom,
    output logic               done
);
  logic signed [7:0]  a      [ROWS][COLS+1];
  logic               valid[ROWS][COLS+1];
  logic signed [7:0]  b      [ROWS+1][COLS];
  logic signed [31:0] psum   [ROWS+1][COLS];

  assign done = valid[ROWS-1][COLS] && !valid[ROWS-1][COLS-1];
  for (genvar i = 0; i < ROWS; i++) begin : g_left
    skew #(.DEPTH(i), .WIDTH(9)) feeder (
        .clk(clk), .in({control[0], left[i*8+:8]}), .out({valid[i][0], a[i][0]})
    );
  end
  for (genvar j = 0; j < COLS; j++) begin : g_edge
    skew #(.DEPTH(j), .WIDTH(8)) feeder (
        .clk(clk), .in(top[j*8+:8]), .out(b[0][j])
    );
    assign psum[0][j] = 32'sd0;
    assign bottom[j*32+:32] = psum[ROWS][j];
  end
  for (genvar i = 0; i < ROWS; i++) begin : g_row
    for (genvar j = 0; j < COLS; j++) begin : g_col
      os_pe pe (
          .clk(clk), .drain(control[1]),
          .a_in(a[i][j]), .valid_in(valid[i][j]),           .b_in(b[i][j]), .psum_in(psum[i][j]),
          .a(a[i][j+1]), .valid(valid[i][j+1]),
          .b(b[i+1][j]), .psum(psum[i+1][j])
      );
    end
  end
endmodule
