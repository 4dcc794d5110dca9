"""Reading a trace: :func:`load_trace` opens and checks a file, :class:`Trace` hands out its arrays one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim import formats
from accelsim.errors import AccelsimError, TraceError, did_you_mean
from accelsim.formats import Format, QTensor
from accelsim.trace import metadata
from accelsim.trace.archive import SIZE_LIMIT_BYTES, ArraySource, ZipSource
from accelsim.trace.arrays import CheckedArrays, Requantization
from accelsim.trace.head import cut_batch
from accelsim.trace.problems import file_path, trace_error
from accelsim.trace.schema import Layer, LayerMeta, Step, TensorMeta, TraceMeta, VectorMeta
from accelsim.trace.slots import tensor_array
from accelsim.trace.summary import layer_row, weight_bytes
from accelsim.trace.validate import find_problems


class Trace:
    """A quantized network and its data: small facts at once, arrays when they are asked for.

    Immutable. Made by :func:`load_trace` or ``TraceBuilder.build()``. Every method that reads an array raises
    TraceError, naming the array, where it is damaged or holds what its format cannot.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz")
    >>> [layer.name for layer in trace.layers]
    ['conv1', 'conv2', 'fc1', 'fc2']
    >>> trace.path.name, trace.digest, trace.description.split(",")[0]
    ('digits_cnn_int8.npz', '9b9222ef3a522abf', 'Handwritten digits')
    >>> trace.inputs, len(trace.meta.tensors)  # the images; a weight and an output of each layer
    (('image',), 9)
    >>> weight = trace.tensor("fc2.weight")  # read now
    >>> weight.format.name, weight.shape, trace.bias("fc2").shape
    ('int8', (10, 64), (10,))
    >>> trace.tensor_meta("fc2.weight").dims  # known without reading
    ('out_channel', 'in_channel')
    >>> few = trace.head(3)  # the first images only
    >>> few.labels.tolist(), few.outputs, few.reference("fc2.out").shape
    ([8, 7, 6], ('fc2.out',), (3, 10))
    >>> few.expected("fc2.out").dequantize().argmax(axis=1).tolist()  # what the network answers
    [8, 7, 6]
    >>> [row["macs"] for row in few.describe()], few.weight_bytes
    ([6912, 221184, 98304, 1920], 38160)
    """

    def __init__(self, meta: TraceMeta, source: ArraySource, path: Path | None = None) -> None:
        self._meta = meta
        self._source = source
        self._path = path
        self._layers = {layer.name: layer for layer in meta.layers}
        self._producers = {layer.output: layer.name for layer in meta.layers}
        self._arrays = CheckedArrays(meta, source, self._subject)

    @property
    def name(self) -> str:
        """What reports call the network."""
        return self._meta.name

    @property
    def description(self) -> str:
        """What its maker says about it; may be empty."""
        return self._meta.description

    @property
    def path(self) -> Path | None:
        """The file, or None for a trace that was built in memory."""
        return self._path

    @property
    def meta(self) -> TraceMeta:
        """The metadata: the graph, its tensors' shapes and formats (docs/trace.md)."""
        return self._meta

    @property
    def layers(self) -> tuple[Step, ...]:
        """The layers and vector operators, in the order of computation."""
        return self._meta.layers

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the network's inputs: stored tensors that layers read as activations."""
        return self._meta.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs: tensors that layers compute."""
        return self._meta.outputs

    @property
    def digest(self) -> str:
        """16 hex digits over the metadata and every array's name, size and checksum; equal for equal content, however
        the file was packed.
        """
        return self._source.digest

    def tensor_meta(self, name: str) -> TensorMeta:
        """Return what the trace says about a tensor; TraceError for an unknown name."""
        try:
            return self._meta.tensors[name]
        except KeyError:
            raise TraceError(
                f"{self._subject}: unknown tensor {name!r}{did_you_mean(name, self._meta.tensors)}"
            ) from None

    def tensor(self, name: str) -> QTensor:
        """Return a stored tensor (a network input or a weight); computed ones come from :meth:`output_tensor`."""
        self.tensor_meta(name)
        if name in self._producers:
            raise TraceError(
                f"{self._subject}: tensor {name!r} is computed by layer {self._producers[name]!r}, not stored; "
                f"expected({name!r}) gives the expected codes, if there are any"
            )
        return self._arrays.stored(name, "codes", "block_scales")

    def output_tensor(
        self, layer: LayerMeta | VectorMeta | str, codes: ArrayLike, block_scales: ArrayLike | None = None
    ) -> QTensor:
        """Return computed codes as the tensor that a layer puts out.

        codes : integers in the output format's range, the output's shape
        block_scales : integers, where the output format has blocks

        Raises TraceError for a wrong shape; FormatError for codes outside of the format's range.

        >>> from accelsim import load_trace
        >>> trace = load_trace("traces/digits_cnn_int8.npz").head(2)
        >>> codes = trace.expected("fc2.out").codes
        >>> trace.output_tensor("fc2", codes).dequantize().argmax(axis=1).tolist(), trace.labels.tolist()
        ([8, 7], [8, 7])
        """
        output = self._step(layer).output
        shape = self._meta.tensors[output].shape
        if np.shape(codes) != shape:
            raise TraceError(
                f"{self._subject}: tensor {output!r} has shape {shape}, but {np.shape(codes)} was computed"
            )
        return self._arrays.qtensor(output, codes, block_scales)

    def output_factors(
        self, layer: LayerMeta | VectorMeta | str
    ) -> tuple[Format, NDArray[np.float64], NDArray[np.int64]]:
        """Return (format, scale, zero point) of a layer's output tensor; scale and zero point are () or (C,).

        >>> from accelsim import load_trace
        >>> trace = load_trace("traces/digits_cnn_int8.npz").head(2)
        >>> number_format, scale, zero_point = trace.output_factors("fc2")
        >>> number_format.name, round(float(scale), 6), int(zero_point)
        ('int8', 0.172825, 17)
        """
        output = self._step(layer).output
        return (formats.get(self._meta.tensors[output].format), *self._arrays.factors(output))

    def factors(self, tensor: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return a tensor's (scale, zero point), each () or (C,); no code is read.

        >>> from accelsim import load_trace
        >>> trace = load_trace("traces/digits_cnn_int8.npz").head(2)
        >>> scale, zero_point = trace.factors("fc2.weight")  # a scale for each output channel
        >>> scale.shape, zero_point.tolist()
        ((10,), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        """
        self.tensor_meta(tensor)
        return self._arrays.factors(tensor)

    def array_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an array of the archive (accelsim.trace.slots), or None where there is none.

        >>> from accelsim import load_trace
        >>> trace = load_trace("traces/digits_cnn_int8.npz").head(2)
        >>> trace.array_shape("layers/fc2/bias"), trace.array_shape("layers/fc2/thresholds")
        ((10,), None)
        """
        header = self._source.headers.get(name)
        return None if header is None else header.shape

    def head(self, count: int) -> Trace:
        """Return a trace of the first `count` inputs of the batch; arrays are still read when they are asked for.

        Raises TraceError where `count` is no integer, the batch is smaller, an input has no first dimension named
        "batch", or a layer mixes inputs.
        """
        try:
            return Trace(*cut_batch(self._meta, self._source, count), self._path)
        except TraceError as error:
            raise TraceError(f"{self._subject}: {error}") from None

    def expected(self, tensor: str) -> QTensor | None:
        """Return the expected codes of a computed tensor, or None where the trace has none."""
        self.tensor_meta(tensor)
        if tensor_array(tensor, "expected") not in self._source.headers:
            return None
        return self._arrays.stored(tensor, "expected", "expected_block_scales")

    def reference(self, tensor: str) -> NDArray[np.float64] | None:
        """Return the float network's values of a tensor, or None where the trace has none."""
        self.tensor_meta(tensor)
        return self._arrays.reals(tensor_array(tensor, "reference"))

    def bias(self, layer: LayerMeta | str) -> NDArray[np.int64] | NDArray[np.float32] | None:
        """Return a layer's bias [N] in units of s_input * s_weight, or None: int64, those of the accumulator; float32
        where an operand is a float.
        """
        return self._arrays.bias(self._layer(layer).name)

    def thresholds(self, layer: LayerMeta | str) -> NDArray[np.int64] | None:
        """Return a layer's thresholds, int64 [N, T], ascending in each row, or None.

        >>> from accelsim import load_trace
        >>> network = load_trace("traces/digits_cnn_int8.npz")
        >>> network.thresholds("fc1") is None  # it requantizes by multiplying
        True
        """
        return self._arrays.thresholds(self._layer(layer).name)

    def requantization(self, layer: LayerMeta | str) -> Requantization | None:
        """Return how a layer requantizes, or None where raw accumulators leave.

        >>> from accelsim import load_trace
        >>> trace = load_trace("traces/digits_cnn_int8.npz").head(2)
        >>> how = trace.requantization("fc2")
        >>> how.rounding, how.scale.shape, how.multiplier
        ('double_half_up_then_away', (10,), None)
        """
        meta = self._layer(layer)
        return None if meta.rounding is None else self._arrays.requantization(meta.name, meta.rounding)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each input of the batch, int64 [batch], or None."""
        return self._arrays.labels()

    @property
    def weight_bytes(self) -> int:
        """Packed size of all weights with their block scales (not biases), each tensor rounded up to whole bytes."""
        return weight_bytes(self._meta)

    def describe(self) -> list[dict[str, Any]]:
        """Return one row a layer, read from shapes alone.

        Keys: name, op, input, weight (or the other activation of a matmul), output (tensor names), input_shape,
        weight_shape, output_shape, input_format, weight_format, output_format, rounding, activation, macs (of the whole
        batch), parameters (weights and biases).
        """
        return [layer_row(layer, self._meta.tensors, self._source.headers) for layer in self.layers]

    def check_arrays(self) -> None:
        """Read every array, one at a time; raise one TraceError with everything that is damaged or out of range.

        >>> from accelsim import load_trace
        >>> trace = load_trace("traces/digits_cnn_int8.npz")
        >>> trace.check_arrays(), trace.check_layer_arrays("fc2")  # nothing is raised: all are well
        (None, None)
        """
        problems = []
        for read in self._reads():
            try:
                read()
            except AccelsimError as error:
                problems.append(str(error).removeprefix(f"{self._subject}: "))
        if problems:
            raise trace_error(self._subject, list(dict.fromkeys(problems)))

    def check_layer_arrays(self, layer: LayerMeta | str) -> None:
        """Read the arrays of one layer and of its output; TraceError for the first that is out of range."""
        output = self._layer(layer).output
        for read in (*self._output_reads(output), *self._layer_reads(self._layer(layer))):
            read()

    def __repr__(self) -> str:
        return f"<Trace {self.name!r}: {len(self.layers)} layers, digest {self.digest}>"

    def _reads(self) -> Iterator[Callable[[], object]]:
        for name in self._meta.tensors:
            if name in self._producers:
                yield from self._output_reads(name)
            else:
                yield partial(self.tensor, name)
                yield partial(self.reference, name)
        for layer in self.layers:
            if not isinstance(layer, VectorMeta):
                yield from self._layer_reads(layer)
        yield lambda: self.labels

    def _output_reads(self, tensor: str) -> tuple[Callable[[], object], ...]:
        return partial(self._arrays.factors, tensor), partial(self.expected, tensor), partial(self.reference, tensor)

    def _layer_reads(self, layer: Layer) -> tuple[Callable[[], object], ...]:
        return partial(self.bias, layer), partial(self.requantization, layer), partial(self.thresholds, layer)

    @property
    def _subject(self) -> str:
        return str(self._path) if self._path is not None else f"trace {self.name!r}"

    def _step(self, layer: LayerMeta | VectorMeta | str) -> Step:
        name = layer if isinstance(layer, str) else layer.name
        try:
            return self._layers[name]
        except KeyError:
            raise TraceError(f"{self._subject}: unknown layer {name!r}{did_you_mean(name, self._layers)}") from None

    def _layer(self, layer: LayerMeta | str) -> Layer:
        step = self._step(layer)
        if isinstance(step, VectorMeta):
            raise TraceError(
                f"{self._subject}: layer {step.name!r} is an operator of the vector unit ({step.operator})"
            )
        return step


def load_trace(path: str | os.PathLike[str], *, size_limit_bytes: int = SIZE_LIMIT_BYTES) -> Trace:
    """Open a `.npz` trace and check everything that can be checked without reading an array.

    path : the file; it stays open until the trace is gone
    size_limit_bytes : refuse any single array that is larger

    Raises TraceError with all problems of the file: damage, an inconsistent graph, arrays that do not fit it.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz")
    >>> trace.name, len(trace.layers), trace.digest
    ('digits_cnn_int8', 4, '9b9222ef3a522abf')
    """
    file = file_path(path)
    source = ZipSource(file, size_limit_bytes=size_limit_bytes)
    try:
        trace = Trace(metadata.read(source), source, file)
        problems = find_problems(trace.meta, source.headers, size_limit_bytes=size_limit_bytes)
        if problems:
            raise trace_error(str(file), problems)
    except metadata.MetaError as error:
        source.close()
        raise trace_error(str(file), error.problems) from None
    except BaseException:
        source.close()
        raise
    return trace
