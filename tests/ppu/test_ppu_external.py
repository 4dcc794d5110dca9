"""Requantization against vectors that other programs made (tests/golden/requantize_external.yaml says how)."""

from pathlib import Path

import pytest
import yaml

from accelsim.ppu.multiplier import encode_multiplier
from accelsim.ppu.requantize import requantize
from accelsim.ppu.requantize_oracle import requantize_one

GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "golden" / "requantize_external.yaml").read_text())


def test_double_rounding_is_velas():
    acc, multiplier, shift, out = (list(column) for column in zip(*GOLDEN["double_half_up_then_away"], strict=True))
    assert requantize(acc, multiplier, shift).tolist() == out
    assert [requantize_one(*case[:3], "double_half_up_then_away") for case in GOLDEN["double_half_up_then_away"]] == out
    # The vectors can tell: a single rounding, and ties that go up, fail on many of them.
    for other in ("half_up", "double_half_up"):
        assert (requantize(acc, multiplier, shift, other) != out).sum() >= 5


@pytest.mark.parametrize("case", GOLDEN["encoding"], ids=lambda case: str(case[0]))
def test_encoding_is_velas(case):
    scale, multiplier, shift, reduced, reduced_shift = case
    assert tuple(map(int, encode_multiplier(scale, "double_half_up_then_away"))) == (multiplier, shift)
    assert tuple(map(int, encode_multiplier(scale, "half_up_int16_multiplier", 16))) == (reduced, reduced_shift)


def test_float32_is_onnx_runtimes():
    acc, scale, zero_point, out = (list(column) for column in zip(*GOLDEN["float32_half_even"], strict=True))
    got = requantize(acc, scale, 0, "float32_half_even", zero_point=zero_point, qmin=-128, qmax=127)
    assert got.tolist() == out
    away = requantize(acc, scale, 0, "float64_half_away", zero_point=zero_point, qmin=-128, qmax=127)
    assert (away != out).sum() >= 5
