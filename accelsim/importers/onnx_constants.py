"""How importers read what a node needs to know beforehand: constants, checked, with the reason where they are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.importers.graph import NotSupported
from accelsim.importers.onnx_graph import Node, evaluated
from accelsim.importers.onnx_values import Array, Constant, Shape

INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32)) - {"uint32"}


def fold(node: Node, values: Mapping[str, Any], shape: Shape, opset: int) -> list[Array] | None:
    """Return what a node makes of constants alone, or None where it needs more.

    values : its inputs, as far as they are known
    shape : of its first input; () where nobody knows
    """
    if node.domain or node.op in ("QuantizeLinear", "DequantizeLinear"):
        return None
    if node.op == "Shape" and shape:
        return [np.array(shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)]
    if not values or not all(isinstance(each, Constant) and each.scale is None for each in values.values()):
        return None
    return evaluated(node, {name: each.array for name, each in values.items()}, opset)


class ConstantReader:
    """The values known so far, by ONNX's names; constants among them are read here."""

    values: dict[str, Any]

    def constant(self, node: Node, index: int, what: str) -> Array:
        """Return an input that has to be a constant."""
        value = self.values.get(node.input(index))
        if not isinstance(value, Constant) or value.scale is not None:
            raise NotSupported(f"{what} ({node.input(index) or 'left out'}) is not a constant")
        return value.array

    def optional(self, node: Node, index: int, what: str, default: Any) -> Array:
        """Return a constant input, or `default` where it is left out."""
        return self.constant(node, index, what) if node.input(index) else np.asarray(default)

    def number(self, node: Node, index: int, what: str, default: Any = None) -> Any:
        """Return a constant of one element, as a NumPy scalar."""
        array = self.constant(node, index, what) if default is None else self.optional(node, index, what, default)
        if array.size != 1:
            raise NotSupported(f"{what} has shape {array.shape}; one number for the whole tensor is supported")
        return array.reshape(())[()]

    def integers(self, node: Node, index: int, what: str) -> NDArray[np.int64]:
        """Return constant integers, in one row."""
        array = self.constant(node, index, what)
        if array.dtype.kind not in "iu":
            raise NotSupported(f"{what} holds {array.dtype}; integers are needed")
        return array.astype(np.int64).reshape(-1)

    def scale(self, node: Node, index: int, what: str = "the scale") -> NDArray[np.float32]:
        """Return constant scales, float32: positive and finite."""
        array = self.constant(node, index, what)
        scales = float32(array)
        if not np.all(np.isfinite(scales) & (scales > 0)):
            raise NotSupported(
                f"{what} holds {scales[~(np.isfinite(scales) & (scales > 0))].flat[0]}; use positive numbers"
            )
        return scales

    def one_scale(self, node: Node, index: int, what: str = "the scale") -> np.float32:
        """Return the constant scale of a whole tensor."""
        self.number(node, index, what)
        return np.float32(self.scale(node, index, what).reshape(()))

    def zero(self, node: Node, index: int, what: str = "the zero point") -> NDArray[np.int64]:
        """Return constant zero points; 0 where they are left out."""
        array = self.optional(node, index, what, np.zeros((), np.int64))
        if array.dtype.kind == "f":
            raise NotSupported(f"{what} holds floats ({array.dtype}); integers are supported")
        return array.astype(np.int64)

    def one_zero(self, node: Node, index: int, what: str = "the zero point") -> int:
        """Return the constant zero point of a whole tensor."""
        array = self.zero(node, index, what)
        if array.size != 1:
            raise NotSupported(f"{what} has shape {array.shape}; one number for the whole tensor is supported")
        return int(array.reshape(()))


def float32(value: Any) -> NDArray[np.float32]:
    """Return an array in float32, in which ONNX Runtime computes scales."""
    return np.asarray(value, np.float32)


def format_of(array: Array) -> str:
    """Return the catalog's name for the type of an array of codes."""
    name = str(array.dtype)
    if name not in INTEGERS:
        raise NotSupported(f"codes of type {name} are not supported; use one of {', '.join(sorted(INTEGERS))}")
    return name
