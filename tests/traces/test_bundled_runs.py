"""The main job on the bundled traces: the simulator's codes are those that traces/digits/reference.py expects."""

import numpy as np
import pytest

from accelsim import load_config, load_trace, simulate

RUNS = (
    ("int8_ws", "digits_cnn_int8"),
    ("int8_os", "digits_cnn_int8"),
    ("int8_is", "digits_cnn_int8"),
    ("int4_vsq", "digits_cnn_int4_vsq"),
)


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: run[0])
def run(request, project_root):
    config, name = request.param
    trace = load_trace(project_root / "traces" / f"{name}.npz")
    return trace, simulate(load_config(project_root / "configs" / f"{config}.yaml"), trace)


def test_every_code_and_vector_scale_is_the_expected_one(run):
    trace, report = run
    assert [layer.name for layer in report.layers] == ["conv1", "conv2", "fc1", "fc2"]
    for layer, meta in zip(report.layers, trace.layers, strict=True):
        expected = trace.expected(meta.output)
        np.testing.assert_array_equal(layer.output_codes, expected.codes, err_msg=layer.name)
        if expected.block_scales is None:
            assert layer.output_block_scales is None
        else:
            np.testing.assert_array_equal(layer.output_block_scales, expected.block_scales, err_msg=layer.name)
        assert layer.mismatches == 0


def test_no_register_overflows(run):
    _, report = run
    for layer in report.layers:
        assert layer.overflow.psum.count == 0, layer.name
        assert layer.overflow.accumulator.count == 0, layer.name


def test_the_report_states_the_accuracy_of_the_traces_labels(run):
    trace, report = run
    last = trace.layers[-1].output
    real = np.mean(np.argmax(trace.reference(last), axis=1) == trace.labels)
    simulated = np.mean(np.argmax(trace.expected(last).codes, axis=1) == trace.labels)
    assert report.accuracy.images == 240
    assert report.accuracy.float_accuracy == pytest.approx(real)
    assert report.accuracy.simulated_accuracy == pytest.approx(simulated)
    assert report.accuracy.difference == pytest.approx(simulated - real)


def test_more_guard_bits_change_the_vsq_codes(project_root):
    """The comparison can fail: another output unit encodes some vectors otherwise."""
    config = load_config(project_root / "configs" / "int4_vsq.yaml")
    other = config.model_copy(update={"ppu": config.ppu.model_copy(update={"vsq_guard_bits": 8})})
    report = simulate(other, load_trace(project_root / "traces" / "digits_cnn_int4_vsq.npz"))
    assert report.layers[0].mismatches > 0
