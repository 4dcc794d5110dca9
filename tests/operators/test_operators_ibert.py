"""I-BERT's integers: constants and codes worked by hand, and how near they come to the real functions."""

import math

import numpy as np
import pytest
from operator_cases import operand, spec

from accelsim.errors import FormatError
from accelsim.operators import ibert
from accelsim.operators.registry import OPERATORS, attributes_of


def run(name, inputs, output, **attributes):
    checked = attributes_of(name, attributes)
    OPERATORS[name].check(inputs, output, checked)
    return OPERATORS[name].run(inputs, output, checked)


def test_exponential_constants_by_hand():
    """Scale 1/10: 0.6931 / 0.1 = 6.931, floor of the negative -7; 0.96963238 / 0.35815147 / 0.1 = 27.07;
    1 / 0.35815147 / 0.01 = 279.2. At difference 0 the polynomial is 279: 279 * 0.35815147 / 100 = 0.99924.
    """
    assert ibert.exp_constants(0.03)[0] == -24  # -23.1
    constants = ibert.exp_constants(0.1)
    assert constants[:3] == (-7, 27, 279)
    assert constants.unit * 2**30 == pytest.approx(0.0035815147, rel=1e-6)
    codes = ibert.exponential_codes(np.array([0, -7, -8]), 0.1, 1 / 1000)
    # -7 is one halving and the rest 0: half of 999.24; -8: rest -1, 279 - 1 * 26 = 253, 253 / 279 of that half
    assert codes.tolist() == [999, 500, 453]


def test_softmax_by_hand():
    """Exponentials 999 and 500 (above): 2**32 // 1499 = 2865221; 999 * 2865221 >> 24 = 170, 500 * ... >> 24 = 85."""
    codes = run(
        "softmax", [operand([[0, -7]], scale=0.1)], spec([1, 2], "uint8", 1 / 256), rule="ibert", exp_scale=1 / 1000
    )
    assert codes.tolist() == [[170, 85]]


def test_gelu_by_hand():
    """Scale 2**-8: s = 2**-8 / 1.4142 = 0.00276216; b = floor(-640.44) = -641; c = floor(-3.462604 / s**2) = -453842;
    the unit of erf is s**2 * -0.2888 * 2**14 = -0.0361: 1 is code floor(-27.70) = -28.
    x = 256 (1.0): (256 - 641)**2 - 453842 = -305617, / 2**14 = -18.65, floor -19; 256 * (-19 - 28) = -12032 units of
    2**-8 * -0.0361 / 2 = -7.0510e-5: 0.8484 (GELU(1) = 0.8413), 848 steps of 0.001.
    """
    constants = ibert.erf_constants(2.0**-8)
    assert (constants.b, constants.one) == (-641, -28)
    assert constants.c == pytest.approx(-453842, abs=3)
    codes = run("gelu", [operand([256, 0], "int16", 2.0**-8)], spec([2], "int16", 0.001), rule="ibert")
    assert codes.tolist() == [pytest.approx(848, abs=1), 0]


def test_gelu_is_near_on_wide_codes():
    x = operand(np.arange(-400_000, 400_000, 997), "int32", 1e-5)
    codes = run("gelu", [x], spec(x.shape, "int16", 0.001))
    real = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.codes * 1e-5])
    assert np.abs(codes * 0.001 - real).max() < 0.02


def test_layer_norm_by_hand():
    """Row 1, 3: mean 2, differences -1, 1, sum of squares 2, root 1 (rounded down); factor 2**31; halves: +-2**30.
    The unit is sqrt(2) / 2**30: +-1.41421, in steps of 0.01 with gamma 1 and beta 0.5: 141.42 + 50.
    """
    ones, halves = operand([1, 1], "int8", 1.0), operand([1, 1], "int8", 0.5)
    codes = run("layer_norm", [operand([[1, 3]]), ones, halves], spec([1, 2], "int16", 0.01))
    assert codes.tolist() == [[-91, 191]]  # 141.42 - 50 = 91.42, 191.42


@pytest.mark.parametrize("rule", ["ibert", "float"])
def test_layer_norm_is_near(rule):
    generator = np.random.default_rng(3)
    x = operand(generator.normal(0, 3000, (8, 64)).astype(int), "int16", 0.001)
    gamma = operand(generator.integers(50, 127, 64), "int8", 0.01)
    beta = operand(generator.integers(-100, 100, 64), "int8", 0.01)
    codes = run("layer_norm", [x, gamma, beta], spec(x.shape, "int16", 0.001), rule=rule)
    real = OPERATORS["layer_norm"].real(
        [values.codes * values.scale for values in (x, gamma, beta)], attributes_of("layer_norm", {})
    )
    assert np.abs(codes * 0.001 - real).max() < 0.005


def test_softmax_is_near():
    generator = np.random.default_rng(4)
    x = operand(generator.integers(-2000, 2000, (16, 32)), "int16", 0.002)
    codes = run("softmax", [x], spec(x.shape, "uint16", 2.0**-12), rule="ibert")
    real = OPERATORS["softmax"].real([x.codes * x.scale], attributes_of("softmax", {}))
    assert np.abs(codes / 2**12 - real).max() < 0.005


def test_the_polynomials_need_fine_inputs():
    with pytest.raises(FormatError, match=r"input scales from 2\*\*-20 to 0.00390625 here .* found 0.05"):
        run("gelu", [operand([1], scale=0.05)], spec([1]))
    with pytest.raises(FormatError, match=r"from 2\*\*-20 to 1 here"):
        run("softmax", [operand([[1]], scale=2.0)], spec([1, 1], "uint8", 1 / 256), rule="ibert")


def test_weights_that_have_no_form():
    x, output = operand([[1, 3]]), spec([1, 2])
    with pytest.raises(FormatError, match="a gamma of 0 has no I-BERT form"):
        run("layer_norm", [x, operand([0, 1]), operand([0, 0])], output)
    with pytest.raises(FormatError, match=r"beta / gamma = 1e\+06 is too large"):
        run("layer_norm", [x, operand([1, 1]), operand([1, 1], scale=1e6)], output)
