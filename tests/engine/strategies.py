"""Random layers as the array sees them, and random arrays to run them on."""

import numpy as np
from hypothesis import strategies as st

from accelsim.config.model import (
    Array,
    Buffer,
    Buffers,
    Codebook,
    FloatUnit,
    HardwareConfig,
    Multiplier,
    Popcount,
    Port,
    Ppu,
    Register,
    ScaleUnit,
)
from accelsim.mapping.contract import BlockScaling, GemmOperands, Summation

REGISTER_BITS = (8, 9, 12, 15, 16, 20, 24, 31, 32, 33, 48, 63, 64)
FLOAT32 = (32, "saturate")
WIDTHS = st.integers(2, 16)


def machine(
    dataflow="os", rows=3, cols=3, lanes=1, psum=(32, "wrap"), acc=(32, "wrap"),
    double_buffered=False, drain_overlap=False, skip_unused=False, clock_mhz=500.0, ports=(16, 16), **array,
):  # fmt: skip
    """A configuration with everything that the array can do; ports : bits of weights, of activations."""
    multiplies = array.get("multiplier", Multiplier()).kind == "parallel" and "float_unit" not in array
    scale_unit = ScaleUnit(weight_scale_bits=8, activation_scale_bits=8) if multiplies else None
    return HardwareConfig(
        name="test",
        clock_mhz=clock_mhz,
        array=Array(
            rows=rows,
            cols=cols,
            dataflow=dataflow,
            lanes=lanes,
            weight=Port(bits=ports[0]),
            activation=Port(bits=ports[1]),
            psum=Register(bits=psum[0], overflow=psum[1]),
            double_buffered=double_buffered,
            drain_overlap=drain_overlap,
            skip_unused=skip_unused,
            scale_unit=scale_unit,
            **array,
        ),
        accumulator=Register(bits=acc[0], overflow=acc[1]),
        ppu=Ppu(lanes=2, latency_cycles=3),
        buffers=Buffers(accumulator=Buffer(size_bytes=4096)),
    )


def plain(a, w, bias=None, bits=8, **fields):
    """GemmOperands of one GEMM from lists: a [M, K], w [K, N]."""
    a, w = np.array([a], np.int32), np.array([w], np.int32)
    bias = np.zeros((1, w.shape[2]), np.int64) if bias is None else np.array([bias], np.int64)
    return GemmOperands(a, w, bias, np.ones(a.shape[2], np.bool_), bits, bits, **fields)


@st.composite
def machines(draw, block=0, registers=None, lanes=(1, 2, 3, 4, 8), whole_blocks=False, **array):
    """Small arrays of every kind; blocks of `block` elements fit them (whole_blocks: within a lane step).

    registers : a strategy for (bits, policy) of psums and accumulators
    """
    fitting = [n for n in lanes if not block or n % block == 0 or (block % n == 0 and not whole_blocks)]
    lanes = draw(st.sampled_from(fitting or [block]))
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    spans = max(1, block // lanes)
    rows = draw(st.integers(1, 5)) if dataflow == "os" else spans * draw(st.integers(1, max(1, 5 // spans)))
    if registers is None:
        registers = st.tuples(st.sampled_from(REGISTER_BITS), st.sampled_from(["wrap", "saturate"]))
    return machine(
        dataflow=dataflow,
        rows=rows,
        cols=draw(st.integers(1, 4)),
        lanes=lanes,
        psum=draw(registers),
        acc=draw(registers),
        double_buffered=dataflow != "os" and draw(st.booleans()),
        drain_overlap=dataflow == "os" and draw(st.booleans()),
        skip_unused=draw(st.booleans()),
        **array,
    )


def draw_sizes(draw, block=0, longest=13):
    """Draw (batch, m, k, n, k_valid, random generator); ragged, with gaps where there are blocks."""
    batch, m, n = draw(st.integers(1, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    k = draw(st.integers(1, longest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k_valid = np.ones(k, np.bool_)
    if block:
        k = -(-k // block) * block
        k_valid = rng.random(k) < draw(st.sampled_from([0.3, 0.8, 1.0]))
    return batch, m, k, n, k_valid, rng


def draw_codes(draw, rng, shape, bits):
    """Draw int32 lanes of `bits` bits: signed or unsigned, often extreme; of one bit +1 and -1."""
    if bits == 1:
        return rng.choice([-1, 1], shape).astype(np.int32)
    signed = draw(st.booleans())
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = rng.integers(low, high, shape, endpoint=True)
    extremes = rng.choice([low, high], shape) if draw(st.booleans()) else np.full(shape, high)
    return np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0])), extremes, values).astype(np.int32)


def draw_bias(draw, rng, shape):
    """Draw int64 biases, which may exceed any register."""
    bias_bits = draw(st.sampled_from([4, 8, 16, 33, 64]))
    bias = rng.integers(-(1 << (bias_bits - 1)), (1 << (bias_bits - 1)) - 1, shape, endpoint=True)
    if draw(st.booleans()):
        bias[...] = rng.choice([-(1 << (bias_bits - 1)), (1 << (bias_bits - 1)) - 1], bias.shape)
    return bias


@st.composite
def gemm_operands(draw, block=0, a_bits=WIDTHS, w_bits=WIDTHS, weights=draw_codes, **fields):
    """Ragged operands; runs of extremes make registers overflow. weights : like draw_codes, for w."""
    batch, m, k, n, k_valid, rng = draw_sizes(draw, block)
    a_bits, w_bits = draw(a_bits), draw(w_bits)
    a = draw_codes(draw, rng, (batch, m, k), a_bits) * k_valid
    w = weights(draw, rng, (batch, k, n), w_bits) * k_valid[:, None]
    bias = draw_bias(draw, rng, (batch, n))
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
    return GemmOperands(a.astype(np.int32), w.astype(np.int32), bias, k_valid, a_bits, w_bits, blocks, **fields)


@st.composite
def layers(draw):
    """(operands, machine) of integers: any dataflow, lanes, block size, widths, policies and options."""
    block = draw(st.sampled_from([0, 0, 1, 2, 4, 8, 3]))
    return draw(gemm_operands(block)), draw(machines(block))


# -- other ways to multiply -------------------------------------------------------------------------------------------


@st.composite
def serial_layers(draw):
    """Bit-serial multipliers; operands of one bit are binary."""
    serial = draw(st.sampled_from(["both", "activation", "weight"]))
    widths = [st.integers(1, 4 if serial == "both" else 9)] * 2
    product = draw(st.sampled_from(["multiply", "multiply", "lookup"]))
    operands = draw(gemm_operands(0, *widths, product=product, w_code_bits=4 * (product == "lookup")))
    return operands, draw(machines(lanes=(1, 2, 3), multiplier=Multiplier(kind="bit_serial", serial=serial)))


@st.composite
def fusion_layers(draw):
    """Fused multipliers; wide operands on narrow ports take several cycles a step."""
    ports = draw(st.sampled_from([(2, 2), (4, 2), (2, 8), (8, 8), (8, 4), (16, 8), (16, 16)]))
    widths = [st.integers(1, min(16, 4 * port)) for port in ports]
    operands = draw(gemm_operands(0, widths[1], widths[0]))
    return operands, draw(machines(lanes=(1, 2), ports=ports, multiplier=Multiplier(kind="fusion")))


def powers_of_two(draw, rng, shape, bits):
    """Draw zeros and powers of two with a sign."""
    exponents = rng.integers(0, bits - 1, shape)
    return (rng.choice([-1, 0, 1], shape, p=[0.4, 0.2, 0.4]) << exponents).astype(np.int32)


@st.composite
def shift_layers(draw):
    """Power-of-two weights on shifters."""
    operands = draw(gemm_operands(0, w_bits=st.integers(2, 12), weights=powers_of_two, product="shift"))
    return operands, draw(machines(multiplier=Multiplier(kind="shift")))


def codebook_weights(draw, rng, shape, bits):
    """Draw weights from a table of up to eight values."""
    table = draw_codes(draw, rng, (draw(st.integers(1, 8)),), bits)
    return rng.choice(table, shape)


@st.composite
def codebook_layers(draw):
    """Weights out of a table, looked up, or activations added up an index; on any multiplier that can be."""
    mode = draw(st.sampled_from(["decode", "accumulate"]))
    product = {"decode": "lookup", "accumulate": "accumulate"}[mode]
    operands = draw(gemm_operands(0, weights=codebook_weights, product=product, w_code_bits=3))
    return operands, draw(machines(codebook=Codebook(mode=mode, index_bits=3)))


@st.composite
def xnor_layers(draw):
    """Binary by binary: words of bits, with gated ones."""
    batch, m, k, n, _, rng = draw_sizes(draw, longest=100)
    k_valid = rng.random(k) < draw(st.sampled_from([0.3, 0.9, 1.0]))
    a, w = rng.choice([-1, 1], (batch, m, k)), rng.choice([-1, 1], (batch, k, n))
    bias = draw_bias(draw, rng, (batch, n))
    a, w = (a * k_valid).astype(np.int32), (w * k_valid[:, None]).astype(np.int32)
    operands = GemmOperands(a, w, bias, k_valid, 1, 1, product="xnor")
    return operands, draw(machines(lanes=(1, 2), popcount=Popcount(word_bits=draw(st.sampled_from([32, 64])))))


# -- numbers with exponents -------------------------------------------------------------------------------------------


@st.composite
def exponent_operands(draw, block, kind, align):
    """Operands whose blocks, lanes or unit have exponents: a few near one another, or over all of float32 and beyond.

    align : lanes have exponents of their own, and are aligned
    """
    batch, m, k, n, k_valid, rng = draw_sizes(draw, block)
    bits = draw(st.sampled_from([1, 2, 3, 5, 8, 11, 16]))
    a = draw_codes(draw, rng, (batch, m, k), bits) * k_valid
    w = draw_codes(draw, rng, (batch, k, n), bits) * k_valid[:, None]
    centre = draw(st.sampled_from([0, 0, 0, -20, 50, -78, -70] if kind == "float32" else [0, 0, 3, -15]))
    spread = draw(st.sampled_from([0, 1, 4, 12, 30]))

    def exponents(shape):
        return rng.integers(centre - spread, centre + spread, shape, endpoint=True).astype(np.int32)

    blocks = None
    if block:
        significand_bits = draw(st.sampled_from([0, 0, 4]))
        sizes = ((batch, m, k // block), (batch, k // block, n))
        scales = [rng.integers(0, 1 << significand_bits, size) for size in sizes] if significand_bits else None
        scales = [np.asarray(scale, np.int32) for scale in scales or [np.ones(size) for size in sizes]]
        blocks = BlockScaling(
            block, *scales, 0, 8, 8, *(exponents(size) for size in sizes), significand_bits=significand_bits
        )
    summation = Summation(
        kind,
        lsb_exponent=2 * centre + draw(st.integers(-40, 8)) if kind == "fixed" else 0,
        rounding=draw(st.sampled_from(["truncate", "toward_zero", "half_even"])) if kind == "fixed" else "truncate",
        unit_exponent=0 if align else draw(st.sampled_from([0, -4, 9])) + (0 if block else 2 * centre),
        align_bits=draw(st.sampled_from([0, 1, 3, 10, 24])) if align else None,
    )
    lanes = {}
    if align:
        lanes = {"a_exponents": exponents(a.shape), "w_exponents": exponents(w.shape)}
        lanes["exponent_spans"] = (2 * spread, 2 * spread)
    bias = draw_bias(draw, rng, (batch, n))
    if kind == "float32":
        bias = np.ldexp(rng.standard_normal((batch, n)), rng.integers(centre - 9, centre + 9, (batch, n)))
        bias = np.where(rng.random((batch, n)) < 0.3, rng.choice([0.0, -0.0, 3.4028234e38, -3.4e38, 1e-45]), bias)
        bias = bias.astype(np.float32)
    return GemmOperands(
        a.astype(np.int32), w.astype(np.int32), bias, k_valid, bits, bits, blocks, summation=summation, **lanes
    )


@st.composite
def exponent_layers(draw, kind):
    """(operands, machine) with exponents in the summation `kind`."""
    block, align = draw(st.sampled_from([0, 1, 2, 4, 8])), draw(st.booleans())
    operands = draw(exponent_operands(block, kind, align))
    float_unit = FloatUnit(accumulate=kind, align_bits=operands.summation.align_bits)
    registers = st.just(FLOAT32)
    if kind == "fixed":
        registers = st.tuples(st.sampled_from([8, 16, 24, 32, 48]), st.sampled_from(["wrap", "saturate"]))
    return operands, draw(machines(block, registers, whole_blocks=align, float_unit=float_unit))


KINDS = {
    "integers": layers(),
    "bit_serial": serial_layers(),
    "fusion": fusion_layers(),
    "shift": shift_layers(),
    "codebook": codebook_layers(),
    "xnor": xnor_layers(),
    "fixed": exponent_layers("fixed"),
    "float32": exponent_layers("float32"),
}
"""Every way to multiply and to add."""
