"""What docs/timing.md says of lane steps is computed here again and compared with the text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapping_cases import machine
from test_mapping_manual import drawn, manual  # noqa: F401 (a fixture)

from accelsim.config.model import Multiplier, Popcount
from accelsim.mapping.contract import GemmShape
from accelsim.mapping.plan import plan_layer

PES = [(0, 0), (0, 1), (1, 0), (1, 1)]


def planned(config, m, k, n, a_bits, w_bits, product="multiply"):
    return plan_layer(GemmShape(1, m, k, n), config, a_bits=a_bits, w_bits=w_bits, product=product)


def stepping(kind, dataflow, rows=4, cols=3, serial="both"):
    return machine(dataflow, rows, cols, ports=8, scale_unit=None, multiplier=Multiplier(kind=kind, serial=serial))


def test_drawn_steps_of_two_cycles(manual):  # noqa: F811
    """PE(i, j) performs lane step p for two cycles from 2 p + i + j on; psums then move down one row a cycle."""
    rows = []
    for t in range(6):
        steps = {(i, j): (t - i - j) // 2 for i, j in PES}
        cause = "compute" if 0 <= steps[1, 1] < 2 else "fill"
        rows.append([str(t), cause, *(f"k{p}" if 0 <= p < 2 else "." for p in steps.values())])
    rows.append(["6", "drain", "y0", "y0", "y1", "y1"])
    rows.append(["7", "drain", ".", ".", "y0", "y0"])
    assert drawn(manual, "os, 2 x 2, M = 2, K = 2, N = 2, s = 2") == rows
    plan = planned(stepping("bit_serial", "os", 2, 2), 2, 2, 2, 1, 2)
    assert plan.step_cycles == 2
    causes = [row[1] for row in rows]
    assert {cause: causes.count(cause) for cause in plan.cycles.by_cause()} == plan.cycles.by_cause()


def test_table_of_steps(manual):  # noqa: F811
    """Every row of the table: M = 6, K = 5, N = 5 on 4 x 3 PEs."""
    rows = re.findall(
        r"^\| `(os|ws)`, `(fusion|bit_serial|popcount)`(?:, `serial: (\w+)`| of 32 bits)? \| ([\d |]+) \|$",
        manual,
        re.MULTILINE,
    )
    assert len(rows) == 9
    for dataflow, kind, serial, numbers in rows:
        a_bits, w_bits, lanes, step_cycles, load, fill, compute, drain, total = map(int, numbers.split(" | "))
        if kind == "popcount":
            config, product = machine(dataflow, 4, 3, popcount=Popcount(word_bits=32)), "xnor"
        else:
            config, product = stepping(kind, dataflow, serial=serial or "both"), "multiply"
        plan = planned(config, 6, 5, 5, a_bits, w_bits, product)
        cycles = plan.cycles
        assert (plan.lanes, plan.step_cycles) == (lanes, step_cycles)
        assert (cycles.load, cycles.fill, cycles.compute, cycles.drain, cycles.ppu) == (load, fill, compute, drain, 0)
        assert cycles.total == total


def test_what_the_page_says_of_bit_fusion(manual):  # noqa: F811
    """Two 4-bit operands on 8-bit ports have 4 L and s = 1; two of 16 bits have L and s = 4; 5 bits take those of 8."""
    assert "Two 4-bit operands on\n8-bit ports thus have 4 L and s = 1; two of 16 bits have L and s = 4." in manual
    steps = {
        bits: (plan.lanes, plan.step_cycles)
        for bits in (2, 4, 5, 8, 9, 16)
        for plan in [planned(stepping("fusion", "os"), 6, 5, 5, bits, bits)]
    }
    assert steps == {2: (16, 1), 4: (4, 1), 5: (1, 1), 8: (1, 1), 9: (1, 4), 16: (1, 4)}


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@given(data=st.data())
def test_narrower_operands_never_cost_a_cycle(dataflow, data):
    sizes = st.integers(1, 40)
    m, k, n = data.draw(sizes), data.draw(sizes), data.draw(sizes)
    rows, cols, wide = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)), data.draw(st.integers(2, 16))
    other = data.draw(st.integers(1, 16))
    for kind in ("fusion", "bit_serial"):
        config = stepping(kind, dataflow, rows, cols)
        cycles = [planned(config, m, k, n, bits, other).cycles.total for bits in (wide, wide - 1)]
        assert cycles[1] <= cycles[0]
        cycles = [planned(config, m, k, n, other, bits).cycles.total for bits in (wide, wide - 1)]
        assert cycles[1] <= cycles[0]


def test_a_slow_ppu_has_the_cycles_of_a_step(manual):  # noqa: F811
    """ws, 3 columns, 1 PPU lane: a row of results takes 3 cycles and comes every s: each waits max(0, 3 - s)."""
    assert "`max(0, ceil(cols / ppu.lanes) - s)`" in manual
    for step_cycles, wait in [(1, 2), (2, 1), (3, 0), (8, 0)]:
        config = machine(
            "ws", 4, 3, ports=8, ppu_lanes=1, scale_unit=None, multiplier=Multiplier(kind="bit_serial", serial="weight")
        )
        assert planned(config, 6, 4, 3, 8, step_cycles).cycles.ppu == 6 * wait
