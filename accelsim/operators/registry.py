"""The operators by name, one line a family."""

from __future__ import annotations

from typing import Any

from accelsim.errors import TraceError, did_you_mean
from accelsim.operators.activation import ACTIVATIONS
from accelsim.operators.argmax import ARGMAXES
from accelsim.operators.concat import CONCATS
from accelsim.operators.convert import CONVERTS
from accelsim.operators.depth_to_space import DEPTH_MOVES
from accelsim.operators.interpolated import INTERPOLATIONS
from accelsim.operators.log_softmax import LOG_SOFTMAXES
from accelsim.operators.lut import LOOKUPS
from accelsim.operators.mean import MEANS
from accelsim.operators.move import MOVES
from accelsim.operators.normalize import NORMALIZERS
from accelsim.operators.pool import POOLS
from accelsim.operators.products import PRODUCTS
from accelsim.operators.requantize import REQUANTIZE
from accelsim.operators.sigmoid import SIGMOIDS
from accelsim.operators.softmax import SOFTMAXES
from accelsim.operators.spec import Attributes, Operator
from accelsim.operators.sums import SUMS

OPERATORS: dict[str, Operator[Any]] = {
    operator.name: operator
    for operator in (
        *SUMS,
        *PRODUCTS,
        *REQUANTIZE,
        *CONVERTS,
        *ACTIVATIONS,
        *LOOKUPS,
        *INTERPOLATIONS,
        *SIGMOIDS,
        *POOLS,
        *MEANS,
        *MOVES,
        *DEPTH_MOVES,
        *CONCATS,
        *SOFTMAXES,
        *LOG_SOFTMAXES,
        *NORMALIZERS,
        *ARGMAXES,
    )
}
"""Every operator that a trace can name. The tests run over all of it."""

TAKE_BLOCKS = frozenset(operator.name for operator in CONVERTS)
"""Those whose input and output may have block scales, along the last axis."""


def get(name: str) -> Operator[Any]:
    """Return the operator called `name`; TraceError for an unknown one."""
    try:
        return OPERATORS[name]
    except KeyError:
        raise TraceError(
            f"unknown operator {name!r}{did_you_mean(name, OPERATORS)}; use one of {', '.join(OPERATORS)}"
        ) from None


def attributes_of(name: str, values: dict[str, Any]) -> Attributes:
    """Return an operator's checked attributes; pydantic's ValidationError for bad ones."""
    attributes: Attributes = get(name).attributes.model_validate(values)
    return attributes
