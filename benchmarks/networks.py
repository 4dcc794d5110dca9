"""Whole networks as traces: every layer on an input of its own, random int8 codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from accelsim import TraceBuilder, formats
from accelsim.config.model import HardwareConfig
from accelsim.formats.tensor import make_qtensor
from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands
from accelsim.trace.reader import Trace
from accelsim.trace.schema import MatmulMeta
from benchmarks import engines
from benchmarks.shapes import Conv, Gemm

Engine = Callable[..., engines.Work]


def builder(name: str, layers: Iterable[Conv | Gemm], *, images: int = 1) -> TraceBuilder:
    """Return the trace's builder, for a batch of `images`.

    Layers do not feed one another: shapes are those of a network, tensors are random.
    """
    rng, int8, net = np.random.default_rng(0), formats.get("int8"), TraceBuilder(name)

    def tensor(*shape: int):
        return make_qtensor(rng.integers(-127, 128, shape, np.int32), int8, 0.01)

    for layer in layers:
        if isinstance(layer, Conv):
            x = net.input(f"{layer.name}.x", tensor(images, layer.size, layer.size, layer.channels))
            weight = tensor(layer.filters, layer.kernel, layer.kernel, layer.channels // layer.groups)
            pads = (layer.padding, layer.padding)
            how = {"stride": layer.stride, "padding": pads, "groups": layer.groups}
            net.conv2d(layer.name, x, weight, **how, output="int8", scale=1.0)
        elif layer.batch == 1:
            x = net.input(f"{layer.name}.x", tensor(images, layer.m, layer.k))
            net.linear(layer.name, x, tensor(layer.n, layer.k), output="int8", scale=1.0)
        else:
            a = net.input(f"{layer.name}.a", tensor(images, layer.batch, layer.m, layer.k))
            b = net.input(f"{layer.name}.b", tensor(images, layer.batch, layer.k, layer.n))
            net.matmul(layer.name, a, b, output="int8", scale=1.0)
    return net


def array_work(trace: Trace, config: HardwareConfig, engine: Engine) -> Callable[[], int]:
    """Return what lowers, plans and computes every layer, one after another, and returns the array's cycles.

    Tensors are read before; nothing of one layer is kept while the next one runs.
    """
    jobs = []
    for layer in trace.layers:
        other = layer.other if isinstance(layer, MatmulMeta) else layer.weight
        jobs.append((layer, trace.tensor(layer.input), trace.tensor(other)))

    def work() -> int:
        cycles = 0
        for layer, x, weight in jobs:
            operands = lower(layer, x, weight, None, config).operands
            plan = plan_operands(operands, config)
            engine(operands, plan)()
            cycles += plan.cycles.total - plan.cycles.ppu
        return cycles

    return work


def saved(name: str, layers: Iterable[Conv | Gemm], folder: Path, *, images: int = 1) -> Path:
    """Write the trace into `folder`; return its file."""
    return builder(name, layers, images=images).save(folder / f"{name}.npz")
