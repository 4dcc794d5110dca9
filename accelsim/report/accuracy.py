"""How far a result is from what it should be: exact codes, the float reference, simulated quantization, labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import ShapeError, TraceError
from accelsim.report.values import FakeQuantDistance, LayerAccuracy, NetworkAccuracy

Float64 = NDArray[np.float64]

# Beyond it squares leave float64, and no real tensor comes near.
LARGEST = 1e150


def compare(reference: ArrayLike, values: ArrayLike, *, what: str = "float reference") -> LayerAccuracy:
    """Return how far `values` are from `reference`: two real arrays of one shape, any float or integer dtype.

    SQNR is 10 log10(sum ref^2 / sum (ref - values)^2) in dB: inf where nothing differs (two zero arrays included),
    -inf where the reference alone is zero. The cosine of two zero arrays is 1, of one 0.

    `what` names the reference in messages. Raises ShapeError where the shapes differ or the arrays are empty,
    TraceError where a value is not finite.
    """
    ref = _finite(reference, what)
    out = _finite(values, "simulated output")
    _same_shape(ref, out, what, "simulated output")
    error = ref - out
    signal, noise = _sum_of_squares(ref), _sum_of_squares(error)
    norms = math.sqrt(signal) * math.sqrt(_sum_of_squares(out))
    if norms:
        cosine = min(1.0, max(-1.0, float(np.dot(ref.ravel(), out.ravel())) / norms))
    else:
        cosine = 1.0 if noise == 0 else 0.0
    return LayerAccuracy(
        sqnr_db=_decibel(signal, noise),
        mse=noise / ref.size,
        max_error=float(np.abs(error).max()),
        cosine=cosine,
    )


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    if signal == 0:
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(noise))


def count_mismatches(codes: ArrayLike, expected: ArrayLike) -> int:
    """Return how many integer codes differ. Raises ShapeError where the shapes do."""
    found, wanted = np.asarray(codes), np.asarray(expected)
    _same_shape(wanted, found, "expected codes", "output codes")
    return int(np.count_nonzero(found != wanted))


def fake_quant_distance(fake_values: ArrayLike, integer_values: ArrayLike, step: ArrayLike) -> FakeQuantDistance:
    """Return the distance between simulated quantization in float and the integer result.

    fake_values, integer_values : real arrays of one shape (the integer result dequantized)
    step : the output's quantization step, positive; () or anything that broadcasts to the values' shape

    Both lie on one grid up to float noise, so a distance is close to a whole number of steps; "differing" counts
    outputs at least half a step apart. relative_l2 is 0 where both are zero, inf where the integer result alone is.
    Raises ShapeError where the shapes differ, TraceError where a value is not finite or a step not positive.
    """
    fake = _finite(fake_values, "fake-quantized output")
    integer = _finite(integer_values, "simulated output")
    _same_shape(fake, integer, "fake-quantized output", "simulated output")
    steps = _finite(step, "output scale")
    if not (steps > 0).all():
        raise TraceError(f"output scale: found {float(steps.min())!r}; every step must be above 0")
    distance = np.abs(fake - integer) / steps
    gap, size = math.sqrt(_sum_of_squares(fake - integer)), math.sqrt(_sum_of_squares(integer))
    return FakeQuantDistance(
        max_steps=float(distance.max()),
        mean_steps=float(distance.mean()),
        differing=float((distance >= 0.5).mean()),
        relative_l2=gap / size if size else (math.inf if gap else 0.0),
    )


def network_accuracy(
    logits_float: ArrayLike | None, logits_simulated: ArrayLike, labels: ArrayLike | None
) -> NetworkAccuracy:
    """Return top-1 accuracy in float and simulated, their difference and their agreement.

    logits_float : real [images, classes] of the float network, or None
    logits_simulated : real or codes [images, classes] of the simulated hardware
    labels : int [images], or None

    The largest logit is the prediction; among equals, which integers often are, the first. Raises ShapeError where the
    shapes do not fit together.
    """
    simulated = _predictions(logits_simulated, "simulated output")
    images = simulated.size
    reference = None if logits_float is None else _predictions(logits_float, "float reference")
    if reference is not None and reference.size != images:
        raise ShapeError(f"float reference has {reference.size} images, the simulated output {images}")
    truth = None if labels is None else np.asarray(labels)
    if truth is not None and truth.shape != (images,):
        raise ShapeError(f"labels have shape {truth.shape}; the simulated output needs ({images},), one per image")
    float_accuracy = _fraction_equal(reference, truth)
    simulated_accuracy = _fraction_equal(simulated, truth)
    known = float_accuracy is not None and simulated_accuracy is not None
    return NetworkAccuracy(
        images=images,
        float_accuracy=float_accuracy,
        simulated_accuracy=simulated_accuracy,
        difference=simulated_accuracy - float_accuracy if known else None,  # type: ignore[operator]
        agreement=_fraction_equal(simulated, reference),
    )


def _predictions(logits: ArrayLike, what: str) -> NDArray[np.intp]:
    array = np.asarray(logits)
    if array.ndim != 2 or array.size == 0:
        raise ShapeError(f"{what} has shape {array.shape}; accuracy needs (images, classes)")
    winners: NDArray[np.intp] = np.argmax(array, axis=1)
    return winners


def _fraction_equal(a: NDArray[Any] | None, b: NDArray[Any] | None) -> float | None:
    return None if a is None or b is None else int(np.count_nonzero(a == b)) / a.size


def _sum_of_squares(array: Float64) -> float:
    return float(np.square(array).sum())


def _finite(array: ArrayLike, what: str) -> Float64:
    values = np.asarray(array, np.float64)
    usable = np.abs(values) <= LARGEST  # False for NaN too
    if not usable.all():
        place = [int(index) for index in np.argwhere(~usable)[0]]
        raise TraceError(
            f"{what}: {np.count_nonzero(~usable)} values are not finite numbers; the first is "
            f"{float(values[tuple(place)])!r} at {place}"
        )
    return values


def _same_shape(a: NDArray[Any], b: NDArray[Any], what_a: str, what_b: str) -> None:
    if a.shape != b.shape:
        raise ShapeError(f"{what_a} has shape {a.shape}, but {what_b} has {b.shape}; they must be equal")
    if a.size == 0:
        raise ShapeError(f"{what_a} has shape {a.shape}: there is nothing to compare")
