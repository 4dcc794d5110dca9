"""One operator as a model of LiteRT, TFLite Micro or ONNX Runtime, run by it: what its kernels really compute.

Needs ai-edge-litert and flatbuffers (and tflite-micro), or onnx and onnxruntime; imports them only when called.
"""

import numpy as np

TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}


def tflite_model(builtin, inputs, output, options=None, constants=()):
    """Return the bytes of a model of one builtin operator.

    builtin : its name, e.g. "ADD"
    inputs, output : (shape, dtype name, scale, zero point); scale None: not quantized
    options : (name of the option type, {field: value})
    constants : arrays, further inputs; or (array, scale, zero point)
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    buffers = [schema.BufferT()]
    tensors = []

    def tensor(name, shape, dtype, scale, zero_point, data=None):
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), TYPES[dtype], 0
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [zero_point]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            buffers.append(buffer)
            made.buffer = len(buffers) - 1
        tensors.append(made)
        return len(tensors) - 1

    given = [tensor(f"in{i}", *described) for i, described in enumerate(inputs)]
    stored = []
    for i, constant in enumerate(constants):
        array, scale, zero_point = constant if isinstance(constant, tuple) else (constant, None, None)
        stored.append(tensor(f"c{i}", array.shape, array.dtype.name, scale, zero_point, array))
    made = tensor("out", *output)

    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, given + stored, [made]
    if options is not None:
        kind, fields = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(schema, kind + "T")()
        for field, value in fields.items():
            setattr(operator.builtinOptions, field, value)
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, builtin)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 99
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, given, [made], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    for wanted in (1, 2, 3, 4, 5, 6, 7):  # versions differ by operator and type: take the first one that is known
        code.version = wanted
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        yield bytes(builder.Output())


def run_litert(arrays, builtin, inputs, output, options=None, constants=()):
    """Return the output of LiteRT's reference kernel for `arrays`."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    problems = []
    for content in tflite_model(builtin, inputs, output, options, constants):
        try:
            interpreter = Interpreter(
                model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
            )
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            problems.append(error)
            continue
        for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()
    raise RuntimeError(f"{builtin}: {problems}")


def run_tflite_micro(array, builtin, given, output, options=None):
    """Return the output of TFLite Micro's kernel for one input."""
    from tflite_micro.python.tflite_micro import runtime

    content = next(iter(tflite_model(builtin, [given], output, options)))
    interpreter = runtime.Interpreter.from_bytes(content)
    interpreter.set_input(array, 0)
    interpreter.invoke()
    return interpreter.get_output(0).copy()


def run_onnxruntime(arrays, nodes, output_dtype, constants):
    """Return what ONNX Runtime gives for a chain of nodes; every optimisation off, so that each node runs as it is.

    arrays : {name: fed array}; constants : {name: initializer}
    nodes : (kind, input names, output name, attributes); the last output is "out"; com.microsoft's kinds begin with it
    """
    import onnxruntime
    from onnx import helper, numpy_helper

    made = []
    for kind, inputs, output, attributes in nodes:
        domain, _, plain = kind.rpartition(":")
        made.append(helper.make_node(plain, list(inputs), [output], domain=domain, **attributes))
    graph = helper.make_graph(
        made,
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
        ],
        [helper.make_tensor_value_info("out", helper.np_dtype_to_tensor_dtype(np.dtype(output_dtype)), None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(arrays))[0]
