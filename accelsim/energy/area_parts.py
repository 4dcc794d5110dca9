"""What a machine is made of: its circuits, how many of each, and under which component they are reported.

Structural: every unit is put together from the circuits that the tallies price (accelsim.mapping.tally), as wide as the
configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelsim.config.model import Array, FloatUnit, HardwareConfig, ScaleUnit
from accelsim.rounding import RULES

EXPONENT_BITS = 8
"""Of a block scale (E8M0; NVFP4's E4M3 is as wide), and of a lane with an exponent of its own (bf16 has the widest)."""
SHIFTED_BITS = 49
"""What the shifter in front of a fixed-point psum delivers (accelsim.mapping.contract.Summation)."""


@dataclass(frozen=True)
class Circuit:
    """`count` circuits of one kind: a law of the area table, and its widths in bits."""

    component: str
    what: str
    count: int
    law: str
    params: tuple[int, ...] = ()


def circuits(config: HardwareConfig, exponent_spans: tuple[int, int]) -> Iterator[Circuit]:
    """Yield every circuit of the machine; control is not among them.

    exponent_spans : see accelsim.energy.area.area_report
    """
    array = config.array
    pes = array.rows * array.cols
    exponents = _lane_exponents(array.float_unit, exponent_spans)
    yield from _multipliers(array, exponents, pes)
    yield _adder("psum_adder", "psum adder", pes, array.psum.bits, array.float_unit)
    yield from _registers(array, exponents, pes)
    if array.scale_unit is not None:
        yield from _vsq_units(array.scale_unit, _dot_bits(array, exponents), pes)
    if array.float_unit is not None:
        yield from _float_units(array, array.float_unit, exponents, pes)
    if array.popcount is not None:
        yield Circuit("popcount", "XNOR word and popcount tree", pes, "xnor_popcount", (array.popcount.word_bits,))
    yield from _decoders(array, pes)
    yield _adder("accumulator", "accumulator adder", array.cols, config.accumulator.bits, array.float_unit)
    yield from _ppu(config)
    yield from _vector(config)
    for name in type(config.buffers).model_fields:
        buffer = getattr(config.buffers, name)
        yield Circuit("buffer", f"{name} buffer", 1, "sram", (8 * buffer.size_bytes, buffer.ports))


@dataclass(frozen=True)
class _Exponents:
    """Of single lanes: widths of activations' and weights', and by how many bits shifting widens a product."""

    activation: int = 0
    weight: int = 0
    grid: int = 0


def _lane_exponents(unit: FloatUnit | None, spans: tuple[int, int]) -> _Exponents:
    if unit is None:
        return _Exponents()
    if unit.align_bits is not None:
        return _Exponents(EXPONENT_BITS, EXPONENT_BITS, unit.align_bits)
    return _Exponents(spans[0].bit_length(), spans[1].bit_length(), sum(spans))


NO_EXPONENTS = _Exponents()


def _dot_bits(array: Array, exponents: _Exponents = NO_EXPONENTS) -> int:
    """Return the width of the exact sum of a lane step's products (or what its alignment leaves of it)."""
    return array.weight.bits + array.activation.bits + exponents.grid + (array.lanes - 1).bit_length()


def _adder(component: str, what: str, count: int, bits: int, unit: FloatUnit | None) -> Circuit:
    if unit is not None and unit.accumulate == "float32":
        return Circuit(component, f"float32 {what}", count, "fp32_adder")
    return Circuit(component, what, count, "adder", (bits,))


def _multipliers(array: Array, exponents: _Exponents, pes: int) -> Iterator[Circuit]:
    """Multipliers of the lanes, and what adds their products up."""
    ports, lanes, kind = (array.weight.bits, array.activation.bits), pes * array.lanes, array.multiplier.kind
    if kind == "bit_serial":
        row = {"both": 1, "activation": array.weight.bits, "weight": array.activation.bits}[array.multiplier.serial]
        yield Circuit(
            "multiplier", "one-bit products, each with its share of the adder tree", lanes, "serial_row", (row,)
        )
        yield Circuit("multiplier", "shifting accumulator: adder", pes, "adder", (_dot_bits(array),))
        yield Circuit("multiplier", "shifting accumulator: register", pes, "register", (_dot_bits(array),))
        return
    if kind == "shift":
        yield Circuit("multiplier", "shifter", lanes, "shifter", (sum(ports) - 1,))
        yield Circuit("multiplier", "negation", lanes, "adder", (array.activation.bits,))
    else:
        yield Circuit("multiplier", "multiplier", lanes, "multiplier", ports)
        if kind == "fusion":
            yield Circuit("multiplier", "shifters and adders between bricks", lanes, "fusion", ports)
    if array.lanes > 1:
        tree = ("adder", (_dot_bits(array),)) if kind == "shift" else ("tree_lane", ports)
        yield Circuit("adder_tree", "a lane's part of the adder tree", lanes - pes, *tree)
        if exponents.grid:
            yield Circuit("adder_tree", "the same, for shifted products", lanes - pes, "adder", (exponents.grid,))


def _registers(array: Array, exponents: _Exponents, pes: int) -> Iterator[Circuit]:
    word = array.popcount.word_bits if array.popcount is not None else 0
    scales = {"weight": 0, "activation": 0}
    if array.scale_unit is not None:
        scales = {"weight": array.scale_unit.weight_scale_bits, "activation": array.scale_unit.activation_scale_bits}
    if array.float_unit is not None:
        scales = {operand: max(bits, EXPONENT_BITS) for operand, bits in scales.items()}
    stationary = {"ws": "weight", "is": "activation"}.get(array.dataflow)
    lane = {
        "weight": array.weight.bits + exponents.weight,
        "activation": array.activation.bits + exponents.activation,
    }
    for operand, lane_bits in lane.items():
        # A word of binary operands enters through the same registers.
        bits = max(array.lanes * lane_bits, word) + scales[operand]
        sets = 2 if operand == stationary and array.double_buffered else 1
        yield Circuit("register", f"{operand} register", sets * pes, "register", (bits,))
    yield Circuit("register", "psum register", (2 if array.drain_overlap else 1) * pes, "register", (array.psum.bits,))


def _vsq_units(unit: ScaleUnit, dot: int, pes: int) -> Iterator[Circuit]:
    full = unit.weight_scale_bits + unit.activation_scale_bits
    product = full if unit.product_bits is None else unit.product_bits
    yield Circuit(
        "scale_unit", "product of two scales", pes, "multiplier", (unit.weight_scale_bits, unit.activation_scale_bits)
    )
    if product < full:
        yield Circuit("scale_unit", "rounding of that product", pes, "adder", (product,))
    yield Circuit("scale_unit", "product of block sum and scale", pes, "multiplier", (dot, product))


def _float_units(array: Array, unit: FloatUnit, exponents: _Exponents, pes: int) -> Iterator[Circuit]:
    lanes, widest = pes * array.lanes, max(exponents.activation, exponents.weight)
    if widest:
        # The exponents' sum; with alignment, its comparison with the largest and its distance from it besides.
        adders = 1 if unit.align_bits is None else 3
        shifted = array.weight.bits + array.activation.bits + exponents.grid
        yield Circuit("scale_unit", "exponent adders of the lanes", adders * lanes, "adder", (widest + 1,))
        yield Circuit("scale_unit", "shifter of a lane's product", lanes, "shifter", (shifted,))
    yield Circuit("scale_unit", "exponent adder", pes, "adder", (EXPONENT_BITS + 1,))
    if unit.accumulate == "fixed":
        yield Circuit("scale_unit", "shifter to fixed point", pes, "shifter", (SHIFTED_BITS,))
    else:
        yield Circuit("scale_unit", "normalizing shifter", pes, "shifter", (_dot_bits(array, exponents),))


def _decoders(array: Array, pes: int) -> Iterator[Circuit]:
    if array.codebook is None:
        return
    entries, index, weight = 1 << array.codebook.index_bits, array.codebook.index_bits, array.weight.bits
    yield Circuit("decoder", "table of values", entries, "register", (weight,))
    if array.codebook.mode == "decode":
        edge = array.rows if array.dataflow == "is" else array.cols  # where weights enter
        yield Circuit("decoder", "decoder", edge * array.lanes, "lookup", (index, weight))
        return
    # Within a step: each index's activations picked and added up, each sum multiplied, the products added up.
    total = array.activation.bits + (array.lanes - 1).bit_length()
    yield Circuit("decoder", "masks of an index", pes * entries * array.lanes, "mask", (array.activation.bits,))
    if array.lanes > 1:
        yield Circuit("decoder", "adders of an index", pes * entries * (array.lanes - 1), "adder", (total,))
    yield Circuit("decoder", "multiplier of an index", pes * entries, "multiplier", (weight, total))
    yield Circuit("decoder", "adders of the indices' products", pes * (entries - 1), "adder", (_dot_bits(array),))


def _ppu(config: HardwareConfig) -> Iterator[Circuit]:
    ppu, array, acc = config.ppu, config.array, config.accumulator.bits
    rule = None if ppu.rounding == "trace" else RULES[ppu.rounding].multiplier
    floats = array.float_unit is not None or rule == "float32"
    if rule in (None, "integer"):
        yield Circuit("ppu", "requantizer", ppu.lanes, "requantizer", (acc, ppu.multiplier_bits))
    if floats:
        yield Circuit("ppu", "float32 multiplier", ppu.lanes, "fp32_multiplier")
        # To float in front of it, to the output's elements behind it.
        yield Circuit("ppu", "shifters around it", 2 * ppu.lanes, "shifter", (32,))
        yield Circuit("ppu", "rounding adders around it", 2 * ppu.lanes, "adder", (32,))
    if rule == "float64":
        yield Circuit("ppu", "float64 multiplier (significands)", ppu.lanes, "multiplier", (53, 53))
        yield Circuit("ppu", "shifters around it", 2 * ppu.lanes, "shifter", (53,))
    if array.scale_unit is not None:
        element, scale, guard = array.activation.bits, array.scale_unit.activation_scale_bits, ppu.vsq_guard_bits
        wide = element + scale + guard + 1
        yield Circuit("ppu", "largest of a vector: comparators", ppu.lanes, "adder", (wide,))
        yield Circuit("ppu", "divider of an element by its scale", ppu.lanes, "divider", (wide, scale + guard))
        yield Circuit("ppu", "divider for a vector's scale", 1, "divider", (wide, element + guard))
    if array.float_unit is not None:
        yield Circuit("ppu", "largest of a block: comparators", ppu.lanes, "adder", (31,))
    if array.popcount is not None:
        yield Circuit("ppu", "threshold comparator", ppu.lanes, "adder", (acc,))


VECTOR_BITS, TABLE_ENTRIES, TABLE_BITS = 32, 256, 8
"""A lane of the vector unit: 32-bit integers, and a table of all codes of 8 bits (accelsim.operators)."""


def _vector(config: HardwareConfig) -> Iterator[Circuit]:
    """Lanes that rescale, add, compare and look up: the least that the operators of one pass need."""
    lanes = config.vector.lanes
    yield Circuit("vector", "rescaling multiplier", lanes, "multiplier", (VECTOR_BITS, VECTOR_BITS))
    yield Circuit("vector", "rounding shifter", lanes, "shifter", (2 * VECTOR_BITS,))
    yield Circuit("vector", "adder and comparator", 2 * lanes, "adder", (VECTOR_BITS,))
    yield Circuit("vector", "table of a lane", lanes, "sram", (TABLE_ENTRIES * TABLE_BITS, 1))
