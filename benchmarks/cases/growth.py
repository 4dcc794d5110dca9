"""How time and memory grow with the work and with the array: log-log plots and fitted slopes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.mapping.contract import GemmOperands, LayerPlan
from accelsim.mapping.plan import plan_operands
from benchmarks import engines
from benchmarks.machine import ROOT
from benchmarks.measure import checked, cpu_timer, in_turns, run_child
from benchmarks.result import Goal, Row
from benchmarks.run import Case, Run
from benchmarks.shapes import Gemm
from benchmarks.workloads import integers, machine

PICTURE = ROOT / "docs" / "images" / "growth.png"
Pick = Callable[[GemmOperands, LayerPlan], engines.Work]
MIB = 1 << 20
NOISE_BYTES = 2 * MIB
LONGEST_S = 3.0  # of one point: a curve ends before it takes longer
STEEPEST = 1.1  # near-linear
SIDES = (4, 8, 16, 32, 64, 128)

ENGINES: dict[str, tuple[Pick, str]] = {
    "fast, proved": (lambda o, p: engines.fast(o, p, watch=False), "engines.fast(operands, plan, watch=False)"),
    "fast, watched": (lambda o, p: engines.fast(o, p, watch=True), "engines.fast(operands, plan, watch=True)"),
    "everything watched": (engines.watched, "engines.watched(operands, plan)"),
    "registers": (engines.registers, "engines.registers(operands, plan)"),
    "stepped": (engines.stepped, "engines.stepped(operands, plan)"),
}
SCRIPT = """
from benchmarks import engines
from benchmarks.measure import own_peak_bytes
from benchmarks.shapes import Gemm
from benchmarks.workloads import integers, machine
from accelsim.mapping.plan import plan_operands
operands = integers(Gemm("", 1, {m}, {k}, {n}))
plan = plan_operands(operands, machine({side}, {side}))
({engine})()
print(own_peak_bytes())
"""


@dataclass(frozen=True)
class Curve:
    """Points of one engine. x : MACs, or PEs; y : seconds, or bytes."""

    engine: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Exponent of growth over the upper half of the points, where what is fixed no longer counts."""
        return slope(self.x, self.y)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the exponent p of y ~ x**p, fitted to the logarithms of the upper half of the points (two or more)."""
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"a slope needs two points or more; found {len(x)} and {len(y)}")
    start = min(len(x) // 2, len(x) - 2)
    return float(np.polyfit(np.log(x[start:]), np.log(y[start:]), 1)[0])


def _cubes(run: Run) -> list[Gemm]:
    sides = (32, 64, 128) if run.quick else (32, 64, 128, 256, 512, 1024, 2048)
    return [Gemm(str(side), 1, side, side, side) for side in sides]


def _time_by_macs(run: Run) -> Iterator[Curve]:
    for name, (pick, _) in ENGINES.items():
        x, y = [], []
        for gemm in _cubes(run):
            operands = integers(gemm)
            work = pick(operands, plan_operands(operands, machine(16, 16)))
            if y and y[-1] * 8 > LONGEST_S:
                break
            x.append(float(gemm.macs))
            y.append(in_turns({"ours": cpu_timer(work)}, min(run.repeats, 3))["ours"].median)
        if len(x) > 1:
            yield Curve(name, tuple(x), tuple(y))


def _time_by_array(run: Run) -> Iterator[Curve]:
    gemm = Gemm("", 1, 64, 64, 64) if run.quick else Gemm("", 1, 512, 512, 512)
    small = Gemm("", 1, 64, 64, 64)
    for name, (pick, _) in ENGINES.items():
        operands = integers(small if name == "stepped" else gemm)
        x, y = [], []
        for side in (4, 8, 16) if run.quick else SIDES:
            work = pick(operands, plan_operands(operands, machine(side, side)))
            x.append(float(side * side))
            y.append(in_turns({"ours": cpu_timer(work)}, min(run.repeats, 3))["ours"].median)
        if len(x) > 1:
            yield Curve(f"{name}, 64 cubed" if name == "stepped" else name, tuple(x), tuple(y))


def _memory_by_macs(run: Run) -> Iterator[Curve]:
    """Yield peaks above that of a process with the smallest layer, as far as they stand out against its noise."""
    for name, (_, expression) in ENGINES.items():
        if name == "stepped":  # its cubes of a size that shows would take minutes
            continue
        smallest, *cubes = _cubes(run)
        _peak(smallest, expression, name)  # compiles what is not in the cache
        base = _peak(smallest, expression, name)
        peaks = [(float(gemm.macs), _peak(gemm, expression, name) - base) for gemm in cubes]
        shown = [(x, y) for x, y in peaks if y >= NOISE_BYTES]
        if len(shown) > 1:
            yield Curve(name, *(tuple(axis) for axis in zip(*shown, strict=True)))


def _memory_by_array(run: Run) -> Iterator[Curve]:
    """Yield peaks of one layer above those of the smallest layer on the smallest array."""
    gemm = Gemm("", 1, 128, 128, 128) if run.quick else Gemm("", 1, 1024, 1024, 1024)
    for name, (_, expression) in ENGINES.items():
        if name == "stepped":
            continue
        base = _peak(_cubes(run)[0], expression, name, side=SIDES[0])
        sides = (4, 8, 16) if run.quick else SIDES[2:] if name == "registers" else SIDES
        peaks = [max(NOISE_BYTES, _peak(gemm, expression, name, side=side) - base) for side in sides]
        yield Curve(name, tuple(float(side * side) for side in sides), tuple(peaks))


def _peak(gemm: Gemm, expression: str, name: str, side: int = 16) -> float:
    script = SCRIPT.format(m=gemm.m, k=gemm.k, n=gemm.n, engine=expression, side=side)
    return float(checked(run_child([sys.executable, "-c", script], folder=ROOT), f"{name}, {gemm.m} cubed").stdout)


def _growth(run: Run) -> Iterator[Row]:
    panels = {
        "MACs": list(_time_by_macs(run)),
        "PEs": list(_time_by_array(run)),
        "memory": list(_memory_by_macs(run)),
        "memory of PEs": list(_memory_by_array(run)),
    }
    for panel, curves in panels.items():
        for curve in curves:
            yield _row(panel, curve)
    if run.quick:
        run.say("quick: docs/images/growth.png is left as it is")
    else:
        draw(panels, PICTURE)


def _row(panel: str, curve: Curve) -> Row:
    """Return a curve's exponent; a flat or falling one, which noise may make negative, counts as that of 0.01."""
    by = "MACs" if panel in ("MACs", "memory") else "PEs"
    what = "memory" if "memory" in panel else "time"
    last = f"{curve.y[-1] / MIB:,.0f} MiB" if what == "memory" else f"{curve.y[-1]:.3g} s"
    ends = f"{curve.x[0]:,.0f} to {curve.x[-1]:,.0f} {by}"
    return Row(
        "growth",
        f"{what} of {curve.engine} against {by}, {ends}",
        value=max(curve.slope, 0.01),
        unit="(exponent)",
        details={"x": curve.x, "y": curve.y, "slope": curve.slope},
        goal=Goal("value", STEEPEST),
        note=f"{last} at the end",
    )


def draw(panels: dict[str, list[Curve]], path: Path) -> None:
    """Write the plots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "MACs": ("Time of one layer, 16 x 16, M = K = N", "multiply-accumulates", "CPU time in s"),
        "PEs": ("Time of one layer, M = K = N = 512", "processing elements", "CPU time in s"),
        "memory": (
            "Peak memory of one layer, 16 x 16, M = K = N",
            "multiply-accumulates",
            "resident memory above the start, MiB",
        ),
        "memory of PEs": (
            "Peak memory of one layer, M = K = N = 1024",
            "processing elements",
            "resident memory above the start, MiB",
        ),
    }
    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    for axis, (panel, curves) in zip(axes.flat, panels.items(), strict=True):
        title, x_label, y_label = titles[panel]
        for number, curve in enumerate(curves):
            y = np.array(curve.y) / (MIB if "memory" in panel else 1)
            label = f"{curve.engine} (slope {curve.slope:.2f})"
            axis.loglog(curve.x, y, marker="osD^v"[number % 5], markersize=5, label=label)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        if panel == "memory of PEs":  # flat: a decade or two around the curves, as the other panels have
            axis.set_ylim(1, 1000)
        axis.grid(True, which="major", alpha=0.3)
        axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


CASES = (
    Case(
        "growth",
        "time and peak memory as the work and the array grow: exponents of a log-log fit, upper half of the points",
        "near-linear: an exponent of at most 1.1",
        _growth,
    ),
)
