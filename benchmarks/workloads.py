"""Operands and machines that the cases share. Values are uniform over the format's range, seeded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from accelsim.config.model import Array, Buffer, Buffers, FloatUnit, HardwareConfig, Popcount, Register, ScaleUnit
from accelsim.mapping.contract import BlockScaling, GemmOperands, Summation
from benchmarks.shapes import Conv, Gemm

FLOAT32_REGISTER = Register(bits=32, overflow="saturate")
LARGE_BUFFER = Buffer(size_bytes=1 << 26)


def machine(
    rows: int = 16,
    cols: int = 16,
    dataflow: Literal["os", "ws", "is"] = "ws",
    *,
    lanes: int = 1,
    psum: Register | None = None,
    accumulator: Register | None = None,
    scale_unit: ScaleUnit | None = None,
    float_unit: FloatUnit | None = None,
    popcount: Popcount | None = None,
) -> HardwareConfig:
    """Return an array of `rows` x `cols` PEs; registers of 32 bits that wrap where none is given."""
    register = FLOAT32_REGISTER if float_unit is not None and float_unit.accumulate == "float32" else Register(bits=32)
    array = Array(
        rows=rows,
        cols=cols,
        dataflow=dataflow,
        lanes=lanes,
        psum=psum or register,
        scale_unit=scale_unit,
        float_unit=float_unit,
        popcount=popcount,
    )
    buffers = Buffers(weight=LARGE_BUFFER, activation=LARGE_BUFFER, output=LARGE_BUFFER, accumulator=LARGE_BUFFER)
    return HardwareConfig(
        name="bench", clock_mhz=1000.0, array=array, accumulator=accumulator or register, buffers=buffers
    )


def integers(gemm: Gemm, bits: int = 8, seed: int = 0) -> GemmOperands:
    """Return signed integers of `bits` bits, without bias."""
    rng, half = np.random.default_rng(seed), 1 << (bits - 1)
    a = rng.integers(-half, half, (gemm.batch, gemm.m, gemm.k), np.int32)
    w = rng.integers(-half, half, (gemm.batch, gemm.k, gemm.n), np.int32)
    return GemmOperands(a, w, _no_bias(gemm), np.ones(gemm.k, np.bool_), bits, bits)


def signs(gemm: Gemm) -> GemmOperands:
    """Return binary operands, +1 and -1."""
    rng = np.random.default_rng(0)
    a = rng.choice(np.array([-1, 1], np.int32), (gemm.batch, gemm.m, gemm.k))
    w = rng.choice(np.array([-1, 1], np.int32), (gemm.batch, gemm.k, gemm.n))
    return GemmOperands(a, w, _no_bias(gemm), np.ones(gemm.k, np.bool_), 1, 1, product="xnor")


def vsq(gemm: Gemm, bits: int = 4, size: int = 16, product_shift: int = 2) -> GemmOperands:
    """Return vectors of `size` integers with 4-bit integer scales, whose products lose `product_shift` bits."""
    rng, half, plain = np.random.default_rng(0), 1 << (bits - 1), _padded(gemm, size)
    a = rng.integers(-half, half, (gemm.batch, gemm.m, plain.k), np.int32)
    w = rng.integers(-half, half, (gemm.batch, plain.k, gemm.n), np.int32)
    a_scales = rng.integers(0, 16, (gemm.batch, gemm.m, plain.k // size), np.int32)
    w_scales = rng.integers(0, 16, (gemm.batch, plain.k // size, gemm.n), np.int32)
    blocks = BlockScaling(size, a_scales, w_scales, product_shift, 4, 4)
    return GemmOperands(a, w, _no_bias(gemm), np.ones(plain.k, np.bool_), bits, bits, blocks)


def mx(gemm: Gemm, accumulate: Literal["float32", "fixed"], bits: int = 8, size: int = 32) -> GemmOperands:
    """Return MXINT8: blocks of `size` integers with power-of-two scales spread over eight binades."""
    rng, half, plain = np.random.default_rng(0), 1 << (bits - 1), _padded(gemm, size)
    a = rng.integers(-half, half, (gemm.batch, gemm.m, plain.k), np.int32)
    w = rng.integers(-half, half, (gemm.batch, plain.k, gemm.n), np.int32)
    shapes = (gemm.batch, gemm.m, plain.k // size), (gemm.batch, plain.k // size, gemm.n)
    scales = [np.ones(shape, np.int32) for shape in shapes]
    exponents = [rng.integers(-4, 4, shape, np.int32) for shape in shapes]
    blocks = BlockScaling(size, *scales, 0, 8, 8, *exponents)
    bias = np.zeros((gemm.batch, gemm.n), np.float32) if accumulate == "float32" else _no_bias(gemm)
    summation = Summation(accumulate, lsb_exponent=-16 if accumulate == "fixed" else 0, unit_exponent=-12)
    return GemmOperands(a, w, bias, np.ones(plain.k, np.bool_), bits, bits, blocks, summation=summation)


def floats(
    gemm: Gemm, element: Literal["e4m3", "nvfp4", "mx9"], accumulate: Literal["float32", "fixed"] = "float32"
) -> GemmOperands:
    """Return blocks of floats as lanes, uniform over their codes: MXFP8 E4M3 (32 elements), NVFP4 (16), MX9 (16)."""
    rng, size = np.random.default_rng(0), 32 if element == "e4m3" else 16
    plain = _padded(gemm, size)

    def lanes(shape: tuple[int, ...]) -> np.ndarray:
        if element == "e4m3":  # 1 + 4 + 3 bits; subnormals have the unit 2**-9
            exponents, fractions = rng.integers(0, 16, shape), rng.integers(0, 8, shape)
            values = np.where(exponents == 0, fractions, (8 + fractions) << np.maximum(exponents - 1, 0))
        elif element == "nvfp4":  # E2M1 in units of a half
            values = np.array([0, 1, 2, 3, 4, 6, 8, 12])[rng.integers(0, 8, shape)]
        else:  # 7 bits, and the shared shift of a pair
            values = rng.integers(0, 128, shape) << rng.integers(0, 2, shape)
        return np.asarray(values * rng.choice([-1, 1], shape), np.int32)

    a, w = lanes((gemm.batch, gemm.m, plain.k)), lanes((gemm.batch, plain.k, gemm.n))
    shapes = (gemm.batch, gemm.m, plain.k // size), (gemm.batch, plain.k // size, gemm.n)
    significands = 8 if element == "nvfp4" else 1
    scales = [rng.integers(significands, 2 * significands, shape, np.int32) for shape in shapes]
    exponents = [rng.integers(-4, 4, shape, np.int32) for shape in shapes]
    blocks = BlockScaling(size, *scales, 0, 8, 8, *exponents, significand_bits=4 if element == "nvfp4" else 0)
    bias = np.zeros((gemm.batch, gemm.n), np.float32) if accumulate == "float32" else _no_bias(gemm)
    units = {"e4m3": -18, "nvfp4": -2, "mx9": -12}
    summation = Summation(accumulate, lsb_exponent=-16 if accumulate == "fixed" else 0, unit_exponent=units[element])
    return GemmOperands(a, w, bias, np.ones(plain.k, np.bool_), 8, 8, blocks, summation=summation)


def gemms(layers: Iterable[Conv | Gemm]) -> list[Gemm]:
    """Return the products of a network."""
    return [layer.gemm if isinstance(layer, Conv) else layer for layer in layers]


def _no_bias(gemm: Gemm) -> np.ndarray:
    return np.zeros((gemm.batch, gemm.n), np.int64)


def _padded(gemm: Gemm, size: int) -> Gemm:
    return Gemm(gemm.name, gemm.batch, gemm.m, -(-gemm.k // size) * size, gemm.n)
