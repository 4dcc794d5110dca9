"""Whose integer algorithms a quantized network's vector layers follow (docs/operators.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelsim.errors import NetworkError
from accelsim.quantize.presets import use_one_of


@dataclass(frozen=True)
class VectorRules:
    """A choice of algorithms.

    softmax : "ibert": I-BERT's polynomial, on raw 32-bit scores where a product of integers makes them; "tflite": fixed
        point, on 8-bit scores
    gelu : "ibert": I-BERT's polynomial for erf, on 16-bit codes; "lookup": a table of 8-bit codes, as all other
        functions have
    residual : additions, "hawq" (dyadic, no zero points) or "tflite"
    wide : format of activations that only vector layers take, where the rule of none of them says otherwise: the inputs
        of sums and layer norms
    rounding : requantization rule of the array's integer layers

    Layer norms are always I-BERT's: TFLite has none.
    """

    softmax: Literal["ibert", "tflite"] = "ibert"
    gelu: Literal["ibert", "lookup"] = "ibert"
    residual: Literal["hawq", "tflite"] = "hawq"
    wide: str = "int16"
    rounding: str = "dyadic_half_even"


IBERT = VectorRules()
VECTOR_RULES: dict[str, VectorRules] = {
    "ibert": IBERT,
    "tflite": VectorRules("tflite", "lookup", "tflite", "int8", "double_half_up_then_away"),
}
"""By name."""


def get_rules(rules: str | VectorRules) -> VectorRules:
    """Return rules by name, or the given ones; NetworkError, which lists the names, for an unknown one."""
    if isinstance(rules, VectorRules):
        return rules
    if rules not in VECTOR_RULES:
        raise NetworkError(f"unknown rules {rules!r}{use_one_of(rules, VECTOR_RULES)}")
    return VECTOR_RULES[rules]
