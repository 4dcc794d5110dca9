"""What the tests of the TFLite importer share: small models made with the schema's own classes, run by LiteRT's
reference kernels and by accelsim.
"""

import numpy as np
import pytest

import accelsim
from accelsim.config.loader import parse_config
from accelsim.importers.api import open_model

pytest.importorskip("tflite", reason="the TFLite importer needs the tflite package: pip install 'accelsim[import]'")
schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="small TFLite models are made with ai-edge-litert: pip install it"
)

TYPES = {name: value for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
FUSED = schema.ActivationFunctionType
PADDING = schema.Padding

MACHINE = parse_config(
    """
name: wide
clock_mhz: 500
array: {rows: 8, cols: 8, dataflow: os, lanes: 8, weight: {bits: 8, sign: either}, activation: {bits: 8, sign: either},
        psum: {bits: 32, overflow: wrap}}
accumulator: {bits: 32, overflow: wrap}
ppu: {rounding: trace}
""",
    "wide.yaml",
)
WIDE = parse_config(
    """
name: wider
clock_mhz: 500
array: {rows: 8, cols: 8, dataflow: os, lanes: 8, weight: {bits: 8}, activation: {bits: 16},
        psum: {bits: 48, overflow: wrap}}
accumulator: {bits: 48, overflow: wrap}
ppu: {rounding: trace}
""",
    "wider.yaml",
)


class Maker:
    """A TFLite model under construction: tensors and operators by index."""

    def __init__(self):
        self.tensors, self.buffers, self.operators, self.codes = [], [schema.BufferT()], [], []

    def tensor(self, shape, dtype="INT8", scale=None, zero_point=0, axis=0, name=None):
        """Add a computed tensor; return its index."""
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), TYPES[dtype], 0
        tensor.name = (name or f"tensor/{len(self.tensors)};x").encode()
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization.scale = scales.tolist()
            tensor.quantization.zeroPoint = np.broadcast_to(zero_point, scales.shape).tolist()
            tensor.quantization.quantizedDimension = axis
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values, dtype=None, scale=None, zero_point=0, axis=0, shape=None):
        """Add a constant; int4 ones are packed, the first value in the low half of a byte."""
        values = np.asarray(values)
        dtype = dtype or str(values.dtype).upper()
        index = self.tensor(values.shape if shape is None else shape, dtype, scale, zero_point, axis)
        raw = values
        if dtype == "INT4":
            flat = np.append(values.reshape(-1), np.zeros(values.size % 2, values.dtype)).astype(np.uint8) & 15
            raw = flat[0::2] | flat[1::2] << 4
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(raw).tobytes(), np.uint8)
        self.buffers.append(buffer)
        self.tensors[index].buffer = len(self.buffers) - 1
        return index

    def op(self, name, inputs, outputs, options=None, kind=None, version=1, **fields):
        """Add an operator; `options` is the schema's class without its T, `fields` its fields."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.codes) - 1, list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in fields.items():
                assert hasattr(operator.builtinOptions, field), field
                setattr(operator.builtinOptions, field, value)
        self.operators.append(operator)

    def save(self, path, inputs, outputs):
        """Write the file and return its path as text."""
        import flatbuffers

        model, graph = schema.ModelT(), schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return str(path)


def reference_tensors(path, samples, wanted, resolver="BUILTIN_REF"):
    """Return what LiteRT's reference kernels compute: {tensor: [sample, ...]}, one sample after another.

    resolver : another set of kernels, for operators that the reference set does not have
    """
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert: pip install it")
    interpreter = litert.Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=litert.OpResolverType[resolver],
        experimental_preserve_all_tensors=resolver == "BUILTIN_REF",
        num_threads=1,
    )
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    found = {index: [] for index in wanted}
    for sample in samples:
        for detail, data in zip(details, sample, strict=True):
            interpreter.set_tensor(
                detail["index"], np.ascontiguousarray(data, detail["dtype"]).reshape(detail["shape"])
            )
        interpreter.invoke()
        for index in wanted:
            found[index].append(interpreter.get_tensor(index).copy())
    return {index: np.concatenate(list(map(np.atleast_1d, each))) for index, each in found.items()}


def simulated_tensors(path, data, config=None, semantics=None, **options):
    """Return what accelsim computes, {tensor of the file: codes}, and the report."""
    trace = accelsim.import_model(path, data, semantics)
    report = accelsim.simulate(config or MACHINE, trace, watch=False, **options)
    model = open_model(path)
    names = {row.name: operator.outputs for row, operator in zip(model.rows, model.graph.operators, strict=True)}
    made = {}
    for layer in report.layers:
        stem, _, part = layer.name.partition(".")
        outputs = names[stem]
        if len(outputs) == 1 and not part:  # parts before the last have no tensor in the file
            made[outputs[0]] = layer.output_codes
    return made, report


def check(path, *data, config=None, resolver="BUILTIN_REF", **options):
    """Compare every tensor that accelsim computes with LiteRT's reference kernels; return the report.

    data : for each input of the model, [samples, ...]
    """
    model = open_model(path)
    given = {each.name: array for each, array in zip(model.inputs, data, strict=True)}
    made, report = simulated_tensors(path, given, config, **options)
    assert made
    samples = [[array[i : i + 1] for array in data] for i in range(len(data[0]))]
    wanted = reference_tensors(path, samples, made, resolver)
    for index, codes in made.items():
        np.testing.assert_array_equal(codes, wanted[index], err_msg=f"tensor {model.graph.tensors[index].name}")
    return report
