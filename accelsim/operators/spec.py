"""What an operator of the vector unit is: one object that checks, measures, computes, prices and explains itself.

An operator works on codes. What they mean (format, scale, zero point) comes with each tensor; everything else that the
result depends on is in its attributes, so that a trace says all that is needed to compute the same codes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from accelsim.actions import Actions
from accelsim.formats.spec import Codes, Format

Shape = tuple[int, ...]
Reals = NDArray[np.float64]


class Attributes(BaseModel):
    """The attributes of an operator: frozen, checked, unknown ones refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


A = TypeVar("A", bound=Attributes)


@dataclass(frozen=True, eq=False)
class TensorSpec:
    """What a tensor's codes mean, without the codes.

    shape : sizes
    format : the number format; operators take and make plain integers (``int<b>``, ``uint<b>``, int32 accumulators),
        `convert` any
    scale, zero_point : float64 and int64 of shape (); the meaning is ``(code - zero_point) * scale``
    """

    shape: Shape
    format: Format
    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class Operand(TensorSpec):
    """A tensor with its codes.

    codes : int32 (int64 for wide accumulators), `shape`
    block_scales : int32, `shape` with the last axis divided by the block size, for formats with blocks; or None
    """

    codes: Codes
    block_scales: NDArray[Any] | None = None


class Blocked(NamedTuple):
    """Codes with the block scales that the format shares among them, as :class:`Operand` has them."""

    codes: Codes
    block_scales: NDArray[Any]


@dataclass(frozen=True)
class Work:
    """What the vector unit has to do, whatever the values.

    passes : times that all of the data goes through the unit's lanes (softmax: several); 0: only addresses move
    elements : elements in one pass
    actions : arithmetic, component "vector"; the prices are those of the energy table. Reading and writing the buffers
        is counted by the caller
    """

    passes: int
    elements: int
    actions: Actions


class Operator(Protocol[A]):
    """One operator. Implementations are stateless; ``accelsim.operators.registry`` lists them by name.

    Methods raise ShapeError where shapes do not fit together, FormatError where formats, scales or zero points are ones
    that the operator does not take; messages leave the layer's name to the caller.
    """

    name: ClassVar[str]
    attributes: type[A]

    def output_shape(self, inputs: Sequence[Shape], attributes: A) -> Shape:
        """Return the shape of the result."""
        ...

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: A) -> None:
        """Raise where the operator cannot take these inputs or make this output (shapes apart)."""
        ...

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: A) -> Codes | Blocked:
        """Return the codes of the result, within the output's format; exact by definition (docs/operators.md)."""
        ...

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: A) -> list[Any] | Codes | Blocked:
        """Return the same codes, computed one value at a time in Python integers (or the floats that the source's
        definition has), by code of its own.
        """
        ...

    def real(self, inputs: Sequence[Reals], attributes: A) -> Reals:
        """Return what the operator means: the same function of real numbers, without any quantization."""
        ...

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: A) -> Work:
        """Return the work, from shapes and formats alone."""
        ...
