"""TFLite's functions of one number: straight lines as operators, curves as tables (docs/operators.md)."""

from __future__ import annotations

from collections.abc import Callable

from accelsim import formats
from accelsim.errors import AccelsimError
from accelsim.formats import make_qtensor
from accelsim.importers.graph import NotSupported
from accelsim.importers.tflite_file import FileOperator, FileTensor
from accelsim.importers.tflite_lowering import MICRO, Call, Context, meaning, same_meaning
from accelsim.importers.tflite_operators import vector
from accelsim.operators.interpolated import interpolation_table
from accelsim.operators.spec import TensorSpec
from accelsim.operators.tables import Kernel, table

CURVES = {
    "ELU": "elu",
    "EXP": "exp",
    "GELU": "gelu",
    "HARD_SWISH": "hard_swish",
    "LOG": "log",
    "LOGISTIC": "logistic",
    "TANH": "tanh",
}
"""TFLite's names, and accelsim's (accelsim.operators.tables.FUNCTIONS)."""

INTEGER_KERNELS = {"tflite-reference": {"HARD_SWISH"}, MICRO: {"HARD_SWISH", "LOGISTIC", "TANH"}}
"""What has a kernel in integers; the others make their tables in float32."""

INTERPOLATED = ("EXP", "GELU", "LOG")
"""What has a kernel for 16-bit codes, by straight lines between points."""

BOUNDS = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}


def curve(operator: FileOperator, context: Context) -> list[Call]:
    """A curve of 8-bit codes: a table that the trace stores."""
    x, output = context.tensor(operator, 0), context.output(operator)
    function = CURVES[operator.op]
    if operator.op == "GELU" and operator.options["Approximate"]:
        function = "gelu_tanh"
    if x.dtype == "INT16":
        return _wide_curve(function, operator, context)
    kernel: Kernel = "integer" if operator.op in INTEGER_KERNELS[context.semantics] else "float32"
    try:
        entries = table(function, _spec(x), _spec(output), kernel)
    except AccelsimError as error:
        raise NotSupported(str(error)) from None
    means = meaning(output)
    stored = make_qtensor(entries, formats.get(means["output"]), means["scale"], means["zero_point"])
    (call,) = vector("lookup", operator, context, {"function": function})
    return [Call(call.method, (*call.inputs, stored), call.arguments, call.output)]


def _wide_curve(function: str, operator: FileOperator, context: Context) -> list[Call]:
    """A curve of 16-bit codes: the table of half a sigmoid, or straight lines between points that the trace stores."""
    if context.semantics == MICRO:
        raise NotSupported("TFLite Micro's kernels of 16-bit codes are not modelled")
    if operator.op in ("LOGISTIC", "TANH"):
        return vector("sigmoid", operator, context, {"function": function})
    if operator.op not in INTERPOLATED:
        raise NotSupported(f"LiteRT's reference kernels have no {operator.op} of INT16")
    output = context.output(operator)
    means = meaning(output)
    try:
        points = interpolation_table(function, _spec(context.tensor(operator, 0)), _spec(output))
    except AccelsimError as error:
        raise NotSupported(str(error)) from None
    stored = make_qtensor(points, formats.get(means["output"]), means["scale"], means["zero_point"])
    (call,) = vector("interpolate", operator, context, {"function": function})
    return [Call(call.method, (*call.inputs, stored), call.arguments, call.output)]


def bounded(operator: FileOperator, context: Context) -> list[Call]:
    """RELU and its kin as operators of their own."""
    rescaled = not same_meaning(context.tensor(operator, 0), context.output(operator))
    if context.semantics == MICRO and operator.op == "RELU6" and rescaled:
        raise NotSupported("TFLite Micro's kernel does not rescale, but input and output have different scales")
    minimum, maximum = BOUNDS[operator.op]
    return vector("clip", operator, context, {"minimum": minimum, "maximum": maximum, "rule": "tflite"})


def leaky_relu(operator: FileOperator, context: Context) -> list[Call]:
    """LEAKY_RELU."""
    if context.semantics == MICRO:
        raise NotSupported("TFLite Micro computes the factor of its slope in a precision that accelsim does not have")
    return vector("leaky_relu", operator, context, {"alpha": operator.options["Alpha"]})


def prelu(operator: FileOperator, context: Context) -> list[Call]:
    """PRELU with constant slopes."""
    if context.tensor(operator, 1).data is None:
        raise NotSupported("its slopes are computed while the model runs")
    return vector("prelu", operator, context, {}, inputs=2)


def _spec(tensor: FileTensor) -> TensorSpec:
    means = meaning(tensor)
    return TensorSpec(tensor.shape, formats.get(means["output"]), means["scale"], means["zero_point"])


LOWERINGS: dict[str, Callable[[FileOperator, Context], list[Call]]] = {
    **dict.fromkeys(CURVES, curve),
    **dict.fromkeys(BOUNDS, bounded),
    "LEAKY_RELU": leaky_relu,
    "PRELU": prelu,
}
