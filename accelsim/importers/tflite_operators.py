"""The operators of the vector unit that TFLite has, as operators of accelsim (docs/operators.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from accelsim.importers.tflite_file import FileOperator
from accelsim.importers.tflite_lowering import Call, Context, meaning


def reshape(operator: FileOperator, context: Context) -> list[Call]:
    """RESHAPE (and SQUEEZE, EXPAND_DIMS): the shape that the file declares for the output."""
    output = context.output(operator)
    attributes = {"shape": context.batched(output.shape)}
    return [_vector("reshape", operator, context, attributes)]


def _vector(
    name: str, operator: FileOperator, context: Context, attributes: Mapping[str, object], inputs: int = 1
) -> Call:
    output = context.output(operator)
    operands = tuple(context.operand(operator, position) for position in range(inputs))
    return Call("vector", operands, {"operator": name, "attributes": attributes, **meaning(output)}, output.index)


LOWERINGS: dict[str, Callable[[FileOperator, Context], list[Call]]] = {
    "RESHAPE": reshape,
    "SQUEEZE": reshape,
    "EXPAND_DIMS": reshape,
}
