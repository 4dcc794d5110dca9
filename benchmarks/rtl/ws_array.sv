// The weight-stationary array of docs/timing.md, every register written out: the peer of accelsim's kernels.
//
// While `load` is high the weight registers form a chain that moves down one row a cycle. Element k of a streamed row
// arrives at the left edge of row k, all in the same cycle; feeders delay row i by i cycles. Activations move right, with a
// flag that says whether there is one. A psum starts from zero at the top and takes a product in every row; a PE without
// an activation holds zero. `done` tells the controller that the far corner's stream has ended.

module ws_pe (
    input  logic               clk,
    input  logic               load,
    input  logic signed [7:0]  a_in,
    input  logic               valid_in,
    input  logic signed [7:0]  w_in,
    input  logic signed [31:0] psum_in,
    output logic signed [7:0]  a,
    output logic               valid,
    output logic signed [7:0]  w,
    output logic signed [31:0] psum
);
  always_ff @(posedge clk) begin
    a <= a_in;
    valid <= valid_in;
    if (load) w <= w_in;
    psum <= valid ? psum_in + a * w : 32'sd0;
  end
endmodule

module ws_array #(
    parameter int ROWS = 16,
    parameter int COLS = 16
) (
    input  logic               clk,
    input  logic [1:0]         control,  // load, valid
    input  logic [ROWS*8-1:0]  left,
    input  logic [COLS*8-1:0]  top,
    output logic [COLS*32-1:0] bottom,
    output logic               done
);
  logic signed [7:0]  a      [ROWS][COLS+1];
  logic               valid[ROWS][COLS+1];
  logic signed [7:0]  w      [ROWS+1][COLS];
  logic signed [31:0] psum   [ROWS+1][COLS];

  assign done = valid[ROWS-1][COLS] && !valid[ROWS-1][COLS-1];
  for (genvar i = 0; i < ROWS; i++) begin : g_left
    skew #(.DEPTH(i), .WIDTH(9)) feeder (
        .clk(clk), .in({control[0], left[i*8+:8]}), .out({valid[i][0], a[i][0]})
    );
  end
  for (genvar j = 0; j < COLS; j++) begin : g_edge
    assign w[0][j] = top[j*8+:8];
    assign psum[0][j] = 32'sd0;
    assign bottom[j*32+:32] = psum[ROWS][j];
  end
  for (genvar i = 0; i < ROWS; i++) begin : g_row
    for (genvar j = 0; j < COLS; j++) begin : g_col
      ws_pe pe (
          .clk(clk), .load(control[1]),
          .a_in(a[i][j]), .valid_in(valid[i][j]),
          .w_in(w[i][j]), .psum_in(psum[i][j]),
          .a(a[i][j+1]), .valid(valid[i][j+1]),
          .w(w[i+1][j]), .psum(psum[i+1][j])
      );
    end
  end
endmodule
