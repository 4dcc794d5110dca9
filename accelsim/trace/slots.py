"""Which arrays a trace may hold, and what each must measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from accelsim.formats import Format
from accelsim.formats.spec import FLOATING
from accelsim.trace.archive import Header
from accelsim.trace.schema import Layer, TensorMeta, TraceMeta, VectorMeta
from accelsim.trace.shapes import Shape, weight_name

TensorPart = Literal[
    "codes", "scale", "zero_point", "block_scales", "codebook", "expected", "expected_block_scales", "reference"
]
LayerPart = Literal["bias", "scale", "multiplier", "shift", "thresholds"]
LABELS = "labels"


def tensor_array(tensor: str, part: TensorPart) -> str:
    """Return the name of one of a tensor's arrays."""
    return f"tensors/{tensor}/{part}"


def layer_array(layer: str, part: LayerPart) -> str:
    """Return the name of one of a layer's arrays."""
    return f"layers/{layer}/{part}"


@dataclass(frozen=True)
class Slot:
    """A place for an array.

    kind : integers or floats, of any width up to 64 bits
    shapes : the shapes that fit
    """

    kind: Literal["integers", "floats"]
    shapes: tuple[Shape, ...]
    required: bool
    purpose: str

    def problems(self, header: Header) -> Iterator[str]:
        """Yield what is wrong with an array in this place, without reading it."""
        integers = header.dtype.kind in "iu" and header.dtype.itemsize <= 8
        floats = header.dtype.kind == "f" and header.dtype.itemsize <= 8
        if not (integers if self.kind == "integers" else floats):
            yield f"has dtype {header.dtype}, but must hold {self.kind} ({self.purpose})"
        if header.shape not in self.shapes:
            fitting = " or ".join(map(str, self.shapes))
            yield f"has shape {header.shape}, but must have {fitting} ({self.purpose})"


def array_slots(meta: TraceMeta, formats: Mapping[str, Format], producers: Mapping[str, str]) -> dict[str, Slot]:
    """Return every array that the trace may hold, besides the metadata.

    formats : by tensor; tensors without a usable format get all slots, none required (their format is the problem)
    producers : {computed tensor: its layer}
    """
    slots: dict[str, Slot] = {}
    for name, tensor in meta.tensors.items():
        slots.update(_tensor_slots(name, tensor, formats.get(name), producers.get(name)))
    for layer in meta.layers:
        if isinstance(layer, VectorMeta):
            continue  # its constants are tensors
        operands = [formats.get(name) for name in (layer.input, weight_name(layer))]
        floating = any(operand is not None and operand.datapath in FLOATING for operand in operands)
        slots.update(_layer_slots(layer, meta.tensors.get(layer.output), formats.get(layer.output), floating))
    if meta.inputs and meta.inputs[0] in meta.tensors:
        batch = meta.tensors[meta.inputs[0]].shape[:1]
        slots[LABELS] = Slot("integers", (batch,), False, "the class of each input of the batch")
    return slots


def _tensor_slots(name: str, tensor: TensorMeta, number_format: Format | None, producer: str | None) -> dict[str, Slot]:
    shape = tensor.shape
    known = number_format is not None
    blocks = number_format.blocks if number_format is not None else None
    if known and tensor.channel_axis is not None:
        factors: tuple[Shape, ...] = ((shape[tensor.channel_axis],), ())
    else:
        factors = ((),)
    parts: dict[TensorPart, Slot] = {
        "scale": Slot("floats", factors, known, f"scale of tensor {name!r}"),
        "zero_point": Slot("integers", factors, False, f"zero point of tensor {name!r}"),
        "reference": Slot("floats", (shape,), False, f"float reference of tensor {name!r}"),
    }
    if producer is None:
        parts["codes"] = Slot("integers", (shape,), known, f"tensor {name!r} is stored, no layer computes it")
    else:
        parts["expected"] = Slot("integers", (shape,), False, f"expected codes of layer {producer!r}")
    if blocks is not None and tensor.block_axis is not None:
        scales = tuple(-(-n // blocks.size) if i == tensor.block_axis else n for i, n in enumerate(shape))
        purpose = f"one scale for each {blocks.size} elements of tensor {name!r}"
        if producer is None:
            parts["block_scales"] = Slot("integers", (scales,), known, purpose)
        else:
            parts["expected_block_scales"] = Slot("integers", (scales,), False, purpose)
    if number_format is not None and number_format.datapath == "codebook" and producer is None:
        entries = number_format.code_high - number_format.code_low + 1
        parts["codebook"] = Slot("integers", ((entries,),), True, f"what each code of tensor {name!r} stands for")
    return {tensor_array(name, part): slot for part, slot in parts.items()}


def _layer_slots(
    layer: Layer, output: TensorMeta | None, output_format: Format | None, floating: bool
) -> dict[str, Slot]:
    if output is None or not output.shape:
        return {}
    per_channel = (output.shape[-1],)
    bias = f"bias of layer {layer.name!r}, whose operands are {'floats' if floating else 'integers'}"
    parts: dict[LayerPart, Slot] = {"bias": Slot("floats" if floating else "integers", (per_channel,), False, bias)}
    if layer.activation == "threshold" and output_format is not None:
        count = output_format.code_high - output_format.code_low
        purpose = f"{count} ascending thresholds a channel of layer {layer.name!r}, one fewer than its output has codes"
        parts["thresholds"] = Slot("integers", ((*per_channel, count),), True, purpose)
    if layer.rounding is not None:
        purpose = f"requantization of layer {layer.name!r}"
        shapes: tuple[Shape, ...] = ((), per_channel)
        parts["scale"] = Slot("floats", shapes, False, purpose)
        parts["multiplier"] = Slot("integers", shapes, False, purpose)
        parts["shift"] = Slot("integers", shapes, False, purpose)
    return {layer_array(layer.name, part): slot for part, slot in parts.items()}
