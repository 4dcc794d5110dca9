"""Every other datapath: XNOR-popcount, VSQ, MX, fused and serial multipliers, codebooks, powers of two, wide floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from accelsim.config.model import Codebook, FloatUnit, Multiplier, Popcount, ScaleUnit
from accelsim.mapping.contract import GemmOperands, Summation
from accelsim.mapping.plan import plan_operands
from benchmarks import engines
from benchmarks.cases.gemm import against_blas
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.peers.limits import numpy_xnor
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Gemm
from benchmarks.workloads import floats, integers, machine, mx, signs, vsq

SHAPES = (
    Gemm("512 x 512 x 512", 1, 512, 512, 512),
    Gemm("512 x 2048 x 512", 1, 512, 2048, 512),
    Gemm("196 x 2304 x 256", 1, 196, 2304, 256),
)


SCALE_UNIT = ScaleUnit(product_bits=6)


def _xnor(run: Run) -> Iterator[Row]:
    for gemm in SHAPES[: 1 if run.quick else None]:
        binary, integer = signs(gemm), integers(gemm)
        plan = plan_operands(binary, machine(4, 16, popcount=Popcount(word_bits=64)))
        timers = {
            "words": cpu_timer(engines.packed_xnor(binary, plan)),
            "ours": cpu_timer(engines.fast(binary, plan, watch=False)),
            "watched": cpu_timer(engines.fast(binary, plan, watch=True)),
            "numpy": cpu_timer(numpy_xnor(gemm)),
            "int8": cpu_timer(engines.fast(integer, plan_operands(integer, machine()), watch=False)),
        }
        samples = in_turns(timers, run.repeats)
        for name, ours, peer, against, goal in (
            ("words packed before", "words", "numpy", "NumPy's bitwise_count, words packed before", 20),
            (
                "from integers, proved, against numpy",
                "ours",
                "numpy",
                "NumPy's bitwise_count, words packed before",
                None,
            ),
            ("from integers, proved, against int8", "ours", "int8", "int8 on the fast engine", 8),
            (
                "from integers, every psum watched",
                "watched",
                "numpy",
                "NumPy's bitwise_count, words packed before",
                None,
            ),
        ):
            yield timed_row(
                "xnor",
                f"XNOR, {gemm.name}, {name}",
                samples[ours],
                work=float(gemm.macs),
                work_unit="MAC",
                peer=samples[peer],
                against=against,
                goal=None if goal is None else Goal("ratio", goal),
            )


def _blocks(run: Run) -> Iterator[Row]:
    for gemm in (SHAPES[0], SHAPES[2])[: 1 if run.quick else None]:
        for name, operands, config, goal in (
            ("VSQ, vectors of 16 int4, rounded scales", vsq(gemm), machine(4, lanes=16, scale_unit=SCALE_UNIT), 0.4),
            ("MX, blocks of 32 int8, float32", mx(gemm, "float32"), machine(2, lanes=32, float_unit=FloatUnit()), 0.4),
            (
                "MX, blocks of 32 int8, aligned to fixed point",
                mx(gemm, "fixed"),
                machine(2, lanes=32, float_unit=FloatUnit(accumulate="fixed")),
                0.15,
            ),
        ):
            yield against_blas(run, "blocks", f"{name}, {gemm.name}", gemm, operands, config, watch=True, goal=goal)
    yield from _block_floats(run)


def _block_floats(run: Run) -> Iterator[Row]:
    fixed = FloatUnit(accumulate="fixed")
    for gemm in (SHAPES[0], SHAPES[2])[: 1 if run.quick else None]:
        for name, operands, config, extremes, goal in (
            ("MXFP8 E4M3, float32", floats(gemm, "e4m3"), machine(2, lanes=32, float_unit=FloatUnit()), True, 0.4),
            ("NVFP4, float32", floats(gemm, "nvfp4"), machine(2, lanes=16, float_unit=FloatUnit()), True, 0.4),
            ("MX9, float32", floats(gemm, "mx9"), machine(2, lanes=16, float_unit=FloatUnit()), True, 0.4),
            ("VSQ, int8, rounded scales", vsq(gemm, bits=8), machine(4, lanes=16, scale_unit=SCALE_UNIT), True, 0.4),
            (
                "MXFP8 E4M3, aligned to 32 bits that overflow",
                floats(gemm, "e4m3", "fixed"),
                machine(2, lanes=32, float_unit=fixed),
                True,
                0.15,
            ),
            (
                "MXFP8 E4M3, aligned to 32 bits that overflow, counted",
                floats(gemm, "e4m3", "fixed"),
                machine(2, lanes=32, float_unit=fixed),
                False,
                0.15,
            ),
        ):
            yield against_blas(
                run, "blocks", f"{name}, {gemm.name}", gemm, operands, config, watch=True, extremes=extremes, goal=goal
            )


def _wide_floats(gemm: Gemm) -> GemmOperands:
    """Return 11-bit significands with exponents of their own, aligned within a lane step, as fp16 on `align_bits`."""
    rng, plain = np.random.default_rng(0), integers(gemm, bits=11)
    return replace(
        plain,
        bias=np.zeros((gemm.batch, gemm.n), np.float32),
        a_bits=11,
        w_bits=11,
        summation=Summation("float32", align_bits=24),
        a_exponents=rng.integers(-6, 6, plain.a.shape, np.int32),
        w_exponents=rng.integers(-6, 6, plain.w.shape, np.int32),
        exponent_spans=(29, 29),
    )


def _others(run: Run) -> Iterator[Row]:
    gemm = SHAPES[0]
    plain, small = integers(gemm), integers(gemm, bits=4)
    plain_machine = machine()

    def with_array(**changes: object) -> object:
        return plain_machine.model_copy(update={"array": plain_machine.array.model_copy(update=changes)})

    rng = np.random.default_rng(0)
    powers = (rng.choice([-1, 1], plain.w.shape) << rng.integers(0, 7, plain.w.shape)).astype(np.int32)
    for name, operands, config, goal in (
        ("int8 on fused multipliers", plain, with_array(multiplier=Multiplier(kind="fusion")), 0.15),
        ("int4 on bit-serial multipliers", small, with_array(multiplier=Multiplier(kind="bit_serial")), 0.15),
        (
            "codebook of 16, looked up",
            replace(small, product="lookup", w_code_bits=4),
            with_array(codebook=Codebook()),
            0.15,
        ),
        (
            "codebook of 16, accumulated",
            replace(small, product="accumulate", w_code_bits=4),
            with_array(codebook=Codebook(mode="accumulate")),
            0.15,
        ),
        (
            "powers of two on shifters",
            replace(plain, w=powers, product="shift"),
            with_array(multiplier=Multiplier(kind="shift")),
            0.15,
        ),
        (
            "wide floats, aligned, float32",
            _wide_floats(gemm),
            machine(lanes=4, float_unit=FloatUnit(align_bits=24)),
            0.01,
        ),
    ):
        yield against_blas(run, "datapaths", f"{name}, {gemm.name}", gemm, operands, config, watch=True, goal=goal)


CASES = (
    Case(
        "xnor",
        "binary layers by XNOR and popcount; signs arrive as words, or as integers, packed in the time measured",
        "20x NumPy's bitwise_count, 8x the int8 fast engine, K >= 512",
        _xnor,
    ),
    Case(
        "blocks",
        "VSQ and MX, every register watched",
        "40 % of the rate of the plain float32 product (VSQ, MX with float32), 15 % (MX aligned), N >= 128",
        _blocks,
    ),
    Case(
        "datapaths",
        "other multipliers and formats on the fast engine, every register watched",
        "15 % of the rate of the plain float32 product; 1 % where products are aligned one by one",
        _others,
    ),
)
