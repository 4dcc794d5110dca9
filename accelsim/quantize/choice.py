"""Questions that the quantizer has about a format, answered from what the format says of itself."""

from __future__ import annotations

import dataclasses

from accelsim.errors import NetworkError
from accelsim.formats import Format
from accelsim.formats.spec import FLOATING


def fitting(form: Format, *, non_negative: bool, zero_points: bool) -> Format:
    """Return the format, or its twin of the other sign where that one serves the values better.

    non_negative : the values have no sign, so that an unsigned format has a bit more for them
    zero_points : the values may be encoded with a zero point; an unsigned format can then hold negative ones

    Formats without such a twin (MX, floats, binary...) are returned as they are.
    """
    if non_negative:
        return _twin(form, signed=False)
    if zero_points and form.zero_points != (0, 0):
        return form
    return _twin(form, signed=True)


def _twin(form: Format, *, signed: bool) -> Format:
    if not dataclasses.is_dataclass(form) or isinstance(form, type):
        return form
    fields = {field.name for field in dataclasses.fields(form)}
    if "signed" not in fields or getattr(form, "signed") == signed:  # noqa: B009 (the protocol does not promise it)
        return form
    changes: dict[str, bool] = {"signed": signed}
    if "narrow" in fields:
        changes["narrow"] = False  # an unsigned range has no symmetric form
    return dataclasses.replace(form, **changes)


def is_cast(form: Format) -> bool:
    """Return whether values are cast to the format as they are, with scale 1: 16-bit floats reach far enough. Scaled up
    to the end of their range, their products would leave float32.
    """
    return form.datapath == "float" and form.code_bits >= 16


def can_have_channel_scales(form: Format) -> bool:
    """Return whether weights take a coarse scale per output channel: not where a codebook serves the whole tensor, nor
    where the definition has one number above its blocks (NVFP4) or none (MX, casts).
    """
    return form.datapath not in ("codebook", "block_float") and not is_cast(form)


def check_pair(layer: str, weights: Format, activations: Format) -> None:
    """Raise NetworkError where no machine multiplies weights of one format by activations of the other."""
    both = (weights, activations)
    sizes = [form.blocks.size for form in both if form.blocks is not None]
    vsq = [form.datapath == "block_integer" for form in both]
    if all(vsq) and sizes[0] == sizes[1]:
        return
    if any(vsq):
        rule = "VSQ's integer scales go with VSQ of the same vector size on the other side, and with nothing else"
    elif len(set(sizes)) > 1:
        rule = "formats with blocks go with the same block size, or with a format without blocks"
    elif len(sizes) == 1 and not any(form.datapath in FLOATING for form in both):
        rule = "these blocks of integers go with blocks of the same size"
    else:
        return
    raise NetworkError(
        f"layer {layer!r}: no machine multiplies {weights.name} weights by {activations.name} activations: {rule}; "
        f"give the layer one format for both, such as {weights.name}/{_partner(weights)}, or "
        f"{_partner(activations)}/{activations.name}"
    )


def _partner(form: Format) -> str:
    """Return the name of a format that goes with one: itself, for codebooks and plain integers int8."""
    return form.name if form.blocks is not None else "int8"
