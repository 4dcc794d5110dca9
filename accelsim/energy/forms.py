"""The formulas that an energy table can name: small functions from an operation's numbers to a price.

An entry says ``form: linear`` and gives the coefficients by name; the form says how many numbers of the operation it
takes. All bit-widths are at least 1, capacities are in bytes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass


def constant(*, price: float) -> float:
    """Return `price`, whatever the widths."""
    return price


def linear(bits: int, *, per_bit: float, offset: float = 0.0) -> float:
    """Return ``per_bit * bits + offset``: adders, comparators, registers."""
    return per_bit * bits + offset


def product_root(a_bits: int, b_bits: int, *, product: float, root: float, single_bit: float) -> float:
    """Return ``product * a*b + root * sqrt(a*b)``: an array multiplier.

    With a one-bit operand there is no array, only a row of gates: ``single_bit * max(a, b)``.
    """
    if min(a_bits, b_bits) == 1:
        return single_bit * max(a_bits, b_bits)
    return product * (a_bits * b_bits) + root * math.sqrt(a_bits * b_bits)


def brick_product(a_bits: int, b_bits: int, *, product: float, root: float, shift_add: float) -> float:
    """Return a product in a multiplier of 2-bit bricks that fuse: ``product_root`` + ``shift_add * k * log4(k)``.

    The widths count as the next even ones, since an operand occupies whole bricks: k = ceil(a/2) * ceil(b/2) of them.
    Each time four units become one, all of their bricks' products pass a shifter and an adder more: log4(k) levels.
    """
    a_bits, b_bits = a_bits + a_bits % 2, b_bits + b_bits % 2
    bricks = a_bits * b_bits // 4
    one_level = shift_add * bricks
    return product_root(a_bits, b_bits, product=product, root=root, single_bit=0.0) + one_level * math.log(bricks, 4)


def serial_product(a_bits: int, b_bits: int, *, bit: float, sum_bit: float) -> float:
    """Return ``a*b * (bit + sum_bit * (a + b + 4) / 16)``: a cycle for each pair of bits.

    Every cycle is a one-bit product in an adder tree, and a lane's share of the register that shifts and adds, which 16
    lanes have in common: it is as wide as a sum of 16 products.
    """
    return a_bits * b_bits * (bit + sum_bit * (a_bits + b_bits + 4) / 16)


def row_product(parallel_bits: int, serial_bits: int, *, bit: float, sum_bit: float) -> float:
    """Return ``s * (bit * p + sum_bit * (p + s + 4) / 16)``: a cycle for each bit of the serial operand.

    As ``serial_product``, with a row of `parallel_bits` gates and full adders at a time.
    """
    width = parallel_bits + serial_bits + 4
    return serial_bits * (bit * parallel_bits + sum_bit * width / 16)


def mux_levels(bits: int, *, per_bit_level: float) -> float:
    """Return ``per_bit_level * b * ceil(log2 b)``: a barrel shifter, one row of multiplexers a bit of the distance."""
    return per_bit_level * bits * max(1, (bits - 1).bit_length())


def small_memory(index_bits: int, value_bits: int, *, per_bit: float) -> float:
    """Return ``per_bit * value_bits * 2**(index_bits / 2)``: the edge of an array of 2**index_bits entries."""
    return per_bit * value_bits * math.sqrt(1 << index_bits)


def array_divider(a_bits: int, b_bits: int, *, per_bit: float) -> float:
    """Return ``per_bit * a * (b + 1)``: one subtraction of b + 1 bits for each of the quotient's a bits."""
    return per_bit * a_bits * (b_bits + 1)


REFERENCE_WORD_BITS = 64  # prices of an SRAM's bit hold for words of this width


def sram_organization(word_bits: int, ports: int, *, row_bits: float | None, per_port: float) -> float:
    """Return by what an SRAM's price of a bit is multiplied for its words and ports; 1 for 64 bits and one port.

    An access costs as much as `row_bits` bits (the decoder, the word line, and the bit lines that nobody asked for) and
    those of its word: ``64 / w * (row_bits + w) / (row_bits + 64)``; None: every bit costs the same. Each further port
    brings its own lines to the cells, and ``per_port`` of the price.
    """
    share = 1.0
    if row_bits is not None:
        share = REFERENCE_WORD_BITS / word_bits * (row_bits + word_bits) / (row_bits + REFERENCE_WORD_BITS)
    return share * (1 + per_port * (ports - 1))


def sqrt_capacity(
    capacity_bytes: int,
    word_bits: int,
    ports: int,
    *,
    price: float,
    at_bytes: float,
    floor: float,
    row_bits: float | None = None,
    per_port: float = 0.0,
) -> float:
    """Return ``price * sqrt(capacity / at_bytes)``, at least `floor`: word and bit lines grow with the array's edge;
    times what words and ports make of it (`sram_organization`).
    """
    organization = sram_organization(word_bits, ports, row_bits=row_bits, per_port=per_port)
    return max(floor, price * math.sqrt(capacity_bytes / at_bytes)) * organization


def power_product(
    a_bits: int, b_bits: int, *, price: float, at_product: float, exponent: float, single_bit: float
) -> float:
    """Return ``price * (a*b / at_product) ** exponent``: an array multiplier between two published points.

    A one-bit operand costs ``single_bit * max(a, b)``, as in ``product_root``.
    """
    if min(a_bits, b_bits) == 1:
        return single_bit * max(a_bits, b_bits)
    return float(price * (a_bits * b_bits / at_product) ** exponent)


def three_capacities(
    capacity_bytes: int,
    word_bits: int,
    ports: int,
    *,
    price_1: float,
    at_bytes_1: float,
    price_2: float,
    at_bytes_2: float,
    price_3: float,
    at_bytes_3: float,
    row_bits: float | None = None,
    per_port: float = 0.0,
) -> float:
    """Return the price on the lines through three points in the logarithms of capacity and price, the outer ones
    continued; times what words and ports make of it (`sram_organization`).
    """
    low, high = ((price_1, at_bytes_1), (price_2, at_bytes_2)), ((price_2, at_bytes_2), (price_3, at_bytes_3))
    (one, at_one), (other, at_other) = low if capacity_bytes <= at_bytes_2 else high
    slope = math.log(other / one) / math.log(at_other / at_one)
    organization = sram_organization(word_bits, ports, row_bits=row_bits, per_port=per_port)
    return float(one * (capacity_bytes / at_one) ** slope) * organization


def power(clock_hz: int, *, power_uw: float) -> float:
    """Return the energy in pJ that `power_uw` microwatts take in a cycle: leakage, which waits for no clock."""
    return power_uw * 1e6 / clock_hz


def power_per_kilobyte(
    capacity_bytes: int, clock_hz: int, ports: int, *, power_uw: float, per_port: float = 0.0
) -> float:
    """Return the energy in pJ that `power_uw` microwatts for each 1024 bytes take in a cycle: leakage of an SRAM; the
    transistors of each further port leak ``per_port`` of it.
    """
    return power_uw * (capacity_bytes / 1024) * 1e6 / clock_hz * (1 + per_port * (ports - 1))


def power_per_area(area_um2: int, clock_hz: int, *, power_uw: float) -> float:
    """Return the energy in pJ that `power_uw` microwatts for each um2 take in a cycle: leakage of logic."""
    return power_uw * area_um2 * 1e6 / clock_hz


def inverse_bits(bits: int, *, limit: float, slope: float) -> float:
    """Return ``limit - slope / bits``: what approaches a limit as operands get wider."""
    return limit - slope / bits


@dataclass(frozen=True)
class Form:
    """A formula: how many of the operation's numbers it takes, and the names of its coefficients."""

    function: Callable[..., float]
    takes: int
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def coefficients(self) -> tuple[str, ...]:
        return self.required + self.optional


def _form(function: Callable[..., float]) -> Form:
    parameters = inspect.signature(function).parameters.values()
    named = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    return Form(
        function,
        takes=len(parameters) - len(named),
        required=tuple(parameter.name for parameter in named if parameter.default is parameter.empty),
        optional=tuple(parameter.name for parameter in named if parameter.default is not parameter.empty),
    )


FORMS: dict[str, Form] = {
    function.__name__: _form(function)
    for function in (
        constant,
        linear,
        product_root,
        brick_product,
        serial_product,
        row_product,
        mux_levels,
        small_memory,
        array_divider,
        sqrt_capacity,
        power_product,
        three_capacities,
        power,
        power_per_kilobyte,
        power_per_area,
        inverse_bits,
    )
}
