"""Random layers as the array sees them, and random arrays to run them on."""

import numpy as np
from hypothesis import strategies as st

from accelsim.config.model import Array, Buffer, Buffers, HardwareConfig, Port, Ppu, Register, ScaleUnit
from accelsim.mapping.contract import BlockScaling, GemmOperands

REGISTER_BITS = (8, 9, 12, 15, 16, 20, 24, 31, 32, 33, 48, 63, 64)


def machine(
    dataflow="os", rows=3, cols=3, lanes=1, psum=(32, "wrap"), acc=(32, "wrap"),
    double_buffered=False, drain_overlap=False, skip_unused=False, clock_mhz=500.0,
):  # fmt: skip
    """A configuration with everything that the array can do."""
    return HardwareConfig(
        name="test",
        clock_mhz=clock_mhz,
        array=Array(
            rows=rows,
            cols=cols,
            dataflow=dataflow,
            lanes=lanes,
            weight=Port(bits=16),
            activation=Port(bits=16),
            psum=Register(bits=psum[0], overflow=psum[1]),
            double_buffered=double_buffered,
            drain_overlap=drain_overlap,
            skip_unused=skip_unused,
            scale_unit=ScaleUnit(weight_scale_bits=8, activation_scale_bits=8),
        ),
        accumulator=Register(bits=acc[0], overflow=acc[1]),
        ppu=Ppu(lanes=2, latency_cycles=3),
        buffers=Buffers(accumulator=Buffer(size_bytes=4096)),
    )


def plain(a, w, bias=None, bits=8):
    """GemmOperands of one GEMM from lists: a [M, K], w [K, N]."""
    a, w = np.array([a], np.int32), np.array([w], np.int32)
    bias = np.zeros((1, w.shape[2]), np.int64) if bias is None else np.array([bias], np.int64)
    return GemmOperands(a, w, bias, np.ones(a.shape[2], np.bool_), bits, bits)


@st.composite
def machines(draw, block=0):
    """Small arrays of every kind; blocks of `block` elements fit them."""
    lanes = draw(st.sampled_from([n for n in (1, 2, 3, 4, 8) if not block or block % n == 0 or n % block == 0]))
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    spans = max(1, block // lanes)
    rows = draw(st.integers(1, 5)) if dataflow == "os" else spans * draw(st.integers(1, max(1, 5 // spans)))
    register = st.tuples(st.sampled_from(REGISTER_BITS), st.sampled_from(["wrap", "saturate"]))
    return machine(
        dataflow=dataflow,
        rows=rows,
        cols=draw(st.integers(1, 4)),
        lanes=lanes,
        psum=draw(register),
        acc=draw(register),
        double_buffered=dataflow != "os" and draw(st.booleans()),
        drain_overlap=dataflow == "os" and draw(st.booleans()),
        skip_unused=draw(st.booleans()),
    )


@st.composite
def gemm_operands(draw, block=0):
    """Ragged operands of 2 to 16 bits; runs of extremes make registers overflow; biases may exceed any register."""
    batch, m, n = draw(st.integers(1, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    k = draw(st.integers(1, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k_valid = np.ones(k, np.bool_)
    if block:
        k = -(-k // block) * block
        k_valid = rng.random(k) < draw(st.sampled_from([0.3, 0.8, 1.0]))

    def codes(shape, bits, signed):
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        values = rng.integers(low, high, shape, endpoint=True)
        extremes = rng.choice([low, high], shape) if draw(st.booleans()) else np.full(shape, high)
        return np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0])), extremes, values).astype(np.int32)

    a_bits, w_bits = draw(st.integers(2, 16)), draw(st.integers(2, 16))
    a = codes((batch, m, k), a_bits, draw(st.booleans())) * k_valid
    w = codes((batch, k, n), w_bits, draw(st.booleans())) * k_valid[:, None]
    bias_bits = draw(st.sampled_from([4, 8, 16, 33, 64]))
    bias = rng.integers(-(1 << (bias_bits - 1)), (1 << (bias_bits - 1)) - 1, (batch, n), endpoint=True)
    if draw(st.booleans()):
        bias[...] = rng.choice([-(1 << (bias_bits - 1)), (1 << (bias_bits - 1)) - 1], bias.shape)
    blocks = None
    if block:
        bits = draw(st.integers(1, 8))
        shift = draw(st.integers(0, 2 * bits - 1))
        blocks = BlockScaling(
            block,
            rng.integers(0, 1 << bits, (batch, m, k // block)).astype(np.int32),
            rng.integers(0, 1 << bits, (batch, k // block, n)).astype(np.int32),
            shift,
            bits,
            bits,
        )
    return GemmOperands(a.astype(np.int32), w.astype(np.int32), bias, k_valid, a_bits, w_bits, blocks)


@st.composite
def layers(draw):
    """(operands, machine): any dataflow, lanes, block size, widths, policies and options."""
    block = draw(st.sampled_from([0, 0, 1, 2, 4, 8, 3]))
    return draw(gemm_operands(block)), draw(machines(block))
