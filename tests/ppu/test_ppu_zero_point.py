"""Zero-point correction: exact in Python integers at every width, watched addition by addition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.actions import Action
from accelsim.engine.contract import OverflowEvent, RegisterWatch
from accelsim.errors import ShapeError
from accelsim.ppu.zero_point import apply_zero_points


def correct(acc, zw=None, za=None, bits=32, overflow="wrap", k=7):
    weights = None if zw is None else np.array(zw, np.int64)
    return apply_zero_points(
        np.array(acc, np.int64),
        w_zero_point=weights,
        a_zero_point=za,
        acc_bits=bits,
        overflow=overflow,
        k=k,
        w_bits=8,
        a_bits=8,
    )


def limit(value, bits, overflow):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if overflow == "saturate":
        return min(max(value, low), high)
    return (value - low) % (1 << bits) + low


@st.composite
def problems(draw):
    bits = draw(st.sampled_from([8, 13, 32, 48, 61, 62, 63, 64]))
    batch, m, n = (draw(st.integers(1, 3)) for _ in range(3))
    rows_of_sums, columns_of_sums = draw(st.booleans()), draw(st.booleans())
    shape = (batch, m + columns_of_sums, n + rows_of_sums)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    element = st.integers(low, high) | st.integers(-100, 100) | st.sampled_from([low, high])
    size = int(np.prod(shape))
    acc = np.array(draw(st.lists(element, min_size=size, max_size=size)), np.int64).reshape(shape)
    zero_points = st.integers(-128, 127) | st.integers(-3, 3) | st.sampled_from([0, -32768, 65535])
    zw = None
    if rows_of_sums:
        a_row = st.lists(zero_points, min_size=n, max_size=n)
        zw = draw(zero_points | a_row | st.lists(a_row, min_size=batch, max_size=batch))
    return acc, zw, draw(zero_points) if columns_of_sums else None, bits, draw(st.sampled_from(["wrap", "saturate"]))


@given(problems())
def test_correction_equals_python_integers(problem):
    acc, zw, za, bits, overflow = problem
    got = correct(acc, zw, za, bits, overflow)
    batch, rows, columns = acc.shape[0], acc.shape[1] - (za is not None), acc.shape[2] - (zw is not None)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    count, first, seen = 0, None, [0]
    expected = np.zeros((batch, rows, columns), object)
    for b, m, n in np.ndindex(batch, rows, columns):
        terms = []
        if zw is not None:
            terms.append(-int(np.broadcast_to(zw, (batch, columns))[b, n]) * int(acc[b, m, -1]))
        if za is not None:
            terms.append(-za * int(acc[b, -1, n]))
        register = unlimited = int(acc[b, m, n])
        for term in terms:
            exact, unlimited = register + term, unlimited + term
            seen.append(unlimited)
            register = limit(exact, bits, overflow)
            if not low <= exact <= high:
                count += 1
                first = first or OverflowEvent((b, m, n), 7, exact)
        expected[b, m, n] = register
    assert got.acc.dtype == np.int64
    assert got.acc.tolist() == expected.tolist()
    assert (got.watch.overflows, got.watch.first) == (count, first)
    assert (got.watch.low, got.watch.high) == (min(seen), max(seen))


@pytest.mark.parametrize(("overflow", "expected"), [("wrap", 3), ("saturate", -(1 << 63))])
def test_sums_beyond_64_bits_are_exact(overflow, expected):
    # 0 - 3 (2^63 - 1) = -3 * 2^63 + 3, which is 3 modulo 2^64 plus 2^63: wrapped once more, 3 - 2^63.
    got = correct([[[0, (1 << 63) - 1]]], 3, None, 64, overflow)
    exact = -3 * ((1 << 63) - 1)
    assert got.acc.item() == (expected - (1 << 63) if overflow == "wrap" else expected)
    assert got.watch.first == OverflowEvent((0, 0, 0), 7, exact)
    assert (got.watch.overflows, got.watch.low, got.watch.high) == (1, exact, 0)


@given(st.integers(0, 1000))
def test_it_completes_the_product_of_asymmetric_operands(seed):
    """Bias and both corrections together give sum (a - za)(w - zw)."""
    rng = np.random.default_rng(seed)
    batch, m, k, n = rng.integers(1, 6, 4)
    a, w = rng.integers(0, 256, (batch, m, k)), rng.integers(-8, 8, (batch, k, n))
    za, zw = int(rng.integers(0, 256)), rng.integers(-8, 8, n)
    padded_a = np.concatenate([a, np.ones((batch, 1, k), np.int64)], axis=1)
    padded_w = np.concatenate([w, np.ones((batch, k, 1), np.int64)], axis=2)
    acc = padded_a @ padded_w
    acc[:, :m, :n] += k * za * zw  # the constant term, preloaded
    got = correct(acc, zw, za)
    assert got.acc.tolist() == ((a - za) @ (w - zw)).tolist()
    assert got.watch.overflows == 0


def test_the_work_is_charged():
    acc = np.zeros((2, 4, 6))  # outputs 2 x 3 x 5
    per_channel = correct(acc, [1] * 5, 3)
    assert dict(per_channel.actions.items()) == {
        Action("ppu", "mult", (32, 8)): 30 + 2 * 5,
        Action("ppu", "add", (32,)): 60,
    }
    per_tensor = correct(np.zeros((2, 3, 6)), 1)
    assert dict(per_tensor.actions.items()) == {
        Action("ppu", "mult", (32, 8)): 6,
        Action("ppu", "add", (32,)): 30,
    }
    assert len(correct(np.zeros((2, 3, 5))).actions) == 0


def test_without_zero_points_nothing_happens():
    acc = np.arange(12).reshape(1, 3, 4)
    got = correct(acc)
    assert got.acc.tolist() == acc.tolist()
    assert (got.watch.low, got.watch.high) == (0, 0)


def test_bad_arguments_are_refused():
    with pytest.raises(ShapeError, match=r"w_zero_point has shape \(4,\); the layer has 1 GEMMs of 3 columns: use"):
        correct(np.zeros((1, 2, 4)), [1] * 4)
    with pytest.raises(ShapeError, match=r"takes int64 \[batch, M, N\]"):
        correct(np.zeros((2, 4)), 1)
    with pytest.raises(ValueError, match="overflow='clip'; use 'wrap' or 'saturate'"):
        correct(np.zeros((1, 2, 4)), 1, overflow="clip")


def test_float_accumulators_pass_through():
    acc = np.array([[[1.5, -3e38]]], np.float32)
    got = apply_zero_points(
        acc, w_zero_point=None, a_zero_point=None, acc_bits=32, overflow="saturate", k=7, w_bits=8, a_bits=8
    )
    assert got.acc is acc
    assert len(got.actions) == 0
    # Merged with what the float32 accumulator went through, it changes nothing, and the register stays a float one.
    watch = RegisterWatch(1, None, -2.5, 0.0)
    assert watch.followed_by(got.watch) == watch
    assert watch.followed_by(got.watch).sufficient_bits is None
    with pytest.raises(ShapeError, match=r"acc is float32 .*; zero-point correction takes int64"):
        apply_zero_points(
            acc, w_zero_point=None, a_zero_point=3, acc_bits=32, overflow="saturate", k=7, w_bits=8, a_bits=8
        )
