"""ResNet-18 against SCALE-Sim v3: the 21 layers that it ships, 32 x 32, weight-stationary."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.config.model import Register
from benchmarks import engines
from benchmarks.measure import Sample, cpu_timer, in_turns
from benchmarks.networks import array_work, builder
from benchmarks.peers import NotInstalledError, scalesim
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import SCALE_SIM_RESNET18
from benchmarks.workloads import machine

QUICK = ("Conv4_s", "Conv5_s")
STORED = "stored, not of this run: about 380 CPU seconds for the 21 layers on a machine like the page's"


def _scale_sim(run: Run) -> Iterator[Row]:
    layers = [layer for layer in SCALE_SIM_RESNET18 if not run.quick or layer.name in QUICK]
    macs = float(sum(layer.macs for layer in layers))
    registers = {"psum": Register(bits=20, overflow="saturate"), "accumulator": Register(bits=24, overflow="saturate")}
    trace = builder("resnet18", layers).build()
    peer, cycles, missing = None, None, ""
    try:
        run.say(f"SCALE-Sim {scalesim.version()}: {len(layers)} layers at some 4 to 6 million MACs a CPU second")
        child, cycles = scalesim.run(layers, size=32, dataflow="ws")
        peer = Sample((child.cpu_s,))
    except NotInstalledError as error:
        missing = f"the peer: {error}; {STORED}"
    what = f"{len(layers)} layers" + (f" ({', '.join(QUICK)}), not the network" if run.quick else "")
    kinds = (
        ("everything watched", lambda operands, plan: engines.watched(operands, plan), Goal("ratio", 500)),
        ("fast engine, watched", lambda operands, plan: engines.fast(operands, plan, watch=True), None),
        ("fast engine, proved", lambda operands, plan: engines.fast(operands, plan, watch=False), None),
    )
    for name, engine, goal in kinds:
        narrow = {} if "proved" in name else registers
        work = array_work(trace, machine(32, 32, "ws", **narrow), engine)
        label = f"ResNet-18, {what}, 32 x 32 ws, {name}"
        ours = work()
        note = ""
        if cycles is not None:  # SCALE-Sim prints one cycle less a layer (docs/timing.md)
            same = "the same cycles" if ours == cycles + len(layers) else "OTHER cycles"
            note = f"{same}: {ours:,} here, {cycles:,} + 1 a layer there"
        yield timed_row(
            "scale-sim",
            label,
            in_turns({"ours": cpu_timer(work)}, run.repeats)["ours"],
            work=macs,
            work_unit="MAC",
            peer=peer,
            against="SCALE-Sim v3 (addresses only)",
            goal=goal,
            missing=missing,
            note=note,
        )


CASES = (
    Case(
        "scale-sim",
        "ResNet-18 as SCALE-Sim ships it, lowering included, every value computed; SCALE-Sim runs once",
        "500x SCALE-Sim v3 in CPU time, everything watched",
        _scale_sim,
    ),
)
