import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from accelsim.errors import ShapeError, TraceError
from accelsim.report.accuracy import compare, count_mismatches, fake_quant_distance, network_accuracy


def test_metrics_worked_by_hand():
    # error = [0, 1, 0, -1]: noise 2, signal 1 + 4 + 4 + 16 = 25, out = [1, 1, 2, 5]: 31, dot = 1 + 2 + 4 + 20 = 27
    found = compare(np.array([[1.0, 2.0], [2.0, 4.0]]), np.array([[1.0, 1.0], [2.0, 5.0]]))
    assert found.sqnr_db == pytest.approx(10.969100, abs=1e-6)  # 10 log10(12.5)
    assert found.mse == 0.5
    assert found.max_error == 1.0
    assert found.cosine == pytest.approx(27 / math.sqrt(25 * 31))


def test_a_tenth_of_the_amplitude_is_twenty_decibel():
    assert compare([10.0, -10.0], [9.0, -9.0]).sqnr_db == pytest.approx(20.0, abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "values", "sqnr_db", "cosine"),
    [
        ([1.0, 2.0], [1.0, 2.0], math.inf, 1.0),
        ([0.0, 0.0], [0.0, 0.0], math.inf, 1.0),
        ([0.0, 0.0], [0.0, 3.0], -math.inf, 0.0),
        ([3.0, 4.0], [0.0, 0.0], 0.0, 0.0),
        ([3.0, 4.0], [-3.0, -4.0], -6.020600, -1.0),  # 10 log10(1 / 4)
        ([1e-200, 0.0], [1e-200, 0.0], math.inf, 1.0),  # squares underflow to zero: still no error
    ],
)
def test_the_edges_are_defined(reference, values, sqnr_db, cosine):
    found = compare(reference, values)
    assert found.sqnr_db == pytest.approx(sqnr_db, abs=1e-6)
    assert found.cosine == pytest.approx(cosine)


finite = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, (2, 3), elements=finite), arrays(np.float32, (2, 3), elements=finite))
def test_metrics_are_never_nan_and_agree_with_plain_sums(reference, values):
    found = compare(reference, values)
    ref, out = [float(x) for x in reference.ravel()], [float(x) for x in values.ravel()]
    error = [a - b for a, b in zip(ref, out, strict=True)]
    assert found.max_error == max(map(abs, error))
    assert found.mse == pytest.approx(math.fsum(e * e for e in error) / 6, rel=1e-12)
    assert not math.isnan(found.sqnr_db)
    assert -1 <= found.cosine <= 1


def test_shapes_and_values_that_cannot_be_compared():
    with pytest.raises(ShapeError, match=r"float reference has shape \(2,\), but simulated output has \(3,\)"):
        compare([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match="there is nothing to compare"):
        compare([], [])
    message = r"reference of conv1: 2 values are not finite numbers; the first is nan at \[0, 1\]"
    with pytest.raises(TraceError, match=message):
        compare([[1.0, math.nan], [math.inf, 0.0]], np.zeros((2, 2)), what="reference of conv1")


def test_mismatching_codes_are_counted():
    assert count_mismatches(np.array([[1, 2], [3, 4]]), np.array([[1, 0], [3, 5]], np.int8)) == 2
    assert count_mismatches(np.array([255], np.int32), np.array([255], np.uint8)) == 0
    assert count_mismatches(np.array([-1], np.int32), np.array([255], np.uint8)) == 1
    with pytest.raises(ShapeError, match=r"expected codes has shape \(1, 2\), but output codes has \(2,\)"):
        count_mismatches(np.zeros(2), np.zeros((1, 2)))


def test_fake_quantization_distance_worked_by_hand():
    # steps apart: 0, 1, 0.2, 3; ||difference|| = 0.5 sqrt(0 + 1 + 0.04 + 9), ||integer|| = sqrt(1 + 4 + 4 + 16) = 5
    found = fake_quant_distance([1.0, 2.5, 2.1, 2.5], [1.0, 2.0, 2.0, 4.0], 0.5)
    assert found.max_steps == pytest.approx(3.0)
    assert found.mean_steps == pytest.approx(1.05)
    assert found.differing == 0.5
    assert found.relative_l2 == pytest.approx(0.1 * math.sqrt(10.04))


def test_fake_quantization_distance_takes_one_step_a_channel():
    found = fake_quant_distance([[1.0, 1.0]], [[2.0, 2.0]], [0.5, 2.0])
    assert (found.max_steps, found.mean_steps, found.differing) == (2.0, 1.25, 1.0)


def test_fake_quantization_distance_at_the_edges():
    assert fake_quant_distance([0.0], [0.0], 1.0).relative_l2 == 0.0
    assert fake_quant_distance([1.0], [0.0], 1.0).relative_l2 == math.inf
    assert fake_quant_distance([0.5], [0.0], 1.0).differing == 1.0
    with pytest.raises(TraceError, match=r"output scale: found 0.0; every step must be above 0"):
        fake_quant_distance([1.0], [1.0], 0.0)
    with pytest.raises(ShapeError, match="fake-quantized output has shape"):
        fake_quant_distance([1.0, 1.0], [1.0], 1.0)


LOGITS = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [5.0, 1.0, 0.0]])  # predicts 0 1 2 0
CODES = np.array([[9, 2, 1], [1, 3, 7], [0, 5, 5], [8, 1, 0]])  # predicts 0 2 1 0: a tie goes to the first


def test_network_accuracy_worked_by_hand():
    found = network_accuracy(LOGITS, CODES, np.array([0, 1, 2, 1]))
    assert found.images == 4
    assert found.float_accuracy == 0.75
    assert found.simulated_accuracy == 0.25
    assert found.difference == -0.5
    assert found.agreement == 0.5


def test_network_accuracy_without_labels_or_float_reference():
    unlabelled = network_accuracy(LOGITS, CODES, None)
    assert (unlabelled.float_accuracy, unlabelled.simulated_accuracy, unlabelled.difference) == (None, None, None)
    assert unlabelled.agreement == 0.5
    alone = network_accuracy(None, CODES, np.array([0, 2, 1, 0]))
    assert (alone.simulated_accuracy, alone.float_accuracy, alone.difference, alone.agreement) == (
        1.0,
        None,
        None,
        None,
    )


def test_network_accuracy_refuses_what_does_not_fit_together():
    with pytest.raises(ShapeError, match=r"labels have shape \(3,\); the simulated output needs \(4,\)"):
        network_accuracy(LOGITS, CODES, np.zeros(3))
    with pytest.raises(ShapeError, match="float reference has 2 images, the simulated output 4"):
        network_accuracy(LOGITS[:2], CODES, None)
    with pytest.raises(ShapeError, match=r"simulated output has shape \(3,\); accuracy needs \(images, classes\)"):
        network_accuracy(None, CODES[0], None)
