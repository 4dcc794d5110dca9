"""A trace in a few lines, from a notebook or an importer::

net = TraceBuilder("tiny")
x = net.input("x", formats.get("uint8").quantize(images, asymmetric=True))
net.linear("fc", x, formats.get("int8").quantize(weight, axis=0), bias=bias, output="int8", scale=0.05)
net.save("tiny.npz")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from accelsim.errors import TraceError, did_you_mean
from accelsim.formats import Format, QTensor
from accelsim.trace.archive import META, MemorySource
from accelsim.trace.assembly import Assembly
from accelsim.trace.factors import plain_array
from accelsim.trace.finish import Arrays, Finish
from accelsim.trace.geometry import Padding, input_dims, padding_pairs, pair, weight_dims
from accelsim.trace.metadata import checked
from accelsim.trace.problems import trace_error
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta, TraceMeta
from accelsim.trace.slots import LABELS
from accelsim.trace.validate import find_problems
from accelsim.trace.writer import meta_array, save

Activation = Literal["none", "relu", "relu6", "clamp", "threshold"]
DEFAULT_ROUNDING = "double_half_up_then_away"


class TraceBuilder:
    """Collects inputs and layers, in the order of computation, and makes a :class:`Trace` of them.

    Layers take what their inputs mean (format, scale, zero point) from the tensors that they are given; the user says
    what the output shall mean. A method that raises TraceError leaves the builder as it was.

    Keywords that all layers share:

    bias : [N]; integers in units of the accumulator, taken as they are; or real numbers, divided by s_input * s_weight
        and rounded to nearest, ties away from zero. Where an operand is a float: real numbers, divided likewise, kept
        as float32
    output : number format of the output (a name or a Format)
    scale, zero_point : of the output, one number each; VSQ: the coarse scale; fixed point Qm.n has its own, 2**-n
    output_name : name of the output tensor, "<layer>.out" by default
    rounding : requantization rule (accelsim.rounding); None: raw accumulators leave, as int32 (or the wider format
        that `output` names) with the scale s_input * s_weight
    activation, clamp : fused activation; clamp=(low, high) are the inclusive bounds of activation="clamp", in codes
    thresholds : integers [N, codes of the output - 1], ascending, for activation="threshold" (with rounding=None): the
        code counts the thresholds that are less than the accumulator
    requantization_scale : () or [N]; s_input * s_weight / scale in float64 by default
    multiplier, shift : () or [N] integers, instead of a scale; the factor is multiplier / 2**shift
    expected, expected_block_scales : the codes that another implementation computed (a QTensor serves for both)
    reference : the float network's values

    Each layer method returns the name of its output tensor, for the layers that use it.

    >>> import accelsim
    >>> int8 = accelsim.formats.get("int8")
    >>> builder = accelsim.TraceBuilder("tiny")
    >>> x = builder.input("x", int8.quantize([[1.27, -0.5, 0.25]]))  # codes 127, -50, 25; scale 0.01
    >>> weight = int8.quantize([[1.27, 1.0, 1.0], [0.0, 1.0, -1.0]])
    >>> y = builder.linear("fc", x, weight, bias=[0.5, 0.0], output="int8", scale=0.02, activation="relu")
    >>> builder.shape(y)
    (1, 2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), builder.build())
    >>> report.layer("fc").output_codes.tolist()  # (1.6129 - 0.5 + 0.25 + 0.5) / 0.02; relu(-0.5 - 0.25)
    [[93, 0]]
    >>> path = builder.save("tiny.npz")  # or to a file
    >>> accelsim.load_trace(path).digest == builder.build().digest
    True
    """

    def __init__(self, name: str, description: str = "", *, semantics: str = "") -> None:
        self._name = name
        self._description = description
        self._semantics = semantics
        self._assembly = Assembly()
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._labels: NDArray[Any] | None = None

    def input(
        self, name: str, tensor: QTensor, dims: Sequence[str] | None = None, *, reference: ArrayLike | None = None
    ) -> str:
        """Add a network input and return its name.

        dims : one name a dimension; by default (batch, height, width, channel), (batch, position, channel) or
            (batch, channel); (batch, dim1, ..., channel) of more
        reference : what the codes stand for in the float network, real numbers of the tensor's shape

        Raises TraceError, which names the tensor.
        """
        names = tuple(dims) if dims is not None else input_dims(len(tensor.shape))
        self._assembly.add_stored(name, tensor, names, reference)
        self._inputs.append(name)
        return name

    def conv2d(
        self,
        name: str,
        input: str,  # noqa: A002 (what the field calls it)
        weight: QTensor,
        *,
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        pad_value: int = 0,
        bias: ArrayLike | None = None,
        output: str | Format | None = None,
        scale: float | None = None,
        zero_point: int = 0,
        output_name: str | None = None,
        rounding: str | None = DEFAULT_ROUNDING,
        activation: Activation = "none",
        clamp: tuple[int, int] | None = None,
        requantization_scale: ArrayLike | None = None,
        multiplier: ArrayLike | None = None,
        shift: ArrayLike | None = None,
        expected: ArrayLike | QTensor | None = None,
        expected_block_scales: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        thresholds: ArrayLike | None = None,
    ) -> str:
        """Add a convolution: input [batch, height, width, channel], weight [out, kernel height, kernel width,
        channel / groups].

        stride, dilation : one number, or (vertical, horizontal)
        padding : a number, (vertical, horizontal), ((top, bottom), (left, right)), "valid" (none), or "same":
            TensorFlow's rule, ceil(size / stride) outputs, an odd row or column of padding goes to the bottom or right
        pad_value : what padding stands for: 0; or 1 or -1 for binary inputs, which have no 0

        Raises TraceError, which names the layer.

        >>> from accelsim import TraceBuilder, formats, load_config, simulate
        >>> import numpy as np
        >>> int8, builder = formats.get("int8"), TraceBuilder("sums")
        >>> x = builder.input("x", int8.quantize(np.ones((1, 3, 3, 1)), scale=1.0))
        >>> ones = int8.quantize(np.ones((1, 3, 3, 1)), scale=1.0)
        >>> y = builder.conv2d("sum", x, ones, padding="same", output="int8", scale=1.0)
        >>> report = simulate(load_config("configs/int8_ws.yaml"), builder.build())
        >>> report.layer("sum").output_codes[0, :, :, 0].tolist()
        [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
        """
        finish = Finish(bias, output, scale, zero_point, output_name, rounding, activation, clamp, requantization_scale,
                        multiplier, shift, expected, expected_block_scales, reference, thresholds)  # fmt: skip
        where = f"layer {name!r}"
        steps, spread = pair(stride, f"{where}: stride"), pair(dilation, f"{where}: dilation")
        pads = padding_pairs(
            padding, self._assembly.shape(input, where)[1:3], weight.shape[1:3], steps, spread, f"{where}: padding"
        )
        own = {"stride": steps, "padding": pads, "dilation": spread, "groups": groups, "pad_value": pad_value}
        return self._assembly.add_layer(Conv2dMeta, name, input, (weight, weight_dims("conv2d")), own, finish)

    def linear(
        self,
        name: str,
        input: str,  # noqa: A002
        weight: QTensor,
        *,
        flatten: bool = False,
        bias: ArrayLike | None = None,
        output: str | Format | None = None,
        scale: float | None = None,
        zero_point: int = 0,
        output_name: str | None = None,
        rounding: str | None = DEFAULT_ROUNDING,
        activation: Activation = "none",
        clamp: tuple[int, int] | None = None,
        requantization_scale: ArrayLike | None = None,
        multiplier: ArrayLike | None = None,
        shift: ArrayLike | None = None,
        expected: ArrayLike | QTensor | None = None,
        expected_block_scales: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        thresholds: ArrayLike | None = None,
    ) -> str:
        """Add a fully connected layer: weight [out, in]; reduces the input's last axis, or all but the first if
        `flatten` (in the order height, width, channel).

        Raises TraceError, which names the layer.

        >>> from accelsim import TraceBuilder, formats, load_config, simulate
        >>> int8, builder = formats.get("int8"), TraceBuilder("classes")
        >>> x = builder.input("x", int8.quantize([[5.0, -2.0], [0.0, 3.0]], scale=1.0))
        >>> y = builder.linear("fc", x, int8.quantize([[1.0, 0.0], [0.0, 1.0]], scale=1.0), output="int8", scale=1.0,
        ...                    reference=[[5.0, -2.0], [0.0, 3.0]])  # the float network's outputs
        >>> builder.output(y)
        >>> builder.labels([0, 1])
        >>> simulate(load_config("configs/int8_ws.yaml"), builder.build()).accuracy.simulated_accuracy
        1.0
        """
        finish = Finish(bias, output, scale, zero_point, output_name, rounding, activation, clamp, requantization_scale,
                        multiplier, shift, expected, expected_block_scales, reference, thresholds)  # fmt: skip
        own = {"flatten": flatten}
        return self._assembly.add_layer(LinearMeta, name, input, (weight, weight_dims("linear")), own, finish)

    def matmul(
        self,
        name: str,
        a: str,
        b: str | QTensor,
        *,
        transpose_other: bool = False,
        bias: ArrayLike | None = None,
        output: str | Format | None = None,
        scale: float | None = None,
        zero_point: int = 0,
        output_name: str | None = None,
        rounding: str | None = DEFAULT_ROUNDING,
        activation: Activation = "none",
        clamp: tuple[int, int] | None = None,
        requantization_scale: ArrayLike | None = None,
        multiplier: ArrayLike | None = None,
        shift: ArrayLike | None = None,
        expected: ArrayLike | QTensor | None = None,
        expected_block_scales: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        thresholds: ArrayLike | None = None,
    ) -> str:
        """Add a product of two activations: a [..., M, K] times b [..., K, N] ([..., N, K] if `transpose_other`).

        Leading dimensions are equal, or 1, which serves all of the other's. b may be a QTensor, a constant that the
        trace stores as "<name>.weight".

        Raises TraceError, which names the layer.

        >>> from accelsim import TraceBuilder, formats, load_config, simulate
        >>> int8, builder = formats.get("int8"), TraceBuilder("scores")
        >>> q = builder.input("q", int8.quantize([[[1.0, 2.0], [3.0, 4.0]]], scale=1.0))
        >>> k = builder.input("k", int8.quantize([[[1.0, 0.0], [0.0, 2.0]]], scale=1.0))
        >>> scores = builder.matmul("scores", q, k, transpose_other=True, output="int8", scale=1.0)
        >>> simulate(load_config("configs/int8_ws.yaml"), builder.build()).layer("scores").output_codes.tolist()
        [[[1, 4], [3, 8]]]
        """
        finish = Finish(bias, output, scale, zero_point, output_name, rounding, activation, clamp, requantization_scale,
                        multiplier, shift, expected, expected_block_scales, reference, thresholds)  # fmt: skip
        second = b if isinstance(b, str) else (b, tuple(f"dim{axis}" for axis in range(len(b.shape))))
        return self._assembly.add_layer(MatmulMeta, name, a, second, {"transpose_other": transpose_other}, finish)

    def vector(
        self,
        name: str,
        operator: str,
        inputs: Sequence[str | QTensor],
        *,
        output: str | Format,
        scale: float,
        zero_point: int = 0,
        attributes: Mapping[str, Any] | None = None,
        output_name: str | None = None,
        expected: ArrayLike | None = None,
        reference: ArrayLike | None = None,
    ) -> str:
        """Add an operator of the vector unit (docs/operators.md).

        operator : its name (accelsim.operators.registry)
        inputs : names of tensors; or QTensors, constants that the trace stores as "<name>.<position>"
        output, scale, zero_point : what the result's codes mean
        attributes : by name, as the operator's own page says

        Raises TraceError, which names the layer.

        >>> from accelsim import TraceBuilder, formats, load_config, simulate
        >>> int8, builder = formats.get("int8"), TraceBuilder("residual")
        >>> x = builder.input("x", int8.quantize([[1.0, -2.0]], scale=0.5))
        >>> y = builder.input("y", int8.quantize([[3.0, 4.0]], scale=0.5))
        >>> total = builder.vector("sum", "add", [x, y], output="int8", scale=0.25, attributes={"rule": "tflite"})
        >>> simulate(load_config("configs/int8_ws.yaml"), builder.build()).layer("sum").output_codes.tolist()  # 4 and 2
        [[16, 8]]
        """
        return self._assembly.add_vector(
            name,
            operator,
            inputs,
            output=output,
            scale=scale,
            zero_point=zero_point,
            attributes=dict(attributes or {}),
            output_name=output_name,
            expected=expected,
            reference=reference,
        )

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor so far; TraceError for an unknown name."""
        return self._assembly.shape(tensor, f"trace {self._name!r}")

    def labels(self, labels: ArrayLike) -> None:
        """Say the class of each input of the batch: integers [batch], from 0. TraceError for what are no numbers; what
        does not fit the inputs is found by :meth:`build`.
        """
        self._labels = plain_array(labels, "labels")

    def output(self, name: str) -> None:
        """Name a network output; without any, these are the tensors that no layer uses.

        Raises TraceError for an unknown name.
        """
        known = self._assembly.computed
        if name not in known:
            raise TraceError(f"output {name!r} is not computed by a layer{did_you_mean(name, known)}")
        self._outputs.append(name)

    def build(self) -> Trace:
        """Return the trace, in memory; everything is checked, arrays included.

        Raises TraceError with all problems.
        """
        meta, arrays = self._finished()
        trace = Trace(meta, MemorySource({**arrays, META: meta_array(meta)}))
        trace.check_arrays()
        return trace

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Build the trace, write it, and return its path. The file appears whole or not at all.

        Raises TraceError with all problems, or because the folder is missing or may not be written to.
        """
        self.build()
        return save(path, *self._finished())

    def _finished(self) -> tuple[TraceMeta, Arrays]:
        assembly, subject = self._assembly, f"trace {self._name!r}"
        finished = checked(
            lambda: TraceMeta(
                name=self._name,
                description=self._description,
                semantics=self._semantics,
                tensors=assembly.tensors,
                layers=tuple(assembly.layers),
                inputs=tuple(self._inputs),
                outputs=tuple(self._outputs) or assembly.unread,
            ),
            subject,
        )
        arrays = dict(assembly.arrays)
        if self._labels is not None:
            arrays[LABELS] = self._labels
        problems = find_problems(finished, MemorySource(arrays).headers)
        if problems:
            raise trace_error(subject, problems)
        return finished, arrays
