"""The named requantization rules (docs/numerics.md, Requantization): what each is called and which numbers it takes.

The arithmetic is in accelsim.ppu; the names live here because configurations, traces and the PPU all speak them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RoundingRule:
    """One requantization rule.

    name : by behaviour
    multiplier : "integer": y = acc * multiplier / 2**shift; "float32", "float64": y = acc * multiplier (shift is 0)
    reference : its row in the table of conventions
    used_by : whose silicon or kernels behave so
    """

    name: str
    multiplier: Literal["integer", "float32", "float64"]
    reference: str
    used_by: str


_TABLE = (
    RoundingRule(
        "double_half_up_then_away", "integer", "R1", "TFLite reference conv, TFLite Micro, CMSIS-NN, TOSA DOUBLE_ROUND"
    ),
    RoundingRule("double_half_up", "integer", "R2", "ruy on AVX-512 (TFLite optimised kernels)"),
    RoundingRule("half_up", "integer", "R3", "TFLite and CMSIS-NN single rounding, TOSA SINGLE_ROUND, Ethos-U NATURAL"),
    RoundingRule("half_up_int16_multiplier", "integer", "R4", "TFLite int16x8, CMSIS-NN s64"),
    RoundingRule("float32_half_even", "float32", "R5", "ONNX Runtime, FBGEMM, QNNPACK, XNNPACK, Gemmini"),
    RoundingRule("float64_half_away", "float64", "R6", "TFLite reference fully connected"),
    RoundingRule("dyadic_half_even", "integer", "R7", "HAWQ-V3, I-BERT"),
    RoundingRule("half_away_17bit", "integer", "R8", "NVDLA output converter"),
    RoundingRule("truncate", "integer", "R9", "Ethos-U TRUNCATE, HAWQ's TVM scripts"),
)
RULES: dict[str, RoundingRule] = {rule.name: rule for rule in _TABLE}
