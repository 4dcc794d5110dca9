"""ONNX's own node tests of quantized operators, as their package generates them: all that apply pass; the others are
listed here, and in docs/import_onnx.md, with the reason.
"""

import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from onnx_tools import onnx, saved, simulated

from accelsim.errors import ModelError
from accelsim.importers.onnx_model import inspect_onnx, read_onnx
from accelsim.importers.onnx_values import Constant

PAGE = Path(__file__).parents[2] / "docs" / "import_onnx.md"

FLOAT_CODES = "8- and 4-bit floats as codes: the importers read integers"
BLOCKED = "a scale a block: no layer of a QOperator or QDQ network reads it"
DYNAMIC = "the scale depends on the data; a trace says scales before it runs"
EXCLUDED = {
    "test_dequantizelinear_e4m3fn": FLOAT_CODES,
    "test_dequantizelinear_e4m3fn_float16": FLOAT_CODES,
    "test_dequantizelinear_e4m3fn_zero_point": FLOAT_CODES,
    "test_dequantizelinear_e5m2": FLOAT_CODES,
    "test_dequantizelinear_float4e2m1": FLOAT_CODES,
    "test_quantizelinear_e4m3fn": FLOAT_CODES,
    "test_quantizelinear_e5m2": FLOAT_CODES,
    "test_quantizelinear_float4e2m1": FLOAT_CODES,
    "test_dequantizelinear_blocked": BLOCKED,
    "test_quantizelinear_blocked_asymmetric": BLOCKED,
    "test_quantizelinear_blocked_symmetric": BLOCKED,
    "test_dynamicquantizelinear": DYNAMIC,
    "test_dynamicquantizelinear_expanded": DYNAMIC,
    "test_dynamicquantizelinear_max_adjusted": DYNAMIC,
    "test_dynamicquantizelinear_max_adjusted_expanded": DYNAMIC,
    "test_dynamicquantizelinear_min_adjusted": DYNAMIC,
    "test_dynamicquantizelinear_min_adjusted_expanded": DYNAMIC,
}


@cache
def cases():
    """{name: test case} of quantized operators."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow on purpose
        found = {case.name: case for case in collect_testcases(None)}
    quantized = re.compile(r"test_(qlinear|convinteger|matmulinteger|(de|dynamic)?quantizelinear|maxpool_2d_uint8)")
    return {name: case for name, case in found.items() if quantized.match(name)}


def data_of(case):
    """Return (inputs, outputs) of a test case, as arrays."""

    def array(value):
        return np.asarray(onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)

    ((inputs, outputs),) = case.data_sets
    return [array(value) for value in inputs], [array(value) for value in outputs]


def constant(model, inputs, keep):
    """Return the model with all inputs but `keep` as initializers: what a file of a network says itself."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for port, array in zip(list(made.graph.input), inputs, strict=True):
        if port.name not in keep:
            made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), port.name))
            made.graph.input.remove(port)
    return made


RUN = [name for name in cases() if name not in EXCLUDED]


def test_the_suite_is_complete():
    """What the package generates is what runs, and what is excluded; new cases must be looked at."""
    assert len(RUN) == 29
    assert set(EXCLUDED) <= set(cases())
    assert len(cases()) == len(RUN) + len(EXCLUDED)


@pytest.mark.parametrize("name", [name for name in RUN if "quantizelinear" not in name])
def test_products(tmp_path, name):
    case = cases()[name]
    inputs, outputs = data_of(case)
    names = [port.name for port in case.model.graph.input]
    keeps = [[names[0]]]
    if "matmul" in name:  # the second operand as a weight, and as another activation
        keeps.append([names[0], names[3 if "qlinear" in name else 1]])
        if "3D" in name:
            keeps = keeps[1:]  # a constant of several matrices is no weight
    for keep in keeps:
        made = constant(case.model, inputs, keep)
        feeds = {key: array for key, array in zip(names, inputs, strict=True) if key in keep}
        _, codes = simulated(saved(made, tmp_path), feeds, verify=True)
        (output,) = case.model.graph.output
        np.testing.assert_array_equal(codes[output.name], outputs[0])


@pytest.mark.parametrize("name", [name for name in RUN if "quantizelinear" in name])
def test_edges(tmp_path, name):
    """QuantizeLinear and DequantizeLinear of constants; per tensor, QuantizeLinear of a network's input too."""
    case = cases()[name]
    inputs, outputs = data_of(case)
    made = constant(case.model, inputs, keep=())
    (output,) = made.graph.output
    value = read_onnx(saved(made, tmp_path)).constants[output.name]
    assert isinstance(value, Constant)
    if name.startswith("test_quantize"):
        np.testing.assert_array_equal(value.array, np.asarray(outputs[0]).astype(np.int64))
    else:
        np.testing.assert_array_equal(value.reals(), np.asarray(outputs[0], np.float32))
    if name.startswith("test_quantize") and np.size(inputs[1]) == 1:
        made = constant(case.model, inputs, keep=[case.model.graph.input[0].name])
        (entering,) = read_onnx(saved(made, tmp_path)).inputs
        codes = entering.codes(np.asarray(inputs[0]).reshape(entering.shape), subject="test").codes
        np.testing.assert_array_equal(codes, np.asarray(outputs[0]).astype(np.int64))


@pytest.mark.parametrize("name", list(EXCLUDED))
def test_what_does_not_apply_is_refused_in_words(tmp_path, name):
    case = cases()[name]
    inputs, _ = data_of(case)
    keep = [case.model.graph.input[0].name] if "dynamic" in name else ()
    path = saved(constant(case.model, inputs, keep=keep), tmp_path)
    try:
        problems = [row.problem for row in inspect_onnx(path) if row.problem]
    except ModelError as error:
        problems = [str(error)]
    wanted = {FLOAT_CODES: "are not supported; use one of", BLOCKED: "a scale a block", DYNAMIC: ""}[EXCLUDED[name]]
    assert problems
    assert any(wanted in problem for problem in problems)


def test_the_page_lists_what_does_not_apply():
    text = PAGE.read_text(encoding="utf-8")
    for name, reason in EXCLUDED.items():
        assert name in text, name
        assert reason in text, reason
