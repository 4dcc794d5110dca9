"""Does the hardware have what a layer needs? If not, one message that names both sides."""

from __future__ import annotations

from typing import Literal

from accelsim.config.model import HardwareConfig, Port
from accelsim.errors import UnsupportedLayerError
from accelsim.formats.spec import FLOATING, Format, QTensor
from accelsim.mapping.contract import INTEGERS, Product, Summation
from accelsim.trace.schema import Conv2dMeta, Layer, LinearMeta
from accelsim.trace.shapes import reduction_axis_of_weight

MAX_PORT_BITS = 16
MAX_LANE_BITS = 31  # a lane on the common grid is an int32
MAX_DOT_BITS = 62  # exact sums are int64, with room for one more addend


def check_supported(layer: Layer, x: QTensor, weight: QTensor, config: HardwareConfig) -> None:
    """Raise UnsupportedLayerError, naming the layer, what it needs and what the configuration has.

    x, weight : the operands of the activation and the weight port (of a matrix product: the two activations)
    """
    if is_floating(x, weight):
        _check_floats(layer, x, weight, config)
    product = product_of(layer, x, weight, config)
    if product != "xnor":
        _check_port(layer, "activation", x, config)
        if product not in ("accumulate", "shift"):
            _check_port(layer, "weight", weight, config)
    _check_blocks(layer, x, weight, config)
    _check_padding(layer, product, x, config)


def is_floating(x: QTensor, weight: QTensor) -> bool:
    """Return whether a product of these two is summed with exponents."""
    return bool({x.format.datapath, weight.format.datapath} & FLOATING)


def summation_of(x: QTensor, weight: QTensor, config: HardwareConfig) -> Summation:
    """Return how the configured PEs sum products of these two."""
    unit = config.array.float_unit
    if not is_floating(x, weight) or unit is None:
        return INTEGERS
    exact = unit.align_bits is None
    return Summation(
        kind=unit.accumulate,
        lsb_exponent=-unit.fraction_bits if unit.accumulate == "fixed" else 0,
        rounding=unit.rounding if unit.accumulate == "fixed" else "truncate",
        unit_exponent=x.format.exponent_range[0] + weight.format.exponent_range[0] if exact else 0,
        align_bits=unit.align_bits,
    )


def product_of(layer: Layer, x: QTensor, weight: QTensor, config: HardwareConfig) -> Product:
    """Return how the configured PEs make the products; UnsupportedLayerError where they cannot."""
    where, array = f"layer {layer.name!r}", config.array
    if x.format.datapath == "codebook":
        raise UnsupportedLayerError(
            f"{where} has activations in {x.format.name}, a codebook's indices, but only weights can be looked up; "
            f"quantize the activations to integers or floats"
        )
    if weight.format.datapath == "codebook":
        unit = array.codebook
        if unit is None or unit.index_bits < weight.format.code_bits:
            have = "array.codebook: null" if unit is None else f"decoders of {unit.index_bits}-bit indices"
            raise UnsupportedLayerError(
                f"{where} needs decoders of {weight.format.code_bits}-bit indices for weights in "
                f"{weight.format.name}, but the configuration {config.name!r} has {have}; set "
                f"array.codebook.index_bits to {weight.format.code_bits} or more"
            )
        if array.multiplier.kind == "shift":
            raise _no_shift(where, weight.format, config)
        return "lookup" if unit.mode == "decode" else "accumulate"
    if x.format.datapath == weight.format.datapath == "binary" and array.popcount is not None:
        return "xnor"
    if array.multiplier.kind == "shift":
        if weight.format.datapath != "shift" and weight.format.high > 1:
            raise _no_shift(where, weight.format, config)
        return "shift"
    return "multiply"


def _no_shift(where: str, weight: Format, config: HardwareConfig) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        f"{where} has weights in {weight.name}, but the PEs of {config.name!r} shift (array.multiplier.kind: shift), "
        f"which multiplies by powers of two only; quantize the weights to po2_4, ternary or binary, or use kind "
        f"parallel"
    )


def _check_port(
    layer: Layer, operand: Literal["activation", "weight"], tensor: QTensor, config: HardwareConfig
) -> None:
    port: Port = getattr(config.array, operand)
    form = tensor.format
    # A fusing multiplier works wide operands off in pieces.
    widest = port.model_copy(update={"bits": MAX_PORT_BITS}) if config.array.multiplier.kind == "fusion" else port
    if widest.accepts(form.low, form.high):
        return
    key = f"array.{operand}"
    # An unsigned code needs a sign bit more; so does the +1 of a binary one.
    bits = max(form.lane_bits + (port.sign == "signed" and form.low >= 0), 2)
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


def _check_floats(layer: Layer, x: QTensor, weight: QTensor, config: HardwareConfig) -> None:
    where, unit = f"layer {layer.name!r}", config.array.float_unit
    names = f"{x.format.name} activations by {weight.format.name} weights"
    if unit is None:
        raise UnsupportedLayerError(
            f"{where} multiplies {names}, which have exponents, but the configuration {config.name!r} has "
            f"array.float_unit: null; add a float_unit section, or quantize the layer to integers or VSQ"
        )
    if "block_integer" in (x.format.datapath, weight.format.datapath):
        raise UnsupportedLayerError(
            f"{where} multiplies {names}; a VSQ operand's integer scales do not meet exponents: use VSQ for both, or "
            f"for neither"
        )
    for what, tensor in (("activations", x), ("weights", weight)):
        if tensor.zero_point.any():
            raise UnsupportedLayerError(
                f"{where} multiplies {names}, and the {what} have a zero point; in a sum of floats it cannot be "
                f"corrected: quantize them symmetrically"
            )
    if unit.align_bits is not None:
        return
    for tensor in (x, weight):
        low, high = tensor.format.exponent_range
        if tensor.format.high.bit_length() + high - low > MAX_LANE_BITS:
            raise _too_wide(where, f"{tensor.format.name} spans {high - low} binades")
    bits = _exact_bits(x, weight, config)
    if bits > MAX_DOT_BITS:
        raise _too_wide(where, f"exact sums of {names} need {bits} bits")


def _exact_bits(x: QTensor, weight: QTensor, config: HardwareConfig) -> int:
    """Return the bits of an exact sum of products on the common grid."""
    spans = [form.exponent_range[1] - form.exponent_range[0] for form in (x.format, weight.format)]
    size = max(block_size(x, weight), config.array.lanes)
    return x.format.lane_bits + weight.format.lane_bits + sum(spans) + (size - 1).bit_length()


def _too_wide(where: str, what: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        f"{where}: {what}, too many to be summed exactly ({MAX_DOT_BITS} bits); set array.float_unit.align_bits, so "
        f"that the products of a step are aligned to the largest one and truncated (24 loses little)"
    )


def block_size(x: QTensor, weight: QTensor) -> int:
    """Return the elements that share a scale in a product of these two; 0 where neither has blocks."""
    return max((tensor.format.blocks.size for tensor in (x, weight) if tensor.format.blocks is not None), default=0)


def _check_blocks(layer: Layer, x: QTensor, weight: QTensor, config: HardwareConfig) -> None:
    x_blocks, w_blocks = x.format.blocks, weight.format.blocks
    if x_blocks is None and w_blocks is None:
        return
    where = f"layer {layer.name!r}"
    one_alone = x_blocks is None or w_blocks is None
    if (one_alone and not is_floating(x, weight)) or (
        x_blocks is not None and w_blocks is not None and x_blocks.size != w_blocks.size
    ):
        raise UnsupportedLayerError(
            f"{where} multiplies {x.format.name} activations by {weight.format.name} weights; both must have block "
            f"scales over vectors of one size"
        )
    if not is_floating(x, weight):
        _check_scale_unit(where, x, weight, config)
    _check_alignment(layer, x, weight)
    for tensor, what, axis in (
        (x, "activations", len(x.shape) - 1),
        (weight, "the second operand", reduction_axis_of_weight(layer, len(weight.shape))),
    ):
        if tensor.block_axis not in (None, axis):
            raise UnsupportedLayerError(
                f"{where} has blocks of {what} along axis {tensor.block_axis}, but it sums over axis {axis}; block "
                f"along that axis"
            )


def _check_scale_unit(where: str, x: QTensor, weight: QTensor, config: HardwareConfig) -> None:
    unit, x_blocks, w_blocks = config.array.scale_unit, x.format.blocks, weight.format.blocks
    assert x_blocks is not None  # _check_blocks saw to both
    assert w_blocks is not None
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


def _check_alignment(layer: Layer, x: QTensor, weight: QTensor) -> None:
    """A block of the input must not straddle what the lowering takes apart (groups) or joins (flattening)."""
    where, blocks = f"layer {layer.name!r}", x.format.blocks
    if blocks is None:
        return  # the weight's own blocks begin anew in every group
    if isinstance(layer, Conv2dMeta) and layer.groups > 1 and weight.shape[-1] % blocks.size:
        raise UnsupportedLayerError(
            f"{where} has {weight.shape[-1]} input channels a group, but its scale vectors hold {blocks.size}: a "
            f"vector would span groups; use a vector size that divides {weight.shape[-1]}, or integers for this layer"
        )
    if isinstance(layer, LinearMeta) and layer.flatten and x.shape[-1] % blocks.size and len(x.shape) > 2:
        raise UnsupportedLayerError(
            f"{where} flattens {x.shape[-1]} channels, but scale vectors hold {blocks.size}: the vectors of "
            f"input and weight would not line up; use a vector size that divides {x.shape[-1]}"
        )


def _check_padding(layer: Layer, product: Product, x: QTensor, config: HardwareConfig) -> None:
    """A word of bits has no zero to pad with."""
    unit = config.array.popcount
    if product != "xnor" or unit is None or not isinstance(layer, Conv2dMeta):
        return
    padded = any(side for axis in layer.padding for side in axis)
    if padded and layer.pad_value == 0 and unit.zero_padding == "refuse":
        raise UnsupportedLayerError(
            f"layer {layer.name!r} pads {x.format.name} activations with zeros, but the words of {config.name!r} hold "
            f"only +1 and -1 (array.popcount.zero_padding: refuse); pad with ones (pad_value: 1 or -1), or set "
            f"zero_padding to 'correct'"
        )
