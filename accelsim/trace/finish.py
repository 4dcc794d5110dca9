"""What becomes of a layer's accumulators while a trace is built: the output's format and scale, the factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim import formats
from accelsim.errors import FormatError, TraceError
from accelsim.formats import Format, QTensor
from accelsim.formats.fixed_point import scale_of_output
from accelsim.trace.factors import plain_array
from accelsim.trace.schema import Layer
from accelsim.trace.slots import layer_array

Arrays = dict[str, NDArray[Any]]
RAW_FORMAT = "int32"


@dataclass(frozen=True)
class Finish:
    """What happens to a layer's accumulators; TraceBuilder's docstring says what each field is."""

    bias: ArrayLike | None
    output: str | Format | None
    scale: float | None
    zero_point: int
    output_name: str | None
    rounding: str | None
    activation: str
    clamp: tuple[int, int] | None
    requantization_scale: ArrayLike | None
    multiplier: ArrayLike | None
    shift: ArrayLike | None
    expected: ArrayLike | QTensor | None
    expected_block_scales: ArrayLike | None
    reference: ArrayLike | None
    thresholds: ArrayLike | None


def raw_output(where: str, finish: Finish) -> Format:
    """Return the format in which raw accumulators leave; TraceError where the user asks for a requantization too."""
    for what, value in (
        ("scale", finish.scale),
        ("zero_point", finish.zero_point or None),
        ("requantization_scale", finish.requantization_scale),
        ("multiplier", finish.multiplier),
        ("shift", finish.shift),
    ):
        if value is not None:
            raise TraceError(
                f"{where}: {what} is given, but rounding=None lets raw accumulators leave, in units of "
                f"s_input * s_weight; leave it out, or name a rounding rule"
            )
    return _format(RAW_FORMAT if finish.output is None else finish.output)


def requantized_output(
    where: str, output: str | Format | None, factor: float | None
) -> tuple[Format, NDArray[np.float64]]:
    """Return an output's format and scale; TraceError where one is missing, or they do not go together."""
    form = None if output is None else _format(output)
    if form is not None and factor is None:
        factor = scale_of_output(form, None)
    if form is None or factor is None:
        raise TraceError(
            f"{where}: say the output's number format and scale, e.g. output='int8', scale=0.05; "
            f"or rounding=None to let raw accumulators leave"
        )
    scale = plain_array(factor, f"{where}: scale").astype(np.float64)
    if scale.shape != () or not (np.isfinite(scale) and scale > 0):
        raise TraceError(f"{where}: scale={factor!r}; the output's scale is one finite number greater than 0")
    try:
        scale_of_output(form, float(scale))
    except FormatError as error:
        raise TraceError(f"{where}: output: {error}") from None
    return form, scale


def requantization(layer: Layer, finish: Finish, acc_scale: NDArray[np.float64], scale: NDArray[np.float64]) -> Arrays:
    """Return the arrays of a layer's requantization factors; TraceError where they are not usable numbers."""
    where = f"layer {layer.name!r}"
    made: Arrays = {}
    if finish.multiplier is not None:
        made[layer_array(layer.name, "multiplier")] = plain_array(finish.multiplier, f"{where}: multiplier")
    if finish.shift is not None:
        made[layer_array(layer.name, "shift")] = plain_array(finish.shift, f"{where}: shift")
    if finish.requantization_scale is not None:
        given = plain_array(finish.requantization_scale, f"{where}: requantization_scale")
        made[layer_array(layer.name, "scale")] = given.astype(np.float64)
    elif not made:
        with np.errstate(over="ignore", under="ignore"):
            factor = acc_scale / scale
        if not np.all(np.isfinite(factor) & (factor > 0)):
            raise TraceError(
                f"{where}: s_input * s_weight / scale = {factor.flat[0]} is not a positive finite number; "
                f"the scales are too far apart"
            )
        made[layer_array(layer.name, "scale")] = np.asarray(factor)
    return made


def _format(chosen: str | Format) -> Format:
    return formats.get(chosen) if isinstance(chosen, str) else chosen
