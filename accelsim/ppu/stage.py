"""What a layer asks of the post-processing unit, which of its three ways it takes, and what no PPU could do.

integers : round, add the zero point, activate, limit; VSQ vectors too (accelsim.ppu.pipeline)
floats : scale in float32, activate, encode to a format whose codes are not integers (accelsim.ppu.float_output)
comparators : compare the accumulator with thresholds, or with 0 (accelsim.ppu.thresholds)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import Ppu
from accelsim.errors import FormatError, did_you_mean
from accelsim.formats.mixins import CodesAreLanes
from accelsim.formats.spec import Format
from accelsim.ppu.float_encoders import FLOAT_ENCODERS
from accelsim.ppu.thresholds import check_thresholds

Int64Array = NDArray[np.int64]
OutputPath = Literal["integers", "floats", "comparators"]

ACTIVATIONS = ("none", "relu", "relu6", "clamp", "threshold")
FLOAT_RULE = "float32_half_even"
"""The one rule that scales in float32, which is what floats need."""
FLOAT_FORMATS = tuple(FLOAT_ENCODERS)
"""Formats that the PPU encodes from float32 numbers."""
_MAX_VSQ_ELEMENT_BITS = 16


def _zero() -> Int64Array:
    return np.zeros((), np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputStage:
    """What one layer asks of the PPU. Arrays are () for all channels, or (N,).

    rounding : the layer's rule; None: raw accumulators leave (into a format intN), only activated and limited. What
        only compares (thresholds, binary outputs) needs none
    scale : float64, accumulator scale / output scale; or None where `multiplier` and `shift` say it in integers
    multiplier, shift : int64, scale = multiplier / 2**shift; or None
    format : the output's number format
    zero_point : int64, the output's; 0 for formats without zero points
    output_scale : float64, the output's scale (formats with blocks: the coarse scale, of shape ()); ReLU6 needs it
    activation : "none", "relu", "relu6", "clamp" or "threshold"
    clamp : inclusive bounds of "clamp", in output codes
    acc_shift : the accumulators are in units of 2**acc_shift (VSQ scale products whose low bits were dropped;
        fixed-point sums of floats: Summation.lsb_exponent, mostly negative)
    thresholds : int64 [N, T], or [T] for all channels, each row ascending; with ``activation="threshold"`` (FINN), and
        without rounding, scale and zero point: ``code = format.code_low + how many thresholds of the channel are less
        than the accumulator`` (counted from the other end where the format's values fall with the codes)
    """

    rounding: str | None
    format: Format
    scale: NDArray[np.float64] | None = None
    multiplier: Int64Array | None = None
    shift: Int64Array | None = None
    zero_point: Int64Array = field(default_factory=_zero)
    output_scale: NDArray[np.float64] | None = None
    activation: str = "none"
    clamp: tuple[int, int] | None = None
    acc_shift: int = 0
    thresholds: Int64Array | None = None


def rule_in_force(requested: str | None, ppu: Ppu) -> str | None:
    """Return the rule that the silicon uses for a layer that asks for `requested`; None: raw accumulators leave."""
    return requested if requested is None or ppu.rounding == "trace" else ppu.rounding


def output_path(stage: OutputStage) -> OutputPath:
    """Return which way the outputs take; FormatError where no PPU can emit the format."""
    output_format = stage.format
    if stage.activation == "threshold" or output_format.datapath == "binary":
        return "comparators"
    if isinstance(output_format, CodesAreLanes) and output_format.datapath in ("integer", "block_integer"):
        return "integers"
    if isinstance(output_format, FLOAT_FORMATS):
        return "floats"
    name = output_format.name
    if output_format.datapath == "codebook":
        raise FormatError(
            f"the PPU cannot emit {name}: its codes stand for the values of a table that is fitted to the whole "
            f"tensor, and a PPU sees one output at a time; choose an output format such as int8, and use {name} for "
            f"weights"
        )
    raise FormatError(
        f"the PPU cannot emit {name}: of block scales it makes one level of integers (VSQ), and those of OCP MX, "
        f"microexponents and NVFP4; choose an output format such as vsq4 or mx6"
    )


def check_stage(stage: OutputStage, ppu: Ppu, *, float_acc: bool) -> OutputPath:
    """Return the way of the outputs; raise FormatError for what no PPU could do.

    float_acc : the accumulators are float32
    """
    if stage.activation not in ACTIVATIONS:
        near = did_you_mean(stage.activation, ACTIVATIONS)
        raise FormatError(f"activation={stage.activation!r} is unknown{near}; use one of {', '.join(ACTIVATIONS)}")
    if (stage.activation == "clamp") != (stage.clamp is not None):
        raise FormatError(f"activation={stage.activation!r} with clamp={stage.clamp}: 'clamp', and only it, has bounds")
    if stage.clamp is not None and stage.clamp[0] > stage.clamp[1]:
        raise FormatError(f"clamp={stage.clamp}: the lower bound exceeds the upper one")
    if (stage.activation == "threshold") != (stage.thresholds is not None):
        given = "no thresholds" if stage.thresholds is None else "thresholds"
        raise FormatError(f"activation={stage.activation!r} with {given}: 'threshold', and only it, has thresholds")
    path = output_path(stage)
    if path == "comparators":
        _check_comparators(stage, float_acc=float_acc)
        return path
    _check_factors(stage)
    if path == "floats" or float_acc:
        _check_float_rule(stage, ppu, path, float_acc=float_acc)
    if stage.rounding is None and stage.acc_shift < 0:
        raise FormatError(
            f"the accumulators have {-stage.acc_shift} fraction bits, which cannot leave raw in {stage.format.name}; "
            f"name a rounding rule"
        )
    if path == "floats":
        _check_no_codes_meant(stage, "a float format")
    elif stage.format.blocks is not None:
        _check_vectors(stage, ppu)
    if stage.format.blocks is not None and stage.output_scale is not None and np.ndim(stage.output_scale) != 0:
        raise FormatError(
            f"{stage.format.name}: the blocks of an output share one coarse scale; output_scale has to be of shape ()"
        )
    return path


def _check_factors(stage: OutputStage) -> None:
    integer, real = (stage.multiplier is not None, stage.shift is not None), stage.scale is not None
    if stage.rounding is not None and (real, *integer) not in ((True, False, False), (False, True, True)):
        raise FormatError("requantization takes either a real scale, or a multiplier and a shift")
    if stage.activation == "relu6" and (
        stage.output_scale is None or not np.all(np.isfinite(stage.output_scale) & (stage.output_scale > 0))
    ):
        raise FormatError(f"relu6 needs the output's scale, positive and finite; found {stage.output_scale}")


def _check_float_rule(stage: OutputStage, ppu: Ppu, path: OutputPath, *, float_acc: bool) -> None:
    name, rule = stage.format.name, rule_in_force(stage.rounding, ppu)
    if rule == FLOAT_RULE:
        return
    if rule is None and float_acc:
        raise FormatError(
            f"float32 accumulators cannot leave raw in {name}: no output format holds float32; name rounding "
            f"{FLOAT_RULE!r}, and an output format such as bf16 or fp16"
        )
    if rule is None:
        raise FormatError(f"{name}: raw accumulators are integers; name rounding {FLOAT_RULE!r} for a float output")
    who = "the layer asks for" if ppu.rounding == "trace" else "ppu.rounding is"
    what = f"an output in {name} is" if path == "floats" else "float32 accumulators are"
    raise FormatError(f"{what} scaled in float32, which needs rounding {FLOAT_RULE!r}; {who} {rule!r}")


def _check_no_codes_meant(stage: OutputStage, kind: str) -> None:
    """Raise FormatError for what is said in integer codes where codes are not integers."""
    name = stage.format.name
    if np.any(stage.zero_point):
        raise FormatError(f"{name}: {kind} has no zero points; found {stage.zero_point}")
    if stage.clamp is not None:
        raise FormatError(f"{name}: bounds in output codes mean nothing in {kind}; use relu or relu6")


def _check_vectors(stage: OutputStage, ppu: Ppu) -> None:
    name, blocks = stage.format.name, stage.format.blocks
    assert blocks is not None
    if stage.rounding is None:
        raise FormatError(f"{name}: raw accumulators cannot leave in a format with block scales; name a rounding rule")
    _check_no_codes_meant(stage, "a format with block scales")
    if stage.format.lane_bits > _MAX_VSQ_ELEMENT_BITS:
        raise FormatError(f"{name}: the PPU scales vectors of elements of up to {_MAX_VSQ_ELEMENT_BITS} bits")
    largest = stage.format.high * ((1 << blocks.scale_bits) - 1) << ppu.vsq_guard_bits
    if rule_in_force(stage.rounding, ppu) == "half_away_17bit" and largest >= 1 << 16:
        raise FormatError(
            f"{name}: rule 'half_away_17bit' saturates to 17 bits, but vectors reach {largest} before they are scaled; "
            f"use another rounding rule, or fewer vsq_guard_bits than {ppu.vsq_guard_bits}"
        )


def _check_comparators(stage: OutputStage, *, float_acc: bool) -> None:
    name = stage.format.name
    if stage.thresholds is not None:
        given = [what for what in ("rounding", "scale", "multiplier", "shift") if getattr(stage, what) is not None]
        if given or np.any(stage.zero_point):
            raise FormatError(
                f"thresholds are compared with the accumulator itself; leave out {', '.join(given) or 'the zero point'}"
            )
        if float_acc or stage.acc_shift < 0:
            found = "float32" if float_acc else f"fixed-point numbers of {-stage.acc_shift} fraction bits"
            raise FormatError(f"thresholds are compared with integer accumulators; these are {found}")
        check_thresholds(stage.thresholds, stage.format)
        return
    if np.any(stage.zero_point):
        raise FormatError(f"{name}: a format of signs has no zero points; found {stage.zero_point}")
    if stage.activation != "none":
        raise FormatError(
            f"{name}: the output is the accumulator's sign, and activation {stage.activation!r} would leave nothing of "
            f"it; use none, or threshold"
        )
    for what, factor in (("scale", stage.scale), ("multiplier", stage.multiplier)):
        if factor is not None and not np.all(factor > 0):
            raise FormatError(
                f"{name}: the output is the accumulator's sign, which needs a positive {what}; found {np.min(factor)}"
            )
