"""The fast engine on integer layers against the plain float32 product of the same size."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.config.model import HardwareConfig, Register
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands
from benchmarks import engines
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.peers import NotInstalledError
from benchmarks.peers.limits import float32_product, torch_product
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Gemm
from benchmarks.workloads import integers, machine

# 50 MMAC and more: cubes, and the shapes of ResNet-18's stages
LAYERS = (
    Gemm("512 x 512 x 512", 1, 512, 512, 512),
    Gemm("1024 x 1024 x 1024", 1, 1024, 1024, 1024),
    Gemm("12544 x 147 x 64", 1, 12544, 147, 64),
    Gemm("3136 x 576 x 64", 1, 3136, 576, 64),
    Gemm("784 x 1152 x 128", 1, 784, 1152, 128),
    Gemm("196 x 2304 x 256", 1, 196, 2304, 256),
    Gemm("49 x 4608 x 512", 1, 49, 4608, 512),
)
BLAS = "plain float32 product"


def against_blas(
    run: Run,
    case: str,
    name: str,
    gemm: Gemm,
    operands: GemmOperands,
    config: HardwareConfig,
    *,
    watch: bool,
    extremes: bool = True,
    goal: float | None,
    note: str = "",
) -> Row:
    """Return how the fast engine compares with the plain float32 product of `gemm`."""
    plan = plan_operands(operands, config)
    timers = {
        "ours": cpu_timer(engines.fast(operands, plan, watch=watch, extremes=extremes)),
        "limit": cpu_timer(float32_product(gemm)),
    }
    samples = in_turns(timers, run.repeats)
    return timed_row(
        case,
        name,
        samples["ours"],
        work=float(gemm.macs),
        work_unit="MAC",
        peer=samples["limit"],
        against=BLAS,
        goal=None if goal is None else Goal("ratio", goal),
        note=note,
    )


def _fast(run: Run) -> Iterator[Row]:
    for gemm in LAYERS[: 1 if run.quick else None]:
        yield against_blas(
            run, "fast", f"int8, {gemm.name}, proved", gemm, integers(gemm), machine(), watch=False, goal=0.7
        )
    for gemm in LAYERS[: 1 if run.quick else None]:
        yield against_blas(
            run, "fast", f"int8, {gemm.name}, extremes watched", gemm, integers(gemm), machine(), watch=True, goal=None
        )
    yield _integer_limit(run)


def _integer_limit(run: Run) -> Row:
    """Return the plain exact int8 product of the fastest library there is, for a reader to compare with."""
    gemm, name = LAYERS[0], f"plain int8 product by PyTorch, {LAYERS[0].name}"
    try:
        timers = {"torch": cpu_timer(torch_product(gemm)), "limit": cpu_timer(float32_product(gemm))}
    except NotInstalledError as error:
        return Row("fast", name, missing=str(error))
    samples = in_turns(timers, run.repeats)
    return timed_row(
        "fast", name, samples["torch"], work=float(gemm.macs), work_unit="MAC", peer=samples["limit"], against=BLAS
    )


def _ordered(run: Run) -> Iterator[Row]:
    policies = (("saturate", 20, 0.2), ("saturate", 16, 0.4), ("wrap", 20, 0.2), ("wrap", 16, 0.4))
    counted = ", counted"
    for gemm in (LAYERS[0], LAYERS[3], LAYERS[5])[: 1 if run.quick else None]:
        for policy, bits, goal in policies[: 2 if run.quick else None]:
            config = machine(dataflow="os", psum=Register(bits=bits, overflow=policy))
            for extremes in (False, True):
                yield against_blas(
                    run,
                    "ordered",
                    f"int8, {gemm.name}, psum {policy}s at {bits} bits, os{'' if extremes else counted}",
                    gemm,
                    integers(gemm),
                    config,
                    watch=True,
                    extremes=extremes,
                    goal=None if extremes else goal,
                    note="with the extremes of registers of unlimited width" if extremes else "",
                )
    for gemm in (LAYERS[0], LAYERS[3], LAYERS[5])[: 0 if run.quick else None]:
        for policy, bits in (("saturate", 16), ("wrap", 16), ("saturate", 12)):
            config = machine(dataflow="ws", psum=Register(bits=bits, overflow=policy))
            name = f"int8, {gemm.name}, psum {policy}s at {bits} bits, ws, {-(-gemm.k // 16)} folds{counted}"
            yield against_blas(
                run,
                "ordered",
                name,
                gemm,
                integers(gemm),
                config,
                watch=True,
                extremes=False,
                goal=0.4 if bits == 16 else 0.2,
            )
        for bits in (24, 32):
            config = machine(dataflow="os", psum=Register(bits=bits, overflow="saturate"))
            name = f"int8, {gemm.name}, psum saturates at {bits} bits, os{counted}"
            yield against_blas(run, "ordered", name, gemm, integers(gemm), config, watch=True, extremes=False, goal=0.2)


CASES = (
    Case(
        "fast",
        "fast engine on int8 layers, conversions and the proof that nothing overflows included",
        "70 % of the rate of the plain float32 product, layers of 50 MMAC and more",
        _fast,
    ),
    Case(
        "ordered",
        "accumulation in order at a narrow width, overflows counted (--no-extremes), and with extremes besides",
        "20 % of the rate of the plain float32 product (any width up to 32), 40 % at 16 bits",
        _ordered,
    ),
)
