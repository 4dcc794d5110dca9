"""The plan of a layer from shapes alone (accelsim.memory.needs) is the plan of its lowered operands."""

import numpy as np
from hypothesis import given, settings
from mapping_cases import any_layers

from accelsim.mapping.lower import lower
from accelsim.mapping.plan import plan_operands
from accelsim.memory.needs import NetworkShapes, layer_plan
from accelsim.trace.schema import MatmulMeta, TensorMeta, TraceMeta
from accelsim.trace.shapes import output_shape, weight_name


def tensor_meta(tensor):
    dims = tuple(f"d{axis}" for axis in range(len(tensor.shape)))
    return TensorMeta(
        format=tensor.format.name,
        dims=dims,
        shape=tensor.shape,
        channel_axis=tensor.channel_axis,
        block_axis=tensor.block_axis,
    )


def shapes_of(layer, x, weight):
    shape = output_shape(layer, x.shape, weight.shape)
    out = TensorMeta(format="int32", dims=tuple(f"d{axis}" for axis in range(len(shape))), shape=shape)
    tensors = {layer.input: tensor_meta(x), weight_name(layer): tensor_meta(weight), layer.output: out}
    inputs = (layer.input, layer.other) if isinstance(layer, MatmulMeta) else (layer.input,)
    meta = TraceMeta(name="one", tensors=tensors, layers=(layer,), inputs=inputs, outputs=(layer.output,))
    return NetworkShapes(meta, {layer.input: x.zero_point, weight_name(layer): weight.zero_point})


@settings(max_examples=100)
@given(any_layers(wide=True))
def test_a_plan_needs_no_values(case):
    layer, x, weight, bias, config = case
    expected = plan_operands(lower(layer, x, weight, bias, config).operands, config)
    found = layer_plan(layer, shapes_of(layer, x, weight), config)
    for name in vars(expected):
        if name == "passes":
            for part in vars(expected.passes):
                np.testing.assert_array_equal(getattr(found.passes, part), getattr(expected.passes, part))
        elif name == "arguments":  # what a share of the layer is planned with; `layer` is for messages
            np.testing.assert_array_equal(found.arguments["k_valid"], expected.arguments["k_valid"])
            own = {"k_valid": None, "layer": None}
            assert found.arguments | own == expected.arguments | own
        else:
            assert getattr(found, name) == getattr(expected, name), name
