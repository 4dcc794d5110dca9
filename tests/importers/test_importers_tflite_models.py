"""The shared TFLite models, from input to output: the codes are those that LiteRT's reference kernels and TFLite Micro
gave, and every tensor between is LiteRT's.

The ordinary test takes a few samples; ACCELSIM_ALL_SAMPLES=1 takes all of them (many minutes).
"""

import os

import numpy as np
import pytest
from shared_models import MODELS, as_reference, differing_samples, reference_outputs
from tflite_tools import reference_tensors, simulated_tensors

import accelsim
from accelsim.importers.api import open_model

ALL = os.environ.get("ACCELSIM_ALL_SAMPLES", "") not in ("", "0")
RUNTIMES = {"tflite-reference": "litert_ref", "tflite-micro": "tflm"}
WITH_OUTPUTS = [model for model in MODELS if model.outputs is not None]


@pytest.fixture(scope="module")
def config():
    from shared_data import PROJECT

    return accelsim.load_config(PROJECT / "configs" / "int8_reference.yaml")


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize("model", WITH_OUTPUTS, ids=lambda model: model.name)
def test_outputs_are_those_of_the_runtime(model, semantics, config):
    inputs, _ = model.load()
    count = len(inputs) if ALL else 3
    trace = accelsim.import_model(model.path, inputs, semantics, batch=count)
    report = accelsim.simulate(config, trace, watch=False)
    (output,) = trace.outputs
    layer = next(layer for layer in trace.layers if layer.output == output)
    codes = next(each.output_codes for each in report.layers if each.name == layer.name)
    _, scale, zero_point = trace.output_factors(layer)
    reference = reference_outputs(model, RUNTIMES[semantics])[:count]
    assert differing_samples(model, as_reference(model, codes, scale, zero_point), reference) == 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_tensor_is_that_of_litert(model, config):
    inputs, _ = model.load()
    inputs = inputs if ALL else inputs[:1]
    made, _ = simulated_tensors(model.path, inputs, config)
    graph = open_model(model.path).graph
    computed = {index for each in graph.operators for index in each.outputs if graph.tensors[index].dtype != "FLOAT32"}
    quantized = {each.outputs[0] for each in graph.operators if each.op == "QUANTIZE" and each.index == 0}
    assert computed - quantized <= set(made) <= computed, "every tensor of codes is compared, the input's apart"
    if inputs.dtype == np.float32 and graph.tensors[graph.inputs[0]].dtype != "FLOAT32":
        inputs = open_model(model.path).inputs[0].codes(inputs, subject="").codes
    for i in range(len(inputs)):
        wanted = reference_tensors(model.path, [[inputs[i : i + 1]]], made)
        for index, codes in made.items():
            np.testing.assert_array_equal(codes[i : i + 1], wanted[index], graph.tensors[index].name)


def test_semantics_matter(config):
    """LeNet is where the two differ on the data: the float64 factor of LiteRT's fully connected layers."""
    model = MODELS[0]
    inputs, _ = model.load()
    outputs = {}
    for semantics in RUNTIMES:
        trace = accelsim.import_model(model.path, inputs, semantics, batch=200)
        outputs[semantics] = accelsim.simulate(config, trace, watch=False).layers[-1].output_codes
    assert np.any(outputs["tflite-reference"] != outputs["tflite-micro"])
