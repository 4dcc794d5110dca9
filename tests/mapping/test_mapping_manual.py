"""Every number and table of docs/timing.md that can be computed is computed here again and compared with the text."""

import re

import pytest
from mapping_cases import machine

from accelsim.mapping.contract import GemmShape
from accelsim.mapping.plan import plan_layer

PES = [(i, j) for i in range(3) for j in range(3)]


@pytest.fixture(scope="module")
def manual(project_root):
    return (project_root / "docs" / "timing.md").read_text(encoding="utf-8")


def drawn(manual, title):
    """The body of the drawn table with that title, one list of words a cycle."""
    block = re.search(rf"```text\n{re.escape(title)}\n.*?\n(.*?)```", manual, re.DOTALL)
    assert block, f"docs/timing.md has no table {title!r}"
    return [row.split() for row in block[1].strip().splitlines()]


def cycles_of(config, m, k, n):
    return plan_layer(GemmShape(1, m, k, n), config, a_bits=8, w_bits=8).cycles


def output_stationary_example():
    """3 x 3 PEs, K = 2: PE(i, j) performs step t - i - j; then each cycle the psums move down one row."""
    rows = []
    for t in range(6):
        steps = {(i, j): t - i - j for i, j in PES}
        cause = "compute" if 0 <= steps[2, 2] < 2 else "fill"
        rows.append([str(t), cause, *(f"k{s}" if 0 <= s < 2 else "." for s in steps.values())])
    return rows + [[str(6 + d), "drain", *(f"y{i - d}" if i >= d else "." for i, _ in PES)] for d in range(3)]


def weight_stationary_example():
    """3 x 3 PEs, M = 2: three cycles of load, the last row first; PE(i, j) works on row t - 3 - i - j."""
    rows = [[str(t), "load", *(f"w{2 - (t - i)}" if i <= t else "." for i, _ in PES)] for t in range(3)]
    for t in range(3, 9):
        streamed = {(i, j): t - 3 - i - j for i, j in PES}
        cause = "compute" if 0 <= streamed[2, 2] < 2 else "fill"
        rows.append([str(t), cause, *(f"m{s}" if 0 <= s < 2 else "." for s in streamed.values())])
    return rows


@pytest.mark.parametrize(
    ("title", "example", "plan"),
    [
        ("os, 3 x 3, M = 3, K = 2, N = 3", output_stationary_example, ("os", 3, 2, 3)),
        ("ws, 3 x 3, M = 2, K = 3, N = 3", weight_stationary_example, ("ws", 2, 3, 3)),
    ],
)
def test_drawn_examples(manual, title, example, plan):
    rows = drawn(manual, title)
    assert rows == example()
    cycles = cycles_of(machine(plan[0]), *plan[1:])
    drawn_causes = [row[1] for row in rows]
    assert {cause: drawn_causes.count(cause) for cause in cycles.by_cause()} == cycles.by_cause()


def test_worked_layer(manual):
    """The table of options, row by row: M = 6, K = 5, N = 5 on 4 x 3 PEs, and the same with one option each."""
    options = {
        "`os`": machine("os", 4, 3),
        "`os`, `drain_overlap`": machine("os", 4, 3, drain_overlap=True),
        "`os`, `skip_unused`": machine("os", 4, 3, skip_unused=True),
        "`os`, `ppu.lanes: 2`, `ppu.latency_cycles: 4`": machine("os", 4, 3, ppu_lanes=2, ppu_latency=4),
        "`ws`": machine("ws", 4, 3),
        "`ws`, `double_buffered`": machine("ws", 4, 3, double_buffered=True),
        "`ws`, `skip_unused`": machine("ws", 4, 3, skip_unused=True),
        "`ws`, `ppu.lanes: 2`, `ppu.latency_cycles: 4`": machine("ws", 4, 3, ppu_lanes=2, ppu_latency=4),
        "`is`": machine("is", 4, 3),
    }
    for label, config in options.items():
        cycles = cycles_of(config, 6, 5, 5)
        of_the_array = [cycles[cause] for cause in ("load", "fill", "compute", "drain", "ppu")]
        numbers = " | ".join(str(count) for count in [*of_the_array, cycles.total])
        assert f"| {label} | {numbers} |" in manual


def test_scale_sim_example(manual):
    """The sentence that shows how to get SCALE-Sim's number: load + fill + compute, one less as printed."""
    cycles = cycles_of(machine("ws", 4, 3), 6, 5, 5)
    reproduced = cycles.load + cycles.fill + cycles.compute
    folds, per_fold = 2 * 2, 6 + 2 * 4 + 3 - 2
    assert reproduced == folds * per_fold == 60
    assert "4 folds of 6 + 8 + 3 - 2 = 15 cycles, 60 in all" in " ".join(manual.split())
