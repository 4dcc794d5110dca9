"""What importers share: how a model shows itself before anything runs, how data enters it, and the words for what it
asks in vain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim import formats
from accelsim.errors import AccelsimError, ModelError, did_you_mean, problem_list
from accelsim.formats import QTensor, make_qtensor
from accelsim.trace.builder import TraceBuilder

Shape = tuple[int, ...]
Place = Literal["array", "vector unit", "input", "host"]

SEMANTICS = ("tflite-reference", "tflite-micro", "onnxruntime")
"""Whose arithmetic a trace follows, where a file leaves it open (docs/import.md)."""

LARGEST_FILE_BYTES = 1 << 31
LARGEST_TENSOR_ELEMENTS = 1 << 31


class NotSupported(Exception):  # noqa: N818 (nothing went wrong; the text goes into one list with all others)
    """What accelsim lacks for one operator of a model, in words."""


@dataclass(frozen=True)
class ModelInput:
    """An input of a model, as the trace will hold it: integer codes.

    name : as the file calls it
    shape : the file's, its batch first
    format, scale, zero_point : what the codes mean; of a float input, what the file quantizes it to first
    rounding : of real numbers at this edge, to nearest with ties "half_away" from zero or "half_even"
    """

    name: str
    shape: Shape
    format: str
    scale: float
    zero_point: int
    rounding: Literal["half_away", "half_even"]

    def codes(self, data: ArrayLike, *, subject: str) -> QTensor:
        """Return the user's data as codes, any batch: integers are codes, reals are quantized with one float32
        division, which is what both runtimes do.

        Raises ModelError for a wrong shape, codes out of range, and what is not a finite number.
        """
        array = np.asarray(data)
        what = f"{subject}: input {self.name!r}"
        if array.dtype.kind not in "iuf":
            raise ModelError(f"{what}: dtype is {array.dtype}; pass real numbers, or integer codes")
        array = self._batched(array, what)
        number_format = formats.get(self.format)
        if array.dtype.kind == "f":
            if not np.all(np.isfinite(array)):
                raise ModelError(f"{what}: {np.count_nonzero(~np.isfinite(array))} values are NaN or infinite")
            with np.errstate(over="ignore"):
                steps = (array.astype(np.float32) / np.float32(self.scale)).astype(np.float64)
            nearest = np.trunc(steps + np.copysign(0.5, steps)) if self.rounding == "half_away" else np.rint(steps)
            array = np.clip(nearest + self.zero_point, number_format.low, number_format.high).astype(np.int64)
        elif int(array.min()) < number_format.low or int(array.max()) > number_format.high:
            raise ModelError(
                f"{what}: integers are taken as codes of {self.format}, {number_format.low} to {number_format.high}, "
                f"but these span {array.min()} to {array.max()}; pass real numbers (floats) to have them quantized"
            )
        return make_qtensor(array, number_format, self.scale, self.zero_point, subject=what)

    def _batched(self, array: NDArray[Any], what: str) -> NDArray[Any]:
        if array.shape == self.shape[1:]:
            array = array[None]
        fits = array.ndim == len(self.shape) and array.shape[1:] == self.shape[1:]
        if not fits or array.shape[0] == 0 or array.shape[0] % self.shape[0]:
            rest = ", ".join(map(str, self.shape[1:]))
            batch = "N" if self.shape[0] == 1 else f"N (a multiple of {self.shape[0]})"
            raise ModelError(f"{what}: data has shape {array.shape}; the model takes ({batch}, {rest})")
        return array


@dataclass(frozen=True)
class Row:
    """One operator of a model, as ``accelsim inspect`` lists it. Shapes are those of the file; formats are names of the
    catalog or, where it has none, the file's own.

    name : of the layer in the trace, for --until
    op : as the file calls it
    place : where it runs: "array", "vector unit"; "input": done to the data while importing; "host": floats after the
        network's last codes, which the trace leaves to its user
    macs : of one inference of the file's batch
    weights : elements of constant tensors, biases apart
    problem : why it cannot be imported, or nothing
    """

    name: str
    op: str
    place: Place
    input_shape: Shape
    weight_shape: Shape
    output_shape: Shape
    input_format: str
    weight_format: str
    output_format: str
    macs: int
    weights: int
    problem: str = ""


class Model(Protocol):
    """A model file that was read and understood, before anything runs."""

    @property
    def subject(self) -> str:
        """The file, for messages."""
        ...

    @property
    def kind(self) -> str:
        """What the file is: "TFLite", "ONNX", "QONNX"."""
        ...

    @property
    def inputs(self) -> tuple[ModelInput, ...]: ...

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every operator, in an order in which it can run."""
        ...

    @property
    def semantics(self) -> tuple[str, ...]:
        """Those of `SEMANTICS` that make sense for the file, the default first."""
        ...

    @property
    def other_formats(self) -> str:
        """How to import the model in other number formats than the file's; empty where that cannot be."""
        ...

    def builder(self, inputs: Mapping[str, QTensor], semantics: str, rows: Sequence[Row]) -> TraceBuilder:
        """Return a trace of the operators `rows`, a beginning of `self.rows` without problems, on the given inputs."""
        ...


class Names:
    """Makes names of a file into names of a trace: other letters replaced, each used once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, wanted: str) -> str:
        """Return a name like `wanted` that nobody has yet."""
        stem = re.sub(r"[^A-Za-z0-9_.\-]+", "_", wanted)[:120].lstrip("_.-").rstrip("_") or "tensor"
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name


def check_size(shape: Shape, what: str) -> None:
    """Raise ModelError for a shape that no file of reasonable size can mean."""
    if any(size < 1 for size in shape) or math.prod(shape) > LARGEST_TENSOR_ELEMENTS:
        raise ModelError(f"{what}: declares shape {shape}; sizes are 1 or more, and 2**31 elements at most")


def read_bytes(path: str, kind: str) -> bytes:
    """Return a whole file; ModelError where it is no file, cannot be read, is empty or too large."""
    file = Path(path)
    if file.is_dir():
        raise ModelError(f"{path}: is a folder; name a {kind} file")
    try:
        size = file.stat().st_size
        if not 0 < size <= LARGEST_FILE_BYTES:
            raise ModelError(f"{path}: has {size:,} bytes; a {kind} file has at least 1 and at most 2**31")
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def rows_until(model: Model, until: str | None) -> tuple[Row, ...]:
    """Return the operators up to and with the one named `until`.

    Raises ModelError for an unknown name, and one message with every operator among them that is not supported.
    """
    rows = model.rows
    if until is not None:
        names = [row.name for row in rows]
        if until not in names:
            raise ModelError(
                f"{model.subject}: no layer is named {until!r}{did_you_mean(until, names)}; "
                f"accelsim inspect lists the names"
            )
        rows = rows[: names.index(until) + 1]
    wrong = [row for row in rows if row.problem]
    if wrong:
        lines = [f"{row.name} ({row.op}): {row.problem}" for row in wrong]
        raise ModelError("\n".join([problem_list(model.subject, lines), *ways_out(model, rows, wrong[0])]))
    if not _layers(rows):
        first = _layers(model.rows)
        hint = f"; the first layer is {first[0].name!r}" if first else ""
        raise ModelError(
            f"{model.subject}: nothing runs on the accelerator{'' if until is None else f' up to {until!r}'}{hint}"
        )
    return rows


def _layers(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are layers of a trace."""
    return [row for row in rows if row.place in ("array", "vector unit")]


def ways_out(model: Model, rows: Sequence[Row], first: Row) -> list[str]:
    """Return what can be done about a model whose first operator that is not supported is `first`, a line each: to run
    the part before it, or to quantize anew.
    """
    runs = _layers(rows[: rows.index(first)])
    part = [f"to run the part before: --until {runs[-1].name} (Python: until={runs[-1].name!r})"] if runs else []
    return part + ([model.other_formats] if model.other_formats else [])


def take_inputs(
    model: Model, inputs: ArrayLike | Mapping[str, ArrayLike], batch: int | None
) -> tuple[dict[str, QTensor], int]:
    """Return the model's inputs as codes, by name, cut to the first `batch`; and their common batch.

    Raises ModelError for missing, unknown or ill-fitting inputs.
    """
    names = [each.name for each in model.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise ModelError(f"{model.subject}: has {len(names)} inputs: pass a dict of {', '.join(map(repr, names))}")
        inputs = {names[0]: inputs}
    problems = [f"input {name!r} is missing" for name in names if name not in inputs]
    problems += [
        f"{name!r} is no input of the model{did_you_mean(str(name), names)}" for name in inputs if name not in names
    ]
    if problems:
        problems[-1] += f"; it takes {', '.join(map(repr, names))}"
        raise ModelError(problem_list(model.subject, problems))
    taken, counts = {}, {}
    for each in model.inputs:
        data = np.asarray(inputs[each.name])
        if batch is not None and data.ndim == len(each.shape):
            data = data[: batch * each.shape[0]]
        taken[each.name] = each.codes(data, subject=model.subject)
        counts[each.name] = taken[each.name].shape[0] // each.shape[0]
    if len(set(counts.values())) > 1:
        each_count = ", ".join(f"{name!r}: {count}" for name, count in counts.items())
        raise ModelError(f"{model.subject}: the inputs must have one batch, but have {each_count}")
    return taken, next(iter(counts.values()))


def missing_library(library: str, package: str, kind: str) -> AccelsimError:
    """Return the error for an importer whose optional library is not installed."""
    return ModelError(
        f"reading {kind} files needs the package {package!r} ({library} cannot be imported); "
        f"install it with: pip install 'accelsim[import]'"
    )
