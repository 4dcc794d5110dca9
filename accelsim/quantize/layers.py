"""The layers of a float network, as the JSON entry of its file describes them (docs/quantize.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accelsim.quantize.vector_layers import VECTOR_KINDS, NamedMeta, VectorLayerMeta
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta, Meta, Name, Pad, Pair, Size
from accelsim.trace.schema import Layer as TraceLayer

INPUT = "input"
"""What layers call the network's input."""

Activation = Literal["none", "relu", "relu6", "sign"]


class FloatLayerMeta(NamedMeta):
    """What every layer with multiply-accumulates has.

    activation : applied to the output; "sign": +1 for x >= 0, else -1
    """

    activation: Activation = "none"


class Conv2d(FloatLayerMeta):
    """Two-dimensional convolution: input [batch, height, width, channel], weight [out, kernel height, kernel width,
    in / groups].

    padding : (top, bottom), (left, right)
    pad_value : what is beyond the edges: 0; or 1 or -1, for inputs that are signs and so have no 0
    """

    op: Literal["conv2d"] = "conv2d"
    stride: Pair = (1, 1)
    padding: tuple[tuple[Pad, Pad], tuple[Pad, Pad]] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: Size = 1
    pad_value: Literal[-1, 0, 1] = 0


class Linear(FloatLayerMeta):
    """Fully connected: weight [out, in]; reduces the input's last axis, or all but the first if `flatten`.

    >>> Linear(name="fc1", activation="relu").model_dump(exclude_defaults=True)
    {'name': 'fc1', 'activation': 'relu'}
    """

    op: Literal["linear"] = "linear"
    flatten: bool = False


class Matmul(FloatLayerMeta):
    """Product of two activations: input [..., M, K] times other [..., K, N] (or [..., N, K] if `transpose_other`)."""

    op: Literal["matmul"] = "matmul"
    other: Name
    transpose_other: bool = False


ArrayLayerMeta = Conv2d | Linear | Matmul
"""A layer of the PE array."""
LayerMeta = ArrayLayerMeta | VectorLayerMeta
KINDS: dict[str, type[LayerMeta]] = {"conv2d": Conv2d, "linear": Linear, "matmul": Matmul, **VECTOR_KINDS}


class NetworkMeta(Meta):
    """The root of the JSON entry; `layers` is checked one by one."""

    schema_name: Literal["accelsim-float-network"] = Field(alias="schema", default="accelsim-float-network")
    version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    layers: tuple[dict[str, object], ...] = Field(min_length=1)


def as_trace_layer(layer: ArrayLayerMeta) -> TraceLayer:
    """Return the trace's layer of the same geometry; its tensors are called "in", "second" and "out"."""
    if isinstance(layer, Conv2d):
        return Conv2dMeta(
            name=layer.name,
            input="in",
            weight="second",
            output="out",
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
    if isinstance(layer, Linear):
        return LinearMeta(name=layer.name, input="in", weight="second", output="out", flatten=layer.flatten)
    return MatmulMeta(name=layer.name, input="in", other="second", output="out", transpose_other=layer.transpose_other)
