"""The same codes as LiteRT's reference kernels and as ONNX Runtime: stored cases, and live ones where they install."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import runtime_cases
from operator_cases import operand, spec

from accelsim.operators.registry import OPERATORS, attributes_of
from accelsim.operators.tables import table

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "operators_external.json").read_text())
STORED = [(runtime, i) for runtime in ("litert", "onnxruntime") for i in range(len(GOLDEN[runtime]))]


def computed(name, attributes, inputs, output):
    """Return (codes, oracle's codes) of a case as runtime_cases describes it."""
    operator, checked = OPERATORS[name], attributes_of(name, attributes)
    operands = [operand(codes, str(form), scale, zero_point) for codes, form, scale, zero_point in inputs]
    made = spec(output[0], str(output[1]), *output[2:])
    assert operator.output_shape([x.shape for x in operands], checked) == made.shape
    operator.check(operands, made, checked)
    return operator.run(operands, made, checked), operator.oracle(operands, made, checked)


def test_every_operator_that_a_runtime_has_is_stored():
    assert {case["operator"] for case in GOLDEN["litert"]} == set(runtime_cases.LITERT)
    assert {case["operator"] for case in GOLDEN["onnxruntime"]} == set(runtime_cases.ONNXRUNTIME)
    tables = {case["attributes"]["function"] for case in GOLDEN["litert"] if case["operator"] == "lookup"}
    assert tables == set(runtime_cases.TABLES)
    without = set(OPERATORS) - set(runtime_cases.LITERT)
    own = {"convert"}  # between formats of accelsim's own catalog
    assert without == {"reshape", "gelu", "layer_norm"} | own, "I-BERT has no runtime; a reshape has no arithmetic"


@pytest.mark.parametrize(("runtime", "i"), STORED, ids=[f"{r}-{GOLDEN[r][i]['operator']}-{i}" for r, i in STORED])
def test_stored_cases(runtime, i):
    case = GOLDEN[runtime][i]
    inputs = [(np.array(x["codes"]), x["format"], x["scale"], x["zero_point"]) for x in case["inputs"]]
    made = case["output"]
    wanted = np.array(made["codes"])
    output = wanted.shape, made["format"], made["scale"], made["zero_point"]
    codes, again = computed(case["operator"], case["attributes"], inputs, output)
    assert np.array_equal(codes, wanted)
    assert np.array_equal(np.asarray(again).reshape(wanted.shape), wanted)


@pytest.mark.parametrize("i", range(len(runtime_cases.MICRO_TABLES)))
def test_integer_tables_are_those_of_tflite_micro(i):
    function, given, made = runtime_cases.MICRO_TABLES[i]
    stored = GOLDEN["tflite_micro_tables"][i]
    assert stored["function"] == function
    x, output = spec([256], "int8", *given), spec([256], "int8", *made)
    assert table(function, x, output, "integer").tolist() == stored["codes"]
    if function != "hard_swish":  # whose case tells other roundings apart
        assert table(function, x, output, "float32").tolist() != stored["codes"]


@pytest.mark.parametrize("i", range(len(runtime_cases.MEANS)))
def test_the_factor_of_onnxruntimes_means(i):
    inputs, output, _ = runtime_cases.mean_of_sums(*runtime_cases.MEANS[i])
    codes, again = computed("mean", {"axes": [1, 2], "rule": "onnxruntime"}, inputs, output)
    assert codes.ravel().tolist() == again.ravel().tolist() == GOLDEN["onnxruntime_means"][i]


def live(name, make, seeds):
    for seed in seeds:
        operator, attributes, inputs, output, call = make(name, np.random.default_rng(seed))
        wanted = call()
        codes, _ = computed(operator, attributes, inputs, (wanted.shape, *output[1:]))
        assert np.array_equal(codes, wanted), (seed, attributes, output)


@pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed (pip install it)")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(runtime_cases.LITERT))
def test_litert_reference_kernels(name):
    live(name, runtime_cases.litert_case, range(15))


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed (pip install it and onnx)")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(runtime_cases.ONNXRUNTIME))
def test_onnxruntime(name):
    live(name, runtime_cases.onnxruntime_case, range(15))
