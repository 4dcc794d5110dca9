"""The pieces of a trace under construction: tensors, layers and arrays, each added whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from accelsim import formats
from accelsim.errors import AccelsimError, ShapeError, TraceError, did_you_mean
from accelsim.formats import Format, QTensor
from accelsim.formats.spec import FLOATING
from accelsim.operators import registry as operators
from accelsim.trace.factors import narrow_codes, plain_array, quantize_bias, real_bias
from accelsim.trace.finish import Arrays, Finish, raw_output, requantization, requantized_output
from accelsim.trace.geometry import input_dims, output_dims
from accelsim.trace.metadata import MetaError, checked
from accelsim.trace.pieces import check_input, check_layer
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta, MatmulMeta, Step, TensorMeta, TensorName, VectorMeta
from accelsim.trace.shapes import Shape, channel_axis_of_weight, output_shape
from accelsim.trace.slots import TensorPart, layer_array, tensor_array


class Assembly:
    """Tensors, layers and arrays so far."""

    def __init__(self) -> None:
        self.tensors: dict[str, TensorMeta] = {}
        self.layers: list[Step] = []
        self.arrays: Arrays = {}

    @property
    def computed(self) -> list[str]:
        """The outputs of the layers, in order."""
        return [layer.output for layer in self.layers]

    @property
    def unread(self) -> tuple[str, ...]:
        """What layers compute and none reads, in order."""
        read: set[str] = set()
        for layer in self.layers:
            if isinstance(layer, VectorMeta):
                read.update(layer.inputs)
            else:
                read.update([layer.input, *([layer.other] if isinstance(layer, MatmulMeta) else [])])
        return tuple(name for name in self.computed if name not in read)

    def shape(self, tensor: str, where: str) -> Shape:
        """Return a tensor's shape; TraceError for an unknown name."""
        if tensor not in self.tensors:
            near = did_you_mean(tensor, self.tensors) if isinstance(tensor, str) else ""
            raise TraceError(f"{where}: unknown tensor {tensor!r}{near}; add it before the layer that uses it")
        return self.tensors[tensor].shape

    def add_stored(self, name: str, tensor: QTensor, dims: tuple[str, ...], reference: ArrayLike | None) -> None:
        """Add a tensor whose codes the trace stores."""
        checked(lambda: TensorName(name=name), f"tensor {name!r}", TensorName)
        self._refuse_taken(name, f"tensor {name!r}")
        meta, arrays = _stored(name, tensor, dims)
        if reference is not None:
            arrays[tensor_array(name, "reference")] = _floats(reference, f"tensor {name!r}: reference")
        check_input(name, meta, arrays)
        self.tensors[name] = meta
        self.arrays.update(arrays)

    def add_layer(
        self,
        kind: type[Conv2dMeta] | type[LinearMeta] | type[MatmulMeta],
        name: str,
        first: str,
        second: str | tuple[QTensor, tuple[str, ...]],
        own: Mapping[str, Any],
        finish: Finish,
    ) -> str:
        """Add a layer and its output; return the output's name.

        first : the input's name
        second : the other activation's name, or a weight (a constant, of a matmul) and the names of its dimensions
        own : the fields that only this kind of layer has
        """
        where = f"layer {name!r}"
        if any(layer.name == name for layer in self.layers):
            raise TraceError(f"{where}: another layer has this name; use a new one, or begin a new TraceBuilder")
        output = finish.output_name if finish.output_name is not None else f"{name}.out"
        self._refuse_taken(output, where)
        self.shape(first, where)
        new_tensors: dict[str, TensorMeta] = {}
        new_arrays: Arrays = {}
        if isinstance(second, str):
            self.shape(second, where)
            second_name, role = second, "other"
        else:
            second_name, role = f"{name}.weight", "other" if kind is MatmulMeta else "weight"
            self._refuse_taken(second_name, where)
            new_tensors[second_name], new_arrays = _stored(second_name, *second)
        fields = {
            "name": name,
            "input": first,
            role: second_name,
            "output": output,
            "rounding": finish.rounding,
            "activation": finish.activation,
            "clamp": _clamp(finish.clamp, where),
            **own,
        }
        try:
            layer: Layer = checked(lambda: kind.model_validate(fields), where, kind)
        except MetaError as error:
            if any(problem.startswith(f"{where}: name: ") for problem in error.problems):
                named_after = ("weight", "output") if finish.output_name is None else ("weight",)
                follow = tuple(f"{where}: {key}: " for key in named_after)
                raise MetaError([problem for problem in error.problems if not problem.startswith(follow)]) from None
            raise
        tensors, arrays = {**self.tensors, **new_tensors}, {**self.arrays, **new_arrays}
        try:
            meta, made = _output(layer, tensors, arrays, finish)
        except TraceError:
            raise
        except AccelsimError as error:
            raise TraceError(f"{where}: {error}") from None
        check_layer(layer, {**tensors, output: meta}, {**arrays, **made}, self.tensors)
        self.tensors.update({**new_tensors, output: meta})
        self.arrays.update({**new_arrays, **made})
        self.layers.append(layer)
        return output

    def add_vector(
        self,
        name: str,
        operator: str,
        inputs: Sequence[str | QTensor],
        *,
        output: str | Format,
        scale: float,
        zero_point: int,
        attributes: dict[str, Any],
        output_name: str | None,
        expected: ArrayLike | None,
        reference: ArrayLike | None,
    ) -> str:
        """Add an operator of the vector unit and its output; return the output's name."""
        where = f"layer {name!r}"
        if any(layer.name == name for layer in self.layers):
            raise TraceError(f"{where}: another layer has this name; use a new one, or begin a new TraceBuilder")
        made_name = output_name if output_name is not None else f"{name}.out"
        self._refuse_taken(made_name, where)
        new_tensors: dict[str, TensorMeta] = {}
        new_arrays: Arrays = {}
        names = []
        for position, tensor in enumerate(inputs):
            if isinstance(tensor, str):
                self.shape(tensor, where)
                names.append(tensor)
                continue
            constant = f"{name}.{position}"
            self._refuse_taken(constant, where)
            dims = tuple(f"dim{axis}" for axis in range(len(tensor.shape)))
            new_tensors[constant], arrays = _stored(constant, tensor, dims)
            new_arrays.update(arrays)
            names.append(constant)
        fields = {"name": name, "operator": operator, "inputs": names, "output": made_name, "attributes": attributes}
        layer = checked(lambda: VectorMeta.model_validate(fields), where, VectorMeta)
        number_format, factor = requantized_output(where, output, scale)
        tensors = {**self.tensors, **new_tensors}
        try:
            known = operators.get(operator)
            shapes = [tensors[each].shape for each in names]
            shape = known.output_shape(shapes, known.attributes.model_validate(attributes))
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise TraceError(f"{where}: attributes of {operator}: {place}: {problem['msg']}") from None
        except AccelsimError as error:
            raise TraceError(f"{where}: {error}") from None
        if not shape:
            raise TraceError(f"{where}: {operator} makes a single number without dimensions; keep one (keepdims)")
        dims = tensors[names[0]].dims
        if len(dims) != len(shape):
            dims = (
                input_dims(len(shape))
                if shape[0] == tensors[names[0]].shape[0]
                else tuple(f"dim{i}" for i in range(len(shape)))
            )
        last = None if number_format.blocks is None else len(shape) - 1
        new_tensors[made_name] = TensorMeta(format=number_format.name, dims=dims, shape=shape, block_axis=last)
        parts = _factors(factor, plain_array(zero_point, f"{where}: zero_point"))
        if expected is not None:
            parts["expected"] = narrow_codes(expected, number_format, f"{where}: expected")
        if reference is not None:
            parts["reference"] = _floats(reference, f"{where}: reference")
        new_arrays.update({tensor_array(made_name, part): array for part, array in parts.items()})
        self.tensors.update(new_tensors)
        self.arrays.update(new_arrays)
        self.layers.append(layer)
        return made_name

    def _refuse_taken(self, name: str, where: str) -> None:
        if name in self.tensors:
            raise TraceError(f"{where}: another tensor is named {name!r}; use a new name, or begin a new TraceBuilder")


def _clamp(bounds: tuple[int, int] | None, where: str) -> dict[str, int] | None:
    if bounds is None:
        return None
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise TraceError(f"{where}: clamp={bounds!r} is not a pair of bounds; use (low, high)") from None
    return {"low": low, "high": high}


def _stored(name: str, tensor: QTensor, dims: tuple[str, ...]) -> tuple[TensorMeta, Arrays]:
    if not isinstance(tensor, QTensor):
        raise TraceError(
            f"tensor {name!r}: found a {type(tensor).__name__}, but a QTensor is needed; "
            f"make one with formats.get('int8').quantize(array) or formats.make_qtensor(codes, ...)"
        )
    fields = {
        "format": tensor.format.name,
        "dims": dims,
        "shape": tensor.shape,
        "channel_axis": tensor.channel_axis,
        "block_axis": tensor.block_axis,
    }
    meta = checked(lambda: TensorMeta.model_validate(fields), f"tensor {name!r}", TensorMeta)
    parts: dict[TensorPart, NDArray[Any]] = {
        "codes": narrow_codes(tensor.codes, tensor.format, f"tensor {name!r}"),
        **_factors(tensor.scale, tensor.zero_point),
    }
    if tensor.block_scales is not None:
        parts["block_scales"] = _narrow_block_scales(tensor.block_scales, f"tensor {name!r}: block_scales")
    if tensor.codebook is not None:
        parts["codebook"] = plain_array(tensor.codebook, f"tensor {name!r}: codebook")
    return meta, {tensor_array(name, part): array for part, array in parts.items()}


def _output(
    layer: Layer, tensors: Mapping[str, TensorMeta], arrays: Arrays, finish: Finish
) -> tuple[TensorMeta, Arrays]:
    """Return a layer's output tensor, and its own and its output's arrays."""
    where = f"layer {layer.name!r}"
    second = layer.other if isinstance(layer, MatmulMeta) else layer.weight
    x, w = tensors[layer.input], tensors[second]
    shape = output_shape(layer, x.shape, w.shape)
    x_scale, w_scale = arrays[tensor_array(layer.input, "scale")], arrays[tensor_array(second, "scale")]
    acc_scale = _accumulator_scale(layer, x, w, x_scale, w_scale)
    made: Arrays = {}
    if finish.bias is not None:
        floating = any(formats.get(tensor.format).datapath in FLOATING for tensor in (x, w))
        in_units = real_bias if floating else quantize_bias
        made[layer_array(layer.name, "bias")] = in_units(finish.bias, acc_scale, shape[-1], f"{where}: bias")
    if layer.activation == "threshold":
        if finish.thresholds is None:
            raise TraceError(f"{where}: activation 'threshold' needs thresholds, integers [channels, codes - 1]")
        if layer.rounding is not None:
            raise TraceError(f"{where}: thresholds make the codes; use rounding=None")
        number_format, scale = requantized_output(where, finish.output, finish.scale)
        made[layer_array(layer.name, "thresholds")] = plain_array(finish.thresholds, f"{where}: thresholds")
    elif finish.thresholds is not None:
        raise TraceError(f"{where}: thresholds are given, but activation is {layer.activation!r}; use 'threshold'")
    elif layer.rounding is None:
        number_format, scale = raw_output(where, finish), acc_scale
    else:
        number_format, scale = requantized_output(where, finish.output, finish.scale)
        made.update(requantization(layer, finish, acc_scale, scale))
    channel_axis = len(shape) - 1 if scale.ndim else None
    last = len(shape) - 1 if number_format.blocks is not None else None
    meta = TensorMeta(
        format=number_format.name,
        dims=output_dims(layer, x.dims),
        shape=shape,
        channel_axis=channel_axis,
        block_axis=last,
    )
    zero_point = plain_array(finish.zero_point, f"{where}: zero_point")
    parts = _factors(scale, zero_point)
    if isinstance(finish.expected, QTensor):
        codes: ArrayLike | None = finish.expected.codes
        block_scales: ArrayLike | None = finish.expected.block_scales
    else:
        codes, block_scales = finish.expected, finish.expected_block_scales
    if codes is not None:
        parts["expected"] = narrow_codes(codes, number_format, f"{where}: expected")
    if block_scales is not None:
        parts["expected_block_scales"] = _narrow_block_scales(block_scales, f"{where}: expected_block_scales")
    if finish.reference is not None:
        parts["reference"] = _floats(finish.reference, f"{where}: reference")
    made.update({tensor_array(layer.output, part): array for part, array in parts.items()})
    return meta, made


def _accumulator_scale(
    layer: Layer, x: TensorMeta, w: TensorMeta, x_scale: NDArray[Any], w_scale: NDArray[Any]
) -> NDArray[np.float64]:
    """Return s_input * s_weight, () or (N,)."""
    if x.channel_axis is not None:
        raise ShapeError(f"input {layer.input!r} has per-channel scales, which cannot leave the sum; use one scale")
    channel = channel_axis_of_weight(layer, len(w.shape))
    if w.channel_axis not in (None, channel):
        raise ShapeError(
            f"the weight's scales run along axis {w.channel_axis}; use axis {channel}, that of the output channels"
        )
    return np.asarray(x_scale.astype(np.float64) * w_scale)


def _factors(scale: NDArray[Any], zero_point: NDArray[Any]) -> dict[TensorPart, NDArray[Any]]:
    """Return a tensor's scale and, unless it is zero throughout, its zero point."""
    parts: dict[TensorPart, NDArray[Any]] = {"scale": np.array(scale, np.float64)}
    if np.any(zero_point != 0):
        parts["zero_point"] = np.array(zero_point)
    return parts


def _narrow_block_scales(block_scales: ArrayLike, what: str) -> NDArray[Any]:
    array = plain_array(block_scales, what)
    small = array.dtype.kind != "f" and array.size and int(array.min()) >= 0 and int(array.max()) < 1 << 16
    return plain_array(array.astype(np.uint16), what) if small else array


def _floats(values: ArrayLike, what: str) -> NDArray[Any]:
    array = plain_array(values, what)
    return array if array.dtype.kind == "f" else plain_array(array.astype(np.float64), what)
