"""The search for scales, whose inner loop is written out for integers: what trying each scale by `quantize` finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from accelsim import formats
from accelsim.quantize.ranges import FACTORS, RangeRule, Seen, activation_scale, weight_of

MSE = RangeRule("mse")
values = st.one_of(
    st.floats(-8, 8, allow_subnormal=False), st.just(0.0), st.sampled_from([1e-30, -3e-9, 1e12, -2.5, 0.5])
)


def arrays(max_dims):
    shapes = hnp.array_shapes(min_dims=2, max_dims=max_dims, min_side=1, max_side=5)
    return hnp.arrays(np.float64, shapes, elements=values)


def scale_of_least_error(form, weight, channel):
    """Each channel alone, one factor after another; the first of equal errors."""
    parts = [weight] if channel is None else list(np.moveaxis(weight, channel, 0))
    chosen = []
    for part in parts:
        found = []
        for factor in FACTORS:
            bound = factor * np.abs(part).max()
            scale = float(form.quantize(np.clip(part, -bound, bound)).scale)
            found.append((float(np.square(form.quantize(part, scale=scale).dequantize() - part).sum()), scale))
        chosen.append(found)
    return chosen


@settings(max_examples=60)
@given(arrays(4), st.sampled_from(["int2", "int3", "int4", "int8", "int8n", "int16", "uint4"]), st.integers(-1, 1))
def test_scales_of_weights(weight, name, channel):
    form, axis = formats.get(name), None if channel < 0 else channel
    tensor = weight_of(form, weight, axis, MSE)
    scales = np.atleast_1d(tensor.scale)
    assert (tensor.codes == form.quantize(weight, channel_axis=axis, scale=tensor.scale).codes).all()
    for scale, found in zip(scales, scale_of_least_error(form, weight, axis), strict=True):
        assert any(scale == pytest.approx(tried, rel=1e-15) for _, tried in found)
        error = next(error for error, tried in found if scale == pytest.approx(tried, rel=1e-15))
        assert error <= min(error for error, _ in found) * (1 + 1e-12)


@settings(max_examples=60)
@given(arrays(2), st.sampled_from(["int2", "int4", "int8", "uint3", "uint8"]), st.booleans())
def test_scales_of_activations(rows, name, asymmetric):
    form = formats.get(name)
    seen = Seen(len(rows), rows.shape[-1])
    seen.add(rows)
    chosen = activation_scale(form, seen, MSE, asymmetric=asymmetric)
    low, high = min(rows.min(), 0.0), max(rows.max(), 0.0)
    found = []
    for factor in FACTORS:
        ends = np.clip(np.append(rows.ravel(), [factor * low, factor * high]), factor * low, factor * high)
        tried = form.quantize(ends, asymmetric=asymmetric)
        again = form.quantize(rows, scale=tried.scale, zero_point=tried.zero_point if asymmetric else None)
        error = float(np.square(again.dequantize() - rows).sum())
        found.append((error, float(tried.scale), int(tried.zero_point)))
    best = min(found, key=lambda each: each[0])
    assert (float(chosen.scale), int(chosen.zero_point)) == best[1:]
