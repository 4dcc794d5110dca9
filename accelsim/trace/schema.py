"""The trace's metadata, version 1: what the one JSON entry of the ``.npz`` says (docs/trace.md).

Arrays are plain ``.npy`` entries beside it, found by name::

    tensors/<tensor>/codes, scale, zero_point, block_scales          stored tensors (network inputs and weights)
    tensors/<tensor>/scale, zero_point                               computed tensors (layer outputs)
    tensors/<tensor>/expected, expected_block_scales, reference      optional: expected codes, float reference
    layers/<layer>/bias, scale | multiplier + shift, thresholds      bias; requantization factors
    labels                                                           optional: the class of each input of the batch
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "accelsim-trace"
VERSION = 1

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$")]  # never "." or "..": names become paths
Size = Annotated[int, Field(ge=1, le=1 << 31)]
Pair = tuple[Size, Size]
Pad = Annotated[int, Field(ge=0, le=1 << 16)]


class Meta(BaseModel):
    """A frozen piece of metadata; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorName(Meta):
    """A name, to be checked on its own."""

    name: Name


class TensorMeta(Meta):
    """What a tensor is.

    format : a name of the format catalog
    dims : one name a dimension, e.g. ("batch", "height", "width", "channel")
    shape : its sizes
    channel_axis : axis of per-channel scales and zero points; None: per tensor
    block_axis : axis that scale blocks run along; None: the format has no blocks
    """

    format: str
    dims: tuple[str, ...]
    shape: tuple[Size, ...]
    channel_axis: int | None = None
    block_axis: int | None = None


class Clamp(Meta):
    """A fused clamp in output codes, bounds inclusive."""

    low: int
    high: int


class LayerMeta(Meta):
    """What every layer has.

    input, output : tensor names; the output belongs to this layer alone
    rounding : the requantization rule that the layer asks for (accelsim.rounding); None: raw accumulators leave, or
        thresholds make the codes
    activation : fused activation, before the clamp to the output format's range; "threshold": the code is the smallest
        one plus the number of the channel's thresholds that are less than the accumulator
    clamp : bounds of ``activation="clamp"``
    """

    name: Name
    input: Name
    output: Name
    rounding: str | None = None
    activation: Literal["none", "relu", "relu6", "clamp", "threshold"] = "none"
    clamp: Clamp | None = None


class Conv2dMeta(LayerMeta):
    """Two-dimensional convolution: input [batch, height, width, channel], weight [out, kernel height, kernel width,
    in / groups], output [batch, height, width, channel]. Padding holds the input's zero point. Depthwise: groups =
    input channels.

    pad_value : what padding stands for, 0; or 1 ("one-padding") or -1, for binary inputs, which have no 0
    """

    op: Literal["conv2d"] = "conv2d"
    weight: Name
    stride: Pair = (1, 1)
    padding: tuple[tuple[Pad, Pad], tuple[Pad, Pad]] = ((0, 0), (0, 0))  # (top, bottom), (left, right)
    dilation: Pair = (1, 1)
    groups: Size = 1
    pad_value: Literal[-1, 0, 1] = 0


class LinearMeta(LayerMeta):
    """Fully connected: weight [out, in]; reduces the input's last axis, or all but the first if `flatten`."""

    op: Literal["linear"] = "linear"
    weight: Name
    flatten: bool = False


class MatmulMeta(LayerMeta):
    """Product of two activations, as in attention: input [..., M, K] times other [..., K, N] (or [..., N, K] if
    `transpose_other`); leading dimensions are equal, or 1, which serves all of the other's. `other` may be stored: a
    constant.
    """

    op: Literal["matmul"] = "matmul"
    other: Name
    transpose_other: bool = False


class VectorMeta(Meta):
    """An operator of the vector unit (docs/operators.md).

    operator : its name (accelsim.operators.registry)
    inputs : tensor names, computed ones or stored constants (tables, slopes)
    attributes : what the operator asks for, by name
    """

    op: Literal["vector"] = "vector"
    name: Name
    operator: str
    inputs: tuple[Name, ...] = Field(min_length=1)
    output: Name
    attributes: dict[str, Any] = Field(default_factory=dict)


Layer = Conv2dMeta | LinearMeta | MatmulMeta
"""A layer of the PE array."""
Step = Annotated[Conv2dMeta | LinearMeta | MatmulMeta | VectorMeta, Field(discriminator="op")]
"""What a trace lists: a layer of the array, or an operator of the vector unit."""


class TraceMeta(Meta):
    """The root of the metadata: a graph of layers in an order in which every input is known before it is used.

    semantics : whose arithmetic an imported model follows ("tflite-reference", "onnxruntime"...); empty: it has none
    """

    schema_name: Literal["accelsim-trace"] = Field(alias="schema", default="accelsim-trace")
    version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    semantics: str = Field(default="", max_length=100)
    tensors: dict[Name, TensorMeta]
    layers: tuple[Step, ...] = Field(min_length=1)
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
