"""The layers of a float network that the vector unit computes: residual additions, softmax, normalization and the like.

Sizes and axes are those of one input: the batch comes before them and is never touched.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from accelsim.errors import ShapeError, TraceError
from accelsim.operators import registry as operators
from accelsim.operators.tables import function_named
from accelsim.trace.schema import Meta, Name, Size
from accelsim.trace.shapes import Shape


class NamedMeta(Meta):
    """What every layer has.

    input : the layer whose output this one takes, or "input"; None: the layer before (the first: the network's input)
    """

    name: Name
    input: Name | None = None


class Add(NamedMeta):
    """A sum of two activations that broadcast; without `other`, of an activation and a constant, the layer's weight."""

    op: Literal["add"] = "add"
    other: Name | None = None


class Softmax(NamedMeta):
    """exp(x) / sum(exp(x)) along the last axis."""

    op: Literal["softmax"] = "softmax"


class LayerNorm(NamedMeta):
    """(x - mean) / sqrt(variance + epsilon) * weight + bias along the last axis; weight (gamma) and bias (beta) [n]."""

    op: Literal["layer_norm"] = "layer_norm"
    epsilon: float = Field(default=1e-5, ge=0, le=1, allow_inf_nan=False)


class Function(NamedMeta):
    """A function of every element, a name in accelsim.operators.tables.FUNCTIONS: "gelu", "tanh", "silu"..."""

    op: Literal["function"] = "function"
    function: str

    @field_validator("function")
    @classmethod
    def _is_known(cls, name: str) -> str:
        function_named(name)
        return name


class Mean(NamedMeta):
    """The mean along axes of one input, counted from 1 (0 is the batch), which go away."""

    op: Literal["mean"] = "mean"
    axes: tuple[Size, ...] = Field(min_length=1)


class Reshape(NamedMeta):
    """Other sizes, the batch apart."""

    op: Literal["reshape"] = "reshape"
    shape: tuple[Size, ...] = Field(min_length=1)


class Transpose(NamedMeta):
    """Axes of one input, counted from 1, in another order: output axis i + 1 is input axis ``axes[i]``."""

    op: Literal["transpose"] = "transpose"
    axes: tuple[Size, ...] = Field(min_length=1)


class Slice(NamedMeta):
    """Of every axis but the batch, `size` elements from `begin` on."""

    op: Literal["slice"] = "slice"
    begin: tuple[Annotated[int, Field(ge=0, le=1 << 31)], ...] = Field(min_length=1)
    size: tuple[Size, ...] = Field(min_length=1)


class Vector(NamedMeta):
    """Any operator of the vector unit (docs/operators.md), as importers write it: fused activations, pooling, concat.

    inputs : "input" or layers; they take the place of `input`
    attributes : by name, as the operator's page says, the batch among sizes and axes; a reshape's first size stands for
        the batch, whatever it is
    """

    op: Literal["vector"] = "vector"
    operator: str
    inputs: tuple[Name, ...] = Field(min_length=1)
    attributes: dict[str, Any] = Field(default_factory=dict)


VectorLayerMeta = Add | Softmax | LayerNorm | Function | Mean | Reshape | Transpose | Slice | Vector
VECTOR_LAYERS = (Add, Softmax, LayerNorm, Function, Mean, Reshape, Transpose, Slice, Vector)
MOVES = (Reshape, Transpose, Slice)
"""Layers that change no number: what comes out means what went in."""
VECTOR_KINDS: dict[str, type[VectorLayerMeta]] = {
    "add": Add,
    "softmax": Softmax,
    "layer_norm": LayerNorm,
    "function": Function,
    "mean": Mean,
    "reshape": Reshape,
    "transpose": Transpose,
    "slice": Slice,
    "vector": Vector,
}


def takes_weight(meta: VectorLayerMeta) -> bool:
    """Return whether the layer has a weight: gamma, or the constant of a sum."""
    return isinstance(meta, LayerNorm) or (isinstance(meta, Add) and meta.other is None)


def geometry(meta: VectorLayerMeta, batch: int) -> tuple[str, dict[str, Any]]:
    """Return the operator of the vector unit, by name, and the attributes that say which elements it works on."""
    if isinstance(meta, Vector):
        shape = meta.attributes.get("shape")
        sized = {"shape": (batch, *shape[1:])} if meta.operator == "reshape" and shape else {}
        return meta.operator, meta.attributes | sized
    if isinstance(meta, Reshape):
        return "reshape", {"shape": (batch, *meta.shape)}
    if isinstance(meta, Transpose):
        return "transpose", {"axes": (0, *meta.axes)}
    if isinstance(meta, Slice):
        return "slice", {"begin": (0, *meta.begin), "size": (batch, *meta.size)}
    if isinstance(meta, Mean):
        return "mean", {"axes": meta.axes, "keepdims": False}
    if isinstance(meta, Softmax):
        return "softmax", {"axis": -1}
    if isinstance(meta, Function):
        return "lookup", {"function": meta.function}
    return meta.op, {}


def vector_shape(meta: VectorLayerMeta, inputs: list[Shape]) -> Shape:
    """Return the shape of the layer's output; ShapeError, without the layer's name, where the inputs do not fit.

    inputs : shapes of the activations, then of gamma and beta, or of the constant
    """
    x = inputs[0]
    if isinstance(meta, Add):
        shape = operators.get("add").output_shape(inputs, operators.attributes_of("add", {}))
        if shape != x:
            raise ShapeError(f"{x} plus {inputs[1]} makes {shape}; the sum must have the shape of the first, {x}")
        return shape
    if isinstance(meta, Function):
        return x
    if isinstance(meta, LayerNorm) and len(inputs) == 2:
        inputs = [*inputs, inputs[1]]  # beta may be left out
    name, attributes = geometry(meta, x[0])
    if isinstance(meta, Slice) and len(meta.begin) != len(meta.size):
        raise ShapeError(f"begin has {len(meta.begin)} numbers, size {len(meta.size)}; use one of each an axis")
    try:
        checked = operators.attributes_of(name, attributes)
    except (ValidationError, TraceError) as error:
        if isinstance(error, TraceError):
            raise ShapeError(str(error)) from None
        problem = error.errors()[0]
        raise ShapeError(f"attributes of {name}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    return operators.get(name).output_shape(inputs, checked)
