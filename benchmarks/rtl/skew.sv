// A feeder of the array's edge: what enters leaves DEPTH cycles later.

module skew #(
    parameter int DEPTH = 1,
    parameter int WIDTH = 8
) (
    input  logic             clk,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
  if (DEPTH == 0) begin : g_wire
    assign out = in;
  end else begin : g_stages
    logic [WIDTH-1:0] stage[DEPTH];
    always_ff @(posedge clk) begin
      stage[0] <= in;
      for (int n = 1; n < DEPTH; n++) stage[n] <= stage[n-1];
    end
    assign out = stage[DEPTH-1];
  end
endmodule
