"""The layers of a float network, as the JSON entry of its file describes them (docs/quantize.md)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta, Meta, Name, Pad, Pair, Size
from accelsim.trace.schema import Layer as TraceLayer

INPUT = "input"
"""What layers call the network's input."""

Activation = Literal["none", "relu", "relu6", "sign"]


class FloatLayerMeta(Meta):
    """What every layer has.

    input : the layer whose output this one takes, or "input"; None: the layer before (the first: the network's input)
    activation : applied to the output; "sign": +1 for x >= 0, else -1
    """

    name: Name
    input: Name | None = None
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
    """Fully connected: weight [out, in]; reduces the input's last axis, or all but the first if `flatten`."""

    op: Literal["linear"] = "linear"
    flatten: bool = False


class Matmul(FloatLayerMeta):
    """Product of two activations: input [..., M, K] times other [..., K, N] (or [..., N, K] if `transpose_other`)."""

    op: Literal["matmul"] = "matmul"
    other: Name
    transpose_other: bool = False


class Vector(Meta):
    """An operator of the vector unit (docs/operators.md): additions, pooling, moves.

    operator : its name
    inputs : "input" or layers
    attributes : by name, as the operator's page says. A reshape's first size stands for the batch, whatever it is
    """

    op: Literal["vector"] = "vector"
    name: Name
    operator: str
    inputs: tuple[Name, ...] = Field(min_length=1)
    attributes: dict[str, Any] = Field(default_factory=dict)

    @property
    def activation(self) -> Activation:
        """What is fused, as far as the sign of the output is concerned."""
        fused = self.attributes.get("activation", "none")
        return fused if fused in ("relu", "relu6") else "none"


LayerMeta = Conv2d | Linear | Matmul | Vector
KINDS: dict[str, type[Conv2d] | type[Linear] | type[Matmul] | type[Vector]] = {
    "conv2d": Conv2d,
    "linear": Linear,
    "matmul": Matmul,
    "vector": Vector,
}


class NetworkMeta(Meta):
    """The root of the JSON entry; `layers` is checked one by one."""

    schema_name: Literal["accelsim-float-network"] = Field(alias="schema", default="accelsim-float-network")
    version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    layers: tuple[dict[str, object], ...] = Field(min_length=1)


def attributes_for(layer: Vector, batch: int) -> dict[str, Any]:
    """Return an operator's attributes for a batch of that size."""
    if layer.operator != "reshape" or not layer.attributes.get("shape"):
        return layer.attributes
    return layer.attributes | {"shape": (batch, *layer.attributes["shape"][1:])}


def as_trace_layer(layer: Conv2d | Linear | Matmul) -> TraceLayer:
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
