"""Whole networks: ResNet-18, MobileNetV2, a transformer layer; against plain float32 products of the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import accelsim
from accelsim.config.model import Register
from benchmarks import engines
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.networks import array_work, builder
from benchmarks.peers.limits import float32_product
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Conv, Gemm, mobilenet_v2, resnet18, transformer_layer
from benchmarks.workloads import gemms, machine

PSUM, ACCUMULATOR = Register(bits=20, overflow="saturate"), Register(bits=24, overflow="saturate")
ENGINES = (
    ("everything watched", lambda operands, plan: engines.watched(operands, plan)),
    ("fast engine, watched", lambda operands, plan: engines.fast(operands, plan, watch=True)),
    ("fast engine, proved", lambda operands, plan: engines.fast(operands, plan, watch=False)),
    ("every register moved", lambda operands, plan: engines.registers(operands, plan)),
)
LIMIT = "plain float32 products"


def products(layers: Iterable[Conv | Gemm]) -> Callable[[], None]:
    """Return the plain float32 products of all layers, one after another; no lowering, no conversion."""
    work = [float32_product(gemm) for gemm in gemms(layers)]

    def run() -> None:
        for product in work:
            product()

    return run


def _network(run: Run, case: str, name: str, layers: tuple[Conv | Gemm, ...], goal: Goal | None) -> Iterator[Row]:
    trace = builder(name.replace(" ", "_"), layers).build()
    macs = float(sum(layer.macs for layer in layers))
    limit = cpu_timer(products(layers))
    peer = {"work": macs, "work_unit": "MAC", "against": LIMIT}
    for what, engine in ENGINES:
        narrow = {"psum": PSUM, "accumulator": ACCUMULATOR} if "watched" in what else {}
        for dataflow in ("os", "ws") if what == ENGINES[0][0] else ("ws",):
            label = f"{name}, 16 x 16 {dataflow}, {what}"
            mine = goal if what == ENGINES[0][0] else None
            work = array_work(trace, machine(16, 16, dataflow, **narrow), engine)
            samples = in_turns({"ours": cpu_timer(work), "limit": limit}, run.repeats)
            yield timed_row(case, label, samples["ours"], peer=samples["limit"], goal=mine, **peer)
    config = machine(16, 16, "ws")

    def whole() -> object:
        return accelsim.simulate(config, trace)

    samples = in_turns({"ours": cpu_timer(whole), "limit": limit}, min(run.repeats, 3))
    note = "lowering, array, PPU, energy and the fake-quantized twin of every layer"
    label = f"{name}, 16 x 16 ws, accelsim.simulate"
    yield timed_row(case, label, samples["ours"], peer=samples["limit"], note=note, **peer)


def _resnet(run: Run) -> Iterator[Row]:
    return _network(run, "resnet18", "ResNet-18", resnet18()[:: 7 if run.quick else 1], Goal("value", 0.5))


def _others(run: Run) -> Iterator[Row]:
    for name, layers, limit_s in (
        ("MobileNetV2", mobilenet_v2(), 1.0),
        ("transformer layer", transformer_layer(), 0.25),
    ):
        yield from _network(run, "networks", name, layers[:: 7 if run.quick else 1], Goal("value", limit_s))


CASES = (
    Case(
        "resnet18",
        "ResNet-18 for 224 x 224 pixels, 1.81 GMAC, lowering included",
        "0.5 s of CPU time on 16 x 16, everything watched",
        _resnet,
    ),
    Case(
        "networks",
        "MobileNetV2, 0.30 GMAC, and a transformer layer of 0.93 GMAC, lowering included",
        "1 s and 0.25 s of CPU time on 16 x 16, everything watched",
        _others,
    ),
)
