"""What is wrong with a single input or layer, found while its maker can still repair it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from accelsim.errors import AccelsimError, TraceError
from accelsim.trace.archive import MemorySource
from accelsim.trace.problems import trace_error
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Layer, MatmulMeta, TensorMeta, TraceMeta
from accelsim.trace.shapes import weight_name
from accelsim.trace.validate import find_problems

Arrays = Mapping[str, NDArray[Any]]


def check_layer(layer: Layer, tensors: Mapping[str, TensorMeta], arrays: Arrays, known: Mapping[str, object]) -> None:
    """Check a layer as if it were the whole network.

    tensors, arrays : those of the layer, its operands and its output
    known : the tensors that are older than the layer; what is wrong with them is not the layer's

    Raises TraceError, which names the layer, with everything that a finished trace would refuse in it.
    """
    inputs = (layer.input, *((layer.other,) if isinstance(layer, MatmulMeta) else ()))
    names = (layer.input, weight_name(layer), layer.output)
    meta = TraceMeta(
        name=layer.name,
        tensors={name: tensors[name] for name in names},
        layers=(layer,),
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=(layer.output,),
    )
    own = tuple(f"{folder}/{name}/" for folder, name in (("layers", layer.name), *(("tensors", n) for n in names)))
    source = MemorySource({name: array for name, array in arrays.items() if name.startswith(own)})
    others = tuple(text for name in names if name in known for text in _beginnings(name))
    subject = f"layer {layer.name!r}"
    problems = [problem for problem in find_problems(meta, source.headers) if not problem.startswith(others)]
    if not problems:
        try:
            Trace(meta, source).check_layer_arrays(layer)
        except AccelsimError as error:
            problems = [str(error).removeprefix(f"trace {layer.name!r}: ")]
    if problems:
        raise trace_error(subject, [problem.removeprefix(f"{subject}: ") for problem in problems])


def check_input(name: str, tensor: TensorMeta, arrays: Arrays) -> None:
    """Check a network input on its own; TraceError, which names the tensor, with all its problems."""
    meta = TraceMeta.model_construct(name=name, tensors={name: tensor}, layers=(), inputs=(name,), outputs=())
    source, subject, beginnings = MemorySource(arrays), f"tensor {name!r}", _beginnings(name)
    unused = f"{subject}: no layer uses it"
    found = [p for p in find_problems(meta, source.headers) if p.startswith(beginnings) and p != unused]
    if found:
        raise trace_error(subject, [problem.removeprefix(f"{subject}: ") for problem in found])
    try:
        Trace(meta, source).reference(name)
    except AccelsimError as error:
        raise TraceError(str(error).removeprefix(f"trace {name!r}: ")) from None


def _beginnings(tensor: str) -> tuple[str, str]:
    """Return how problems of a tensor and of its arrays begin."""
    return f"tensor {tensor!r}: ", f"array 'tensors/{tensor}/"
