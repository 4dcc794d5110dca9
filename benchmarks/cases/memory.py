"""Peak memory: a network takes what its largest layer takes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.measure import checked, run_child
from benchmarks.networks import saved
from benchmarks.result import Goal, Row
from benchmarks.run import Case, Run
from benchmarks.shapes import Conv, mobilenet_v2, resnet18

# A process of its own: a peak never falls again. `engine` is an expression of `operands` and `plan`.
SCRIPT = """
import sys
from accelsim import load_trace
from accelsim.config.model import Register
from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands
from benchmarks import engines
from benchmarks.measure import own_peak_bytes
from benchmarks.workloads import machine
trace, config = load_trace(sys.argv[1]), machine(32, 32, "ws", psum=Register(bits=20, overflow="saturate"))
first, last = int(sys.argv[3]), int(sys.argv[4])
for layer in (trace.layers[-1], *trace.layers[first:last]):  # the last one is small, and loads the kernels
    operands = lower(layer, trace.tensor(layer.input), trace.tensor(layer.weight), None, config).operands
    plan = plan_operands(operands, config)
    work = {engine}
    work()
    del operands, plan, work
print(own_peak_bytes())
"""
ENGINES = {
    "fast engine": "engines.fast(operands, plan, watch=True)",
    "everything watched": "engines.watched(operands, plan)",
}
MIB = 1 << 20
IMAGES = 4  # so that a layer's tensors stand out against what the process takes anyway


def _peak(trace: Path, engine: str, first: int, last: int) -> int:
    command = [sys.executable, "-c", SCRIPT.format(engine=ENGINES[engine]), trace, engine, str(first), str(last)]
    return int(checked(run_child(command, folder=ROOT), f"{engine} on layers {first} to {last}").stdout)


def _memory(run: Run) -> Iterator[Row]:
    images = 2 if run.quick else IMAGES
    networks = {"ResNet-18": resnet18()} if run.quick else {"ResNet-18": resnet18(), "MobileNetV2": mobilenet_v2()}
    for name, layers in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            trace = saved(name.replace("-", ""), layers, Path(folder), images=images)
            for engine in ENGINES:
                yield _row(run, f"{name}, {len(layers)} layers, {images} images", layers, trace, engine)


def _row(run: Run, name: str, layers: tuple[Conv, ...], trace: Path, engine: str) -> Row:
    _peak(trace, engine, 0, len(layers))  # kernels that are not in the cache are compiled here, which takes memory too
    nothing = _peak(trace, engine, 0, 0)
    # Which layer is the largest depends on what an engine keeps: the candidates are tried one by one.
    order = sorted(range(len(layers)), key=lambda index: -_elements(layers[index]))
    alone = max(_peak(trace, engine, index, index + 1) for index in order[: 2 if run.quick else 6]) - nothing
    whole = _peak(trace, engine, 0, len(layers)) - nothing
    return Row(
        "memory",
        f"{name}, 32 x 32 ws, {engine}",
        value=whole / MIB,
        unit="MiB",
        against="its largest layer alone",
        against_value=alone / MIB,
        ratio=alone / whole,
        goal=Goal("ratio", 0.9),
        note=f"besides {nothing / MIB:.0f} MiB for Python, the packages and compiled kernels",
    )


def _elements(layer: Conv) -> int:
    gemm = layer.gemm
    return gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n + 2 * gemm.m * gemm.n)


CASES = (
    Case(
        "memory",
        "peak memory of a process that runs a whole network, against one that runs its largest layer",
        "bounded by the largest layer (read as: the largest layer alone takes 90 % of what the network takes, or more)",
        _memory,
    ),
)
