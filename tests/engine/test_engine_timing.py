"""Drawn by hand: which PE works on what in which cycle, and the cycles by cause, read from the stepped registers."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from strategies import machine, plain

from accelsim.config.model import Multiplier
from accelsim.engine.stepped import SteppedEngine, build_machine
from accelsim.mapping.contract import CycleCounts
from accelsim.mapping.plan import plan_operands


def counting(m, k, n):
    """X[m, k] = 10 m + k + 1 and W[k, n] = 10 n + k + 1, so that a value tells where it comes from."""
    return plain(
        [[10 * row + i + 1 for i in range(k)] for row in range(m)],
        [[10 * col + i + 1 for col in range(n)] for i in range(k)],
    )


def step_through(operands, config):
    """Return [registers of each cycle], and check that the plan and the engine say the same about cycles."""
    plan = plan_operands(operands, config)
    stepped, seen = build_machine(operands, plan), []
    running = True
    while running:
        running = stepped.advance()
        seen.append(stepped.registers())
    cycles = SteppedEngine().run(operands, plan).cycles
    assert cycles == plan.cycles
    assert len(seen) == cycles.total - cycles.ppu
    return seen, cycles


def draw(seen, *, stationary, sub_cycles=False):
    """One line a cycle: cause, then for each PE what it does; see the drawings."""
    lines, before = [], None
    for now in seen:
        cells = []
        for i, j in np.ndindex(now.psum.shape):
            cell = "."
            if now.cause == "load" and now.y_ok[i, j, 0]:
                cell = f"w{now.y[i, j, 0] % 10 - 1}"
            elif now.cause in ("fill", "compute") and now.x_ok[i, j, 0] and now.y_ok[i, j, 0]:
                cell = f"{'m' if stationary else 'k'}{now.x_token[i, j]}"
                cell += f".{now.sub_cycle[i, j]}" if sub_cycles else ""
            elif now.cause == "drain" and before.row[i, j] >= 0:
                cell = f"y{before.row[i, j]}"
            cells.append(cell)
        lines.append(" ".join([now.cause, *cells]))
        before = now
    return lines


def lines(text):
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def test_output_stationary_3x3():
    # P = 2 lane steps. PE(i, j) performs step p in cycle p + i + j; the far corner works in cycles 4 and 5, so the
    # cycles 0 to 3 are fill. Then rows of psums move down, one row leaves a cycle: 3 drain.
    # PE    00 01 02  10 11 12  20 21 22
    drawing = """
    fill    k0 .  .   .  .  .   .  .  .
    fill    k1 k0 .   k0 .  .   .  .  .
    fill    .  k1 k0  k1 k0 .   k0 .  .
    fill    .  .  k1  .  k1 k0  k1 k0 .
    compute .  .  .   .  .  k1  .  k1 k0
    compute .  .  .   .  .  .   .  .  k1
    drain   y0 y0 y0  y1 y1 y1  y2 y2 y2
    drain   .  .  .   y0 y0 y0  y1 y1 y1
    drain   .  .  .   .  .  .   y0 y0 y0
    """
    seen, cycles = step_through(counting(3, 2, 3), machine("os", 3, 3))
    assert draw(seen, stationary=False) == lines(drawing)
    assert cycles == CycleCounts(fill=4, compute=2, drain=3, ppu=cycles.ppu)
    # X row 1 is 11 12 and W column 2 is 21 22: PE(1, 2) makes 11 * 21 = 231 in cycle 3, and 231 + 12 * 22 = 495.
    assert [registers.psum[1, 2] for registers in seen[2:6]] == [0, 231, 495, 495]


WEIGHT_STATIONARY = """
    load    w2 w2 w2  .  .  .   .  .  .
    load    w1 w1 w1  w2 w2 w2  .  .  .
    load    w0 w0 w0  w1 w1 w1  w2 w2 w2
    fill    m0 .  .   .  .  .   .  .  .
    fill    m1 m0 .   m0 .  .   .  .  .
    fill    .  m1 m0  m1 m0 .   m0 .  .
    fill    .  .  m1  .  m1 m0  m1 m0 .
    compute .  .  .   .  .  m1  .  m1 m0
    compute .  .  .   .  .  .   .  .  m1
    """


@pytest.mark.parametrize("dataflow", ["ws", "is"])
def test_stationary_operand_3x3(dataflow):
    # The operand's bottom row enters first. T = 2 rows stream past; PE(i, j) works on row t in cycle 3 + t + i + j.
    # `is` is the same with X and W exchanged: 2 columns of W stream past X.
    operands = counting(2, 3, 3) if dataflow == "ws" else counting(3, 3, 2)
    seen, cycles = step_through(operands, machine(dataflow, 3, 3))
    assert draw(seen, stationary=True) == lines(WEIGHT_STATIONARY)
    assert cycles == CycleCounts(load=3, fill=4, compute=2, ppu=cycles.ppu)
    # Stream row 1 is 11 12 13, held column 2 is 21 22 23: 231, 231 + 264, 495 + 299, one PE further down each cycle.
    assert [seen[6].psum[0, 2], seen[7].psum[1, 2], seen[8].psum[2, 2]] == [231, 495, 794]
    # Row 0's psums leave the bottom in the cycles 5, 6, 7 (one column later each), row 1's a cycle after row 0's.
    leaving = [registers.outlet[:, 0].tolist() for registers in seen]
    assert leaving == [[-1, -1, -1]] * 5 + [[0, -1, -1], [1, 0, -1], [-1, 1, 0], [-1, -1, 1]]
    assert seen[8].outlet[2].tolist() == [1, 2, 794]


# Weights of two bits, serial, so a lane step takes two cycles: low bit, sign bit. The skew is one cycle all the same.
SERIAL = Multiplier(kind="bit_serial", serial="weight")
TWO_BITS = replace(plain([[1, 2], [3, 4]], [[1, -2], [-1, -1]], bits=2), a_bits=3)


def test_bit_serial_output_stationary_2x2():
    # P = 2 lane steps of s = 2 cycles. PE(i, j) is in sub-cycle u of step p in cycle 2 p + u + i + j. The far corner
    # works from cycle 2 to cycle 5: 2 fill + 4 compute + 2 drain = P s + 2 R + C - 2.
    # PE    00   01    10   11
    drawing = """
    fill    k0.0 .     .    .
    fill    k0.1 k0.0  k0.0 .
    compute k1.0 k0.1  k0.1 k0.0
    compute k1.1 k1.0  k1.0 k0.1
    compute .    k1.1  k1.1 k1.0
    compute .    .     .    k1.1
    drain   y0   y0    y1   y1
    drain   .    .     y0   y0
    """
    config = machine("os", 2, 2, multiplier=SERIAL)
    seen, cycles = step_through(TWO_BITS, config)
    assert draw(seen, stationary=False, sub_cycles=True) == lines(drawing)
    assert cycles == CycleCounts(fill=2, compute=4, drain=2, ppu=cycles.ppu)
    # PE(1, 0): 3 * 1: 3, complete in its cycle 2. 4 * -1: the low bit makes 4, the sign bit 4 - 8 = -4: 3 - 4 = -1.
    assert [r.serial[1, 0, 0] for r in seen[1:5]] == [3, 0, 4, 0]
    assert [r.psum[1, 0] for r in seen[1:5]] == [0, 3, 3, -1]
    # PE(0, 1): 1 * -2: 0, then -2. 2 * -1: 2, then 2 - 4 = -2: -2 - 2 = -4.
    assert [r.serial[0, 1, 0] for r in seen[1:5]] == [0, 0, 2, 0]
    assert [r.psum[0, 1] for r in seen[1:5]] == [0, -2, -2, -4]


def test_bit_serial_weight_stationary_2x2():
    # T = 2 rows of s = 2 cycles stream past. PE(i, j) is in sub-cycle u of row t in cycle 2 + 2 t + u + i + j; its psum
    # goes down after u = 1, and waits there for nothing: the PE below is then in its own u = 1.
    # PE    00   01    10   11
    drawing = """
    load    w1   w1    .    .
    load    w0   w0    w1   w1
    fill    m0.0 .     .    .
    fill    m0.1 m0.0  m0.0 .
    compute m1.0 m0.1  m0.1 m0.0
    compute m1.1 m1.0  m1.0 m0.1
    compute .    m1.1  m1.1 m1.0
    compute .    .     .    m1.1
    """
    seen, cycles = step_through(TWO_BITS, machine("ws", 2, 2, multiplier=SERIAL))
    for registers in seen:  # the drawing tells weights by their rows
        registers.y[..., 0] = np.select([np.isin(registers.y[..., 0], [1, -2])], [11], 12)
    assert draw(seen, stationary=True, sub_cycles=True) == lines(drawing)
    assert cycles == CycleCounts(load=2, fill=2, compute=4, ppu=cycles.ppu)
    # X W = [1 - 2, -2 - 2], [3 - 4, -6 - 4]. Column 0 leaves the bottom in the cycles 4 and 6, column 1 a cycle later.
    leaving = [[(row, value) for row, _, value in r.outlet.tolist() if row >= 0] for r in seen]
    assert leaving == [[], [], [], [], [(0, -1)], [(0, -4)], [(1, -1)], [(1, -10)]]
    assert [r.psum[0, 0] for r in seen[2:7]] == [0, 1, 1, 3, 0]
    assert [r.psum[1, 1] for r in seen[4:8]] == [0, -4, -4, -10]


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_the_serial_operand_is_the_one_that_is_cut(dataflow):
    # 3 * -1. Bits of the weight, 1 1: 3 * 1, then 3 * -2. Bits of the activation, 1 1 0: -1 * 1, -1 * 2, nothing.
    # Both (bits of the activation outside): 1 * 1, 1 * -2, 2 * 1, 2 * -2, nothing twice. `is` exchanges what moves.
    both = [1, -1, 1, -3, -3] if dataflow != "is" else [1, 3, 3, 1, -3]
    for serial, sums in (("weight", [3]), ("activation", [-1, -3]), ("both", both)):
        operands = replace(plain([[3]], [[-1]], bits=2), a_bits=3)
        seen, _ = step_through(
            operands, machine(dataflow, 1, 1, multiplier=Multiplier(kind="bit_serial", serial=serial))
        )
        assert [r.serial[0, 0, 0] for r in seen if r.sub_cycle[0, 0] >= 0] == [*sums, 0]
        assert seen[-1 if dataflow != "os" else -2].psum[0, 0] == -3


def test_a_wide_operand_on_a_narrow_port_is_cut_into_pieces_of_the_port():
    # 4-bit ports. 83 = 3 + 5 * 16, times -2: first -6, then 5 * -2 * 16 = -160.
    config = machine("os", 1, 1, ports=(4, 4), multiplier=Multiplier(kind="fusion"))
    seen, cycles = step_through(replace(plain([[83]], [[-2]], bits=4), a_bits=8), config)
    assert cycles == CycleCounts(compute=2, drain=1, ppu=cycles.ppu)
    assert [r.serial[0, 0, 0] for r in seen[:2]] == [-6, 0]
    assert seen[1].psum[0, 0] == -166


def test_a_ragged_tile_travels_the_whole_array_or_only_what_it_uses():
    # One output row and column of a 3 x 3 array, K = 1: the corner PE(2, 2) has a token in cycle 4 all the same.
    _, cycles = step_through(counting(1, 1, 1), machine("os", 3, 3))
    assert cycles == CycleCounts(fill=4, compute=1, drain=3, ppu=cycles.ppu)
    _, cycles = step_through(counting(1, 1, 1), machine("os", 3, 3, skip_unused=True))
    assert cycles == CycleCounts(fill=0, compute=1, drain=1, ppu=cycles.ppu)


def test_a_double_buffered_load_hides_behind_the_array_phase():
    # K = 6 on 3 rows: two passes. Array phase: 4 fill + 2 compute = 6 >= 3, so only the first load shows: 3 + 6 + 6.
    seen, cycles = step_through(counting(2, 6, 3), machine("ws", 3, 3, double_buffered=True))
    assert cycles == CycleCounts(load=3, fill=8, compute=4, ppu=cycles.ppu)
    # The chain takes weight rows 5, 4, 3 in the cycles 3, 4, 5 and waits; the multipliers see 0 1 2 until cycle 8.
    rows = [[register[i, 0, 0] % 10 - 1 for i in range(3)] for register in (seen[8].y, seen[9].y, seen[8].chain_y)]
    assert rows == [[0, 1, 2], [3, 4, 5], [3, 4, 5]]
    chain = [[r.chain_y[i, 0, 0] % 10 - 1 if r.chain_y_ok[i, 0, 0] else None for i in range(3)] for r in seen[3:7]]
    assert chain == [[5, None, None], [4, 5, None], [3, 4, 5], [3, 4, 5]]
    assert [registers.number for registers in seen] == [0] * 9 + [1] * 6


def test_bubbles_fill_the_pipeline_while_a_load_or_a_drain_shows():
    # Two K folds, not double-buffered: pass 1 loads in the cycles 9 to 11, after 3 load and 6 cycles of array phase.
    seen, cycles = step_through(counting(2, 6, 3), machine("ws", 3, 3))
    assert cycles == CycleCounts(load=6, fill=8, compute=4, ppu=cycles.ppu)
    assert [registers.cause for registers in seen[8:13]] == ["compute", "load", "load", "load", "fill"]
    assert seen[8].x_ok[2, 2, 0]
    assert seen[8].col[2, 2] == 2
    for registers in seen[9:12]:
        assert not registers.x_ok.any()
        assert (registers.x_token == -1).all()
        assert (registers.col == -1).all()
    # Two column folds of os: pass 0 drains in the cycles 6 to 8.
    seen, _ = step_through(counting(3, 2, 6), machine("os", 3, 3))
    for registers in seen[6:9]:
        assert not registers.x_ok.any()
        assert not registers.y_ok.any()
    # The last drain, overlapped: psums were handed over, so only the chain holds any.
    seen, _ = step_through(counting(3, 2, 3), machine("os", 3, 3, drain_overlap=True))
    assert [(r.row[0, 0], r.chain_row[2, 0]) for r in seen[5:9]] == [(0, 2), (-1, 1), (-1, 0), (-1, -1)]


def test_what_does_not_hide_of_a_load_shows():
    # 3 x 1, M = 1, K = 4, N = 2, unused rows skipped: folds of 3 and 1 rows for either column. Array phases: 1 + 2 = 3
    # and 1 + 0 = 1. Loads: 3 (nothing before), 1 (behind 3: hidden), 3 (behind 1: 2 show), 1 (behind 3: hidden).
    config = machine("ws", 3, 1, double_buffered=True, skip_unused=True)
    seen, cycles = step_through(counting(1, 4, 2), config)
    assert cycles == CycleCounts(load=5, fill=4, compute=4, ppu=cycles.ppu)
    causes = (
        ["load"] * 3 + ["fill", "fill", "compute", "compute"] + ["load"] * 2 + ["fill", "fill", "compute", "compute"]
    )
    assert [registers.cause for registers in seen] == causes


def test_an_overlapped_drain_hides_behind_the_next_pass():
    # N = 6 on 3 columns: two passes of 4 fill + 2 compute. The first drain leaves in the cycles 6, 7, 8, while pass 1
    # fills; the last one shows.
    seen, cycles = step_through(counting(3, 2, 6), machine("os", 3, 3, drain_overlap=True))
    assert cycles == CycleCounts(fill=8, compute=4, drain=3, ppu=cycles.ppu)
    chain = [registers.chain_row[:, 0].tolist() for registers in seen[5:9]]
    assert chain == [[0, 1, 2], [-1, 0, 1], [-1, -1, 0], [-1, -1, -1]]
    assert [registers.outlet[0, 0] for registers in seen[5:10]] == [-1, 2, 1, 0, -1]
    assert seen[6].x_token[0, 0] == 0  # pass 1 has begun


def test_what_does_not_hide_of_a_drain_shows():
    # M = 4 on 3 rows, N = K = 1, unused skipped: passes of 3 rows (2 fill + 1 compute) and 1 row (0 + 1). Pass 1 lasts
    # one cycle, so of the first drain's 3 cycles 2 show; then its own 1.
    config = machine("os", 3, 3, drain_overlap=True, skip_unused=True)
    seen, cycles = step_through(counting(4, 1, 1), config)
    assert cycles == CycleCounts(fill=2, compute=2, drain=3, ppu=cycles.ppu)
    assert [r.cause for r in seen] == ["fill", "fill", "compute", "compute", "drain", "drain", "drain"]
    assert [r.outlet[0, 0] for r in seen] == [-1, -1, -1, 2, 1, 0, 3]


def test_lanes_take_their_elements_in_steps():
    # K = 5 on 2 lanes: steps 0-1, 2-3, 4. The last step's second lane is gated.
    seen, _ = step_through(counting(1, 5, 1), machine("os", 1, 1, lanes=2))
    assert [registers.x[0, 0].tolist() for registers in seen[:3]] == [[1, 2], [3, 4], [5, 0]]
    assert_array_equal(seen[2].x_ok[0, 0], [True, False])
