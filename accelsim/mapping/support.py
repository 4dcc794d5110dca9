"""Does the hardware have what a layer needs? If not, one message that names both sides."""

from __future__ import annotations

from typing import Literal

from accelsim.config.model import HardwareConfig
from accelsim.errors import UnsupportedLayerError
from accelsim.formats.spec import Datapath, QTensor
from accelsim.trace.schema import Conv2dMeta, Layer
from accelsim.trace.shapes import reduction_axis_of_weight

MAX_PORT_BITS = 16
DATAPATHS: tuple[Datapath, ...] = ("integer", "block_integer")
"""The arithmetic that PE arrays can be configured for."""


def check_supported(layer: Layer, x: QTensor, weight: QTensor, config: HardwareConfig) -> None:
    """Raise UnsupportedLayerError, naming the layer, what it needs and what the configuration has.

    x, weight : the operands of the activation and the weight port (of a matrix product: the two activations)
    """
    _check_datapath(layer, "activations", x, config)
    _check_datapath(layer, "weights", weight, config)
    _check_port(layer, "activation", x, config)
    _check_port(layer, "weight", weight, config)
    _check_blocks(layer, x, weight, config)


def _check_datapath(layer: Layer, what: str, tensor: QTensor, config: HardwareConfig) -> None:
    needed = tensor.format.datapath
    if needed not in DATAPATHS:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} needs a {needed} datapath for {what} in {tensor.format.name}, but the PE array of "
            f"{config.name!r} multiplies integers (datapaths {', '.join(DATAPATHS)}); quantize the tensor to an "
            f"integer or a VSQ format, such as int8 or vsq4"
        )


def _check_port(
    layer: Layer, operand: Literal["activation", "weight"], tensor: QTensor, config: HardwareConfig
) -> None:
    port, form = getattr(config.array, operand), tensor.format
    if port.accepts(form.low, form.high):
        return
    key = f"array.{operand}"
    bits = form.lane_bits + (port.sign == "signed" and form.low >= 0)  # an unsigned code needs a sign bit more
    if port.sign == "unsigned" and form.low < 0:
        remedy = f"set {key}.sign to 'either' or 'signed'"
    elif bits <= MAX_PORT_BITS:
        remedy = f"set {key}.bits to {bits} or more, or quantize the tensor to fewer bits"
    else:
        remedy = f"quantize the tensor to fewer bits: the widest port has {MAX_PORT_BITS}"
    sign = "" if port.sign == "either" else f"{port.sign} "
    raise UnsupportedLayerError(
        f"layer {layer.name!r} needs {operand}s in {form.name} ({form.low}..{form.high}), but the configuration "
        f"{config.name!r} has {sign}{port.bits}-bit {operand} ports; {remedy}"
    )


def _check_blocks(layer: Layer, x: QTensor, weight: QTensor, config: HardwareConfig) -> None:
    x_blocks, w_blocks = x.format.blocks, weight.format.blocks
    if x_blocks is None and w_blocks is None:
        return
    where = f"layer {layer.name!r}"
    if x_blocks is None or w_blocks is None or x_blocks.size != w_blocks.size:
        raise UnsupportedLayerError(
            f"{where} multiplies {x.format.name} activations by {weight.format.name} weights; both must have block "
            f"scales over vectors of one size"
        )
    unit = config.array.scale_unit
    if unit is None:
        raise UnsupportedLayerError(
            f"{where} needs block-scale units for {weight.format.name} weights, but the configuration {config.name!r} "
            f"has array.scale_unit: null; add a scale_unit section"
        )
    for what, bits, have, key in (
        ("activation", x_blocks.scale_bits, unit.activation_scale_bits, "activation_scale_bits"),
        ("weight", w_blocks.scale_bits, unit.weight_scale_bits, "weight_scale_bits"),
    ):
        if bits > have:
            raise UnsupportedLayerError(
                f"{where} has {bits}-bit {what} scales, but the configuration {config.name!r} has {have}-bit ones; set "
                f"array.scale_unit.{key} to {bits} or more"
            )
    if isinstance(layer, Conv2dMeta) and layer.groups > 1 and weight.shape[-1] % w_blocks.size:
        raise UnsupportedLayerError(
            f"{where} has {weight.shape[-1]} input channels a group, but its scale vectors hold {w_blocks.size}: a "
            f"vector would span groups; use a vector size that divides {weight.shape[-1]}, or integers for this layer"
        )
    for tensor, what, axis in (
        (x, "activations", len(x.shape) - 1),
        (weight, "the second operand", reduction_axis_of_weight(layer, len(weight.shape))),
    ):
        if tensor.block_axis != axis:
            raise UnsupportedLayerError(
                f"{where} has blocks of {what} along axis {tensor.block_axis}, but it sums over axis {axis}; block "
                f"along that axis"
            )
