"""What every layer of a network asks of the machine, from shapes and formats alone: no code of a tensor is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.config.model import HardwareConfig
from accelsim.errors import AccelsimError, UnsupportedLayerError
from accelsim.formats.spec import QTensor
from accelsim.mapping.contract import GemmShape, LayerPlan
from accelsim.mapping.plan import MOST_MACS, check_size, plan_layer
from accelsim.mapping.support import block_size, check_supported, is_floating, product_of, summation_of
from accelsim.mapping.vector import vector_cycles
from accelsim.memory.contract import LayerNeeds, TensorNeed, Windows
from accelsim.operators.registry import get as get_operator
from accelsim.operators.spec import TensorSpec, Work
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta, MatmulMeta, TensorMeta, TraceMeta, VectorMeta
from accelsim.trace.shapes import output_shape, weight_name
from accelsim.trace.slots import LayerPart, layer_array
from accelsim.trace.summary import size_bits

PARAMETERS: tuple[LayerPart, ...] = ("bias", "scale", "multiplier", "thresholds")
SHIFT_BITS = 6
"""A requantization shift as accelerators store it: 0 to 63."""


@dataclass(frozen=True)
class NetworkShapes:
    """A network without its numbers.

    meta : the graph
    zero_points : by tensor, int64 () or (C,); absent: 0. Whether there are any decides if a sum is measured beside the
        products (docs/numerics.md, section 2.2)
    scales : by tensor, float64 (); absent: 1. Operators of the vector unit may need not rescale where they agree
    parameters : by name of the array (accelsim.trace.slots), shapes of biases, factors and thresholds; None: unknown,
        and each layer is taken to have one bias and one factor for each output channel
    """

    meta: TraceMeta
    zero_points: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, tuple[int, ...]] | None = None

    @classmethod
    def of(cls, trace: Trace) -> NetworkShapes:
        """Return the shapes of a trace, with the zero points and scales that its arrays hold."""
        zero_points, scales = {}, {}
        for name in trace.meta.tensors:
            scale, zero_points[name] = trace.factors(name)
            if scale.ndim == 0:
                scales[name] = float(scale)
        parameters = {}
        for layer in trace.layers:
            for part in PARAMETERS:
                shape = trace.array_shape(layer_array(layer.name, part))
                if shape is not None:
                    parameters[layer_array(layer.name, part)] = shape
        return cls(trace.meta, zero_points, scales, parameters)


def network_needs(network: Trace | NetworkShapes, config: HardwareConfig) -> list[LayerNeeds]:
    """Return what each layer of a network needs, in the order of computation.

    Raises UnsupportedLayerError where the hardware lacks what a layer needs, ShapeError where shapes do not fit.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> needs = network_needs(trace, accelsim.load_config("configs/int8_ws.yaml"))
    >>> [(need.name, need.weight.bits) for need in needs]  # 8 bits a weight
    [('conv1', 1152), ('conv2', 36864), ('fc1', 262144), ('fc2', 5120)]
    """
    shapes = NetworkShapes.of(network) if isinstance(network, Trace) else network
    results = set(shapes.meta.outputs)
    plans: dict[str, LayerPlan] = {}  # layers of one shape, of which transformers have many, share a plan
    needs = []
    for layer in shapes.meta.layers:
        leaves = layer.output in results
        if isinstance(layer, VectorMeta):
            needs.append(_vector_needs(layer, shapes, config, leaves))
            continue
        kind = _kind(layer, shapes)
        if kind not in plans:
            plans[kind] = layer_plan(layer, shapes, config)
        needs.append(_layer_needs(layer, shapes, config, leaves, plans[kind]))
    return needs


def _kind(layer: Layer, shapes: NetworkShapes) -> str:
    """Return what a layer's plan follows from, as text: equal for layers that are equal but for their names."""
    own = layer.model_dump_json(exclude={"name", "input", "output", "weight", "other"})
    tensors = [
        (shapes.meta.tensors[name], bool(shapes.zero_points.get(name, np.zeros((), np.int64)).any()))
        for name in (layer.input, weight_name(layer), layer.output)
    ]
    return f"{own} {tensors}"


def layer_plan(layer: Layer, shapes: NetworkShapes, config: HardwareConfig) -> LayerPlan:
    """Return the plan that the layer's operands, once lowered, will have."""
    for name in (layer.input, weight_name(layer)):
        if math.prod(shapes.meta.tensors[name].shape) > MOST_MACS:
            raise UnsupportedLayerError(
                f"layer {layer.name!r}: {name} has {math.prod(shapes.meta.tensors[name].shape):,} elements; use up to "
                f"{MOST_MACS:,}, or cut the layer into smaller ones"
            )
    x, weight = _phantom(layer.input, shapes), _phantom(weight_name(layer), shapes)
    check_supported(layer, x, weight, config)
    size = block_size(x, weight)
    shape, taps, channels = _gemm_shape(layer, x, weight, size)
    check_size(shape, config, 1, f"layer {layer.name!r}")
    completed = channels + (-channels % size if size else 0)
    of_each = (x.format.blocks, weight.format.blocks)
    scale_bits = [0 if blocks is None else blocks.scale_bits for blocks in of_each]
    significand_bits = 0
    if size and is_floating(x, weight):
        significand_bits = max(blocks.significand_bits for blocks in of_each if blocks is not None)
    spans = [form.exponent_range[1] - form.exponent_range[0] for form in (x.format, weight.format)]
    return plan_layer(
        shape,
        config,
        a_bits=x.format.lane_bits,
        w_bits=weight.format.lane_bits,
        k_valid=np.tile(np.arange(completed) < channels, taps),
        block_size=size,
        a_scale_bits=scale_bits[0],
        w_scale_bits=scale_bits[1],
        significand_bits=significand_bits,
        product=product_of(layer, x, weight, config),
        a_code_bits=x.format.code_bits,
        w_code_bits=weight.format.code_bits,
        summation=summation_of(x, weight, config),
        exponent_spans=(spans[0], spans[1]),
        layer=f"layer {layer.name!r}",
    )


def _layer_needs(
    layer: Layer, shapes: NetworkShapes, config: HardwareConfig, leaves: bool, plan: LayerPlan
) -> LayerNeeds:
    tensors = shapes.meta.tensors
    constant = not isinstance(layer, MatmulMeta)
    second = _tensor(weight_name(layer), tensors)
    inputs = (_tensor(layer.input, tensors), *(() if constant else (second,)))
    shared = (1, 1)
    if not constant:
        lead = [math.prod(tensors[tensor.name].shape[:-2]) for tensor in inputs]
        shared = (plan.shape.batch // lead[0], plan.shape.batch // lead[1])
    return LayerNeeds(
        name=layer.name,
        plan=plan,
        inputs=inputs,
        weight=second if constant else None,
        parameter_bits=parameter_bits(layer, shapes, config),
        output=_tensor(layer.output, tensors),
        windows=_windows(layer, tensors) if isinstance(layer, Conv2dMeta) else None,
        shared=shared,
        output_leaves=leaves,
    )


def vector_work(layer: VectorMeta, shapes: NetworkShapes) -> Work:
    """Return what an operator asks of the vector unit. Raises AccelsimError, which names the layer."""
    operator = get_operator(layer.operator)
    attributes = operator.attributes.model_validate(layer.attributes)
    try:
        return operator.work([_spec(name, shapes) for name in layer.inputs], _spec(layer.output, shapes), attributes)
    except AccelsimError as error:
        raise type(error)(f"layer {layer.name!r}: {error}") from None


def _vector_needs(layer: VectorMeta, shapes: NetworkShapes, config: HardwareConfig, leaves: bool) -> LayerNeeds:
    work = vector_work(layer, shapes)
    return LayerNeeds(
        name=layer.name,
        plan=None,
        inputs=tuple(_tensor(name, shapes.meta.tensors) for name in layer.inputs),
        weight=None,
        parameter_bits=0,
        output=_tensor(layer.output, shapes.meta.tensors),
        vector_cycles=vector_cycles(work, config),
        vector_passes=work.passes,
        output_leaves=leaves,
    )


def parameter_bits(layer: Layer, shapes: NetworkShapes, config: HardwareConfig) -> int:
    """Return the stored bits of what a layer has besides its tensors: biases, requantization multipliers and shifts,
    thresholds.
    """
    if shapes.parameters is None:
        channels = shapes.meta.tensors[layer.output].shape[-1]
        factors = 0 if layer.rounding is None else config.ppu.multiplier_bits + SHIFT_BITS
        return channels * (config.accumulator.bits + factors)

    def count(part: LayerPart) -> int:
        shape = shapes.parameters.get(layer_array(layer.name, part)) if shapes.parameters else None
        return 0 if shape is None else math.prod(shape)

    factors = count("scale") or count("multiplier")
    bits = (count("bias") + count("thresholds")) * config.accumulator.bits
    return bits + factors * (config.ppu.multiplier_bits + SHIFT_BITS)


def _gemm_shape(layer: Layer, x: QTensor, weight: QTensor, size: int) -> tuple[GemmShape, int, int]:
    """Return (GEMMs, kernel taps, channels of a tap), as accelsim.mapping.lower makes them."""
    out, taps, channels = output_shape(layer, x.shape, weight.shape), 1, weight.shape[-1]
    if isinstance(layer, Conv2dMeta):
        taps = weight.shape[1] * weight.shape[2]
        batch, m, n = layer.groups, math.prod(out[:-1]), out[-1] // layer.groups
    elif isinstance(layer, LinearMeta):
        batch, m, n = 1, math.prod(out[:-1]), out[-1]
    else:
        channels = x.shape[-1]
        batch, m, n = math.prod(out[:-2]), out[-2], out[-1]
    m += isinstance(layer, MatmulMeta) and bool(x.zero_point.any())  # rows and columns of ones (mapping.zero_points)
    n += bool(weight.zero_point.any())
    k = taps * (channels + (-channels % size if size else 0))
    return GemmShape(batch, m, k, n), taps, channels


def _windows(layer: Conv2dMeta, tensors: Mapping[str, TensorMeta]) -> Windows:
    x, weight, out = tensors[layer.input].shape, tensors[layer.weight].shape, tensors[layer.output].shape
    return Windows(
        images=x[0],
        height=x[1],
        width=x[2],
        out_height=out[1],
        out_width=out[2],
        kernel=(weight[1], weight[2]),
        stride=layer.stride,
        padding=(layer.padding[0][0], layer.padding[1][0]),
        dilation=layer.dilation,
    )


def _tensor(name: str, tensors: Mapping[str, TensorMeta]) -> TensorNeed:
    return TensorNeed(name, size_bits(tensors[name]))


def _phantom(name: str, shapes: NetworkShapes) -> QTensor:
    """Return a tensor without codes: what the checks look at is its shape, format and zero point."""
    meta = shapes.meta.tensors[name]
    return QTensor(
        codes=np.broadcast_to(np.int32(0), meta.shape),
        format=formats.get(meta.format),
        scale=np.ones(()),
        zero_point=shapes.zero_points.get(name, np.zeros((), np.int64)),
        channel_axis=meta.channel_axis,
        block_axis=meta.block_axis,
    )


def _spec(name: str, shapes: NetworkShapes) -> TensorSpec:
    meta = shapes.meta.tensors[name]
    zero_point = shapes.zero_points.get(name, np.zeros((), np.int64))
    return TensorSpec(meta.shape, formats.get(meta.format), shapes.scales.get(name, 1.0), int(zero_point.flat[0]))
