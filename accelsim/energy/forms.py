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


def array_divider(a_bits: int, b_bits: int, *, per_bit: float) -> float:
    """Return ``per_bit * a * (b + 1)``: one subtraction of b + 1 bits for each of the quotient's a bits."""
    return per_bit * a_bits * (b_bits + 1)


def sqrt_capacity(capacity_bytes: int, *, price: float, at_bytes: float, floor: float) -> float:
    """Return ``price * sqrt(capacity / at_bytes)``, at least `floor`: word and bit lines grow with the array's edge."""
    return max(floor, price * math.sqrt(capacity_bytes / at_bytes))


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
    function.__name__: _form(function) for function in (constant, linear, product_root, array_divider, sqrt_capacity)
}
