// Drives one systolic array through a file of edge inputs, one record a cycle, and writes what leaves at the bottom.
//
//   driver INPUT OUTPUT CYCLES
//
// INPUT: CYCLES records of 1 + ROWS + COLS bytes: control, left edge, top edge. OUTPUT: CYCLES records of COLS int32, what
// the bottom edge shows after each rising edge; then CYCLES bytes, `done` after each rising edge (zeros where the array
// has none). Prints the CPU seconds of the simulation loop alone.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include ARRAY_HEADER
#include "verilated.h"

static double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    const long cycles = std::atol(argv[3]);
    const size_t record = 1 + ROWS + COLS;
    std::vector<uint8_t> in(cycles * record);
    std::vector<int32_t> out(cycles * COLS);
    std::vector<uint8_t> done(cycles);
    FILE* file = std::fopen(argv[1], "rb");
    if (!file || std::fread(in.data(), record, cycles, file) != size_t(cycles)) return 3;
    std::fclose(file);
    VerilatedContext context;
    ARRAY_CLASS array{&context};
    const double start = cpu_seconds();
    for (long t = 0; t < cycles; t++) {
        const uint8_t* edge = &in[t * record];
        array.control = edge[0];
        std::memcpy(&array.left, edge + 1, ROWS);
        std::memcpy(&array.top, edge + 1 + ROWS, COLS);
        array.clk = 0;
        array.eval();
        array.clk = 1;
        array.eval();
        std::memcpy(&out[t * COLS], &array.bottom, COLS * 4);
#ifdef ARRAY_HAS_DONE
        done[t] = array.done;
#endif
    }
    const double seconds = cpu_seconds() - start;
    file = std::fopen(argv[2], "wb");
    if (!file || std::fwrite(out.data(), 4 * COLS, cycles, file) != size_t(cycles)) return 4;
    if (std::fwrite(done.data(), 1, cycles, file) != size_t(cycles)) return 4;
    std::fclose(file);
    std::printf("%.9f\n", seconds);
    return 0;
}
