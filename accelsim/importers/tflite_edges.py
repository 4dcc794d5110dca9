"""Where does an operator of a TFLite model run? On the array, on the vector unit, or, with floats, on the host at the
network's two ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from accelsim.importers.graph import Place
from accelsim.importers.tflite_file import FileGraph, FileOperator, FileTensor
from accelsim.importers.tflite_lowering import FORMATS

ON_THE_ARRAY = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")


@dataclass(frozen=True)
class Edges:
    """What of a graph is left to the host."""

    graph: FileGraph

    def place(self, operator: FileOperator) -> Place:
        """Return where an operator runs."""
        if operator.op == "QUANTIZE" and operator.inputs and operator.inputs[0] in self._float_inputs:
            return "input"
        if operator.index in self._host:
            return "host"
        return "array" if operator.op in ON_THE_ARRAY else "vector unit"

    def quantized(self, tensor: FileTensor) -> FileTensor | None:
        """Return what the QUANTIZE that reads a float input makes, or None where the host has no part in it."""
        readers = [operator for operator in self.graph.operators if tensor.index in operator.inputs]
        if tensor.dtype == "FLOAT32" and len(readers) == 1 and readers[0].op == "QUANTIZE" and readers[0].outputs:
            return self.graph.tensors[readers[0].outputs[0]]
        return None

    def codes_behind(self, index: int) -> tuple[int, ...]:
        """Return the codes that a float tensor of the host is computed from."""
        for operator in self.graph.operators:
            if index in operator.outputs and operator.index in self._host:
                if operator.op == "DEQUANTIZE":
                    return operator.inputs[:1]
                return tuple(source for each in operator.inputs if each >= 0 for source in self.codes_behind(each))
        return ()

    @cached_property
    def _float_inputs(self) -> frozenset[int]:
        tensors = self.graph.tensors
        return frozenset(index for index in self.graph.inputs if self.quantized(tensors[index]) is not None)

    @cached_property
    def _host(self) -> frozenset[int]:
        """The operators on floats that follow the last codes and lead to no codes: DEQUANTIZE and what is after it."""
        tensors = self.graph.tensors
        after: set[int] = set()
        floats: set[int] = set()
        for operator in self.graph.operators:
            computed = [index for index in operator.inputs if index >= 0 and tensors[index].data is None]
            leaves = operator.op == "DEQUANTIZE" and computed and tensors[computed[0]].dtype in FORMATS
            if leaves or (computed and all(index in floats for index in computed)):
                after.add(operator.index)
                floats.update(operator.outputs)
        back: set[int] = set()  # from the end: what leads to codes is an island inside the network
        for operator in reversed(self.graph.operators):
            readers = [other for other in self.graph.operators if set(operator.outputs) & set(other.inputs)]
            codes = any(tensors[index].dtype in FORMATS for index in operator.outputs if index >= 0)
            if codes or any(other.index in back or other.index not in after for other in readers):
                back.add(operator.index)
        return frozenset(after - back)
