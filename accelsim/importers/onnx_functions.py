"""Functions of one number on quantized reals, as tables; softmax and layer normalization, in floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.formats import QTensor, make_qtensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import MICROSOFT, Node
from accelsim.importers.onnx_pending import Pending, VectorCall
from accelsim.importers.onnx_values import Codes, Constant, Output, View
from accelsim.importers.onnx_walk import Walk
from accelsim.operators.spec import TensorSpec
from accelsim.operators.tables import table

FUNCTIONS = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hard_swish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "negate",
    "Reciprocal": "reciprocal",
    "Sigmoid": "logistic",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
"""ONNX's operators by the name of their table."""


def function(node: Node, x: Codes, name: str) -> Pending:
    """Return a function of every code, by a table that the output's meaning completes."""
    number_format = formats.get(x.format)
    if number_format.lane_bits > 8 or np.ndim(x.scale):
        raise NotSupported(f"a function of {x.format}; tables take inputs of up to 8 bits")

    def entries(output: Output) -> QTensor:
        out_format = formats.get(output.format)
        before = TensorSpec((1,), number_format, float(x.scale), x.zero_point)
        after = TensorSpec((1,), out_format, output.scale, output.zero_point)
        codes = table(name, before, after, "onnxruntime")
        return make_qtensor(codes, out_format, output.scale, output.zero_point, subject="table")

    view = View("", x.view.stored)
    call = VectorCall("lookup", (x.view.tensor, entries), {"function": name}, view, (x,))
    return Pending(node, x.view.stored, vector=call, moves=x.view.moves)


def one_number(walk: Walk, node: Node) -> None:
    """A function of FUNCTIONS, Gelu, Elu or HardSigmoid with the constants that the tables have."""
    x = walk.codes(node, 0, real=True)
    if node.op == "Gelu":
        name = "gelu_tanh" if node.attributes.get("approximate", "none") == "tanh" else "gelu"
    elif node.op == "Elu" and node.attributes.get("alpha", 1.0) == 1.0:
        name = "elu"
    elif node.op == "HardSigmoid" and abs(node.attributes.get("alpha", 0.2) - 1 / 6) < 1e-6:
        name = "hard_sigmoid"
    elif node.op in FUNCTIONS:
        name = FUNCTIONS[node.op]
    else:
        raise NotSupported(f"{node.op} with {dict(node.attributes)} has no table")
    walk.set(node, function(node, x, name))


def leaky_relu(node: Node, x: Codes) -> Pending:
    """Return LeakyRelu, computed as ONNX Runtime does."""
    attributes = {"alpha": float(np.float32(node.attributes.get("alpha", 0.01))), "rule": "onnxruntime"}
    call = VectorCall("leaky_relu", (x.view.tensor,), attributes, View("", x.view.stored), (x,))
    return Pending(node, x.view.stored, vector=call, moves=x.view.moves)


def leaky(walk: Walk, node: Node) -> None:
    """LeakyRelu of quantized reals."""
    walk.set(node, leaky_relu(node, walk.codes(node, 0, real=True)))


def softmax(walk: Walk, node: Node, x: Codes) -> Pending:
    """Return a softmax, computed in floats: runtimes do, and agree to the last code but on ties."""
    rank = len(x.shape)
    axis = int(node.attributes.get("axis", -1 if walk.graph.opset >= 13 else 1)) % rank
    if walk.graph.opset < 13 and axis != rank - 1 and node.op == "Softmax":
        raise NotSupported("before version 13 a softmax over all axes from one on; use the last axis")
    order = x.view.moves[0].to if len(x.view.moves) == 1 and x.view.moves[0].kind == "transpose" else tuple(range(rank))
    arranged = walk.arranged(node, x, order)
    walk.note(f"{node.place}: softmax is computed in floats")
    call = VectorCall(
        "softmax",
        (arranged.view.tensor,),
        {"axis": order[axis], "rule": "float"},
        replace(arranged.view, tensor=""),
        (x,),
    )
    return Pending(node, x.shape, vector=call)


def softmax_reals(walk: Walk, node: Node) -> None:
    """Softmax of quantized reals."""
    walk.set(node, softmax(walk, node, walk.codes(node, 0, real=True)))


def layer_normalization(walk: Walk, node: Node) -> None:
    """LayerNormalization over the last axis, in floats."""
    x = walk.codes(node, 0, real=True)
    rank = len(x.shape)
    if int(node.attributes.get("axis", -1)) % rank != rank - 1:
        raise NotSupported(f"normalizes from axis {node.attributes['axis']} on; the last axis alone is supported")
    if len(node.outputs) > 1 and any(node.outputs[1:]):
        raise NotSupported("the mean or the deviation is asked for")
    arranged = walk.arranged(node, x, tuple(range(rank)))
    size = (x.shape[-1],)
    factors = [
        _parameter(walk, node, 1, np.ones(size, np.float32)),
        _parameter(walk, node, 2, np.zeros(size, np.float32)),
    ]
    attributes = {"rule": "float", "epsilon": float(np.float32(node.attributes.get("epsilon", 1e-5)))}
    walk.note(f"{node.place}: layer normalization is computed in floats")
    view = replace(arranged.view, tensor="")
    call = VectorCall("layer_norm", (arranged.view.tensor, *factors), attributes, view, (x,))
    walk.set(node, Pending(node, x.shape, vector=call))


def _parameter(walk: Walk, node: Node, index: int, default: NDArray[np.float32]) -> QTensor:
    """Return a factor or an offset a channel: quantized as the file has it, or to 16 bits."""
    value = walk.values.get(node.input(index)) if node.input(index) else Constant(default)
    if not isinstance(value, Constant):
        raise NotSupported(f"{node.input(index)!r} is not a constant")
    if value.array.shape != default.shape:
        raise NotSupported(f"{node.input(index)!r} has shape {value.array.shape}; {default.shape} is needed")
    if value.scale is not None and value.zero_point is not None and value.scale.size == value.zero_point.size == 1:
        zero = int(value.zero_point.reshape(()))
        codes = value.array.astype(np.int64)
        return make_qtensor(codes, formats.get(value.format), float(value.scale.reshape(())), zero)
    if node.input(index):
        walk.note(f"{node.place}: {node.input(index)} is rounded to 16 bits")
    return formats.get("int16").quantize(value.reals())


ONE_NUMBER: dict[tuple[str, str], Callable[[Walk, Node], None]] = {
    **{("", op): one_number for op in (*FUNCTIONS, "Gelu", "Elu", "HardSigmoid")},
    (MICROSOFT, "Gelu"): one_number,
    ("", "LeakyRelu"): leaky,
    ("", "Softmax"): softmax_reals,
    ("", "LayerNormalization"): layer_normalization,
}
