"""What tests of the ONNX importers share: small models made with onnx.helper, run by ONNX Runtime and by accelsim."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import accelsim

onnx = pytest.importorskip("onnx", reason="the ONNX importers need the onnx package: pip install 'accelsim[import]'")
CONFIG = Path(__file__).parents[1] / "configs" / "int8_reference.yaml"  # its PPU rounds as each layer asks


@cache
def machine():
    """Return the machine that every model runs on."""
    return accelsim.load_config(CONFIG)


def runtime():
    """Return onnxruntime, or skip loudly."""
    return pytest.importorskip("onnxruntime", reason="needs ONNX Runtime, a test extra: pip install 'accelsim[test]'")


def node(op, inputs, outputs, domain="", **attributes):
    return onnx.helper.make_node(op, inputs, outputs, domain=domain, **attributes)


def model(nodes, inputs, outputs, constants, *, opset=19, domains=("com.microsoft",)):
    """Return a model.

    inputs : {name: (dtype, shape)};  outputs : {name: (dtype, rank)};  constants : {name: array}
    """
    helper = onnx.helper

    def info(name, dtype, shape):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    graph = helper.make_graph(
        nodes,
        "small",
        [info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [info(name, dtype, [f"{name}_{i}" for i in range(rank)]) for name, (dtype, rank) in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def saved(made, folder, name="model.onnx"):
    path = Path(folder) / name
    onnx.save(made, path)
    return path


def run_onnxruntime(made, feeds, *, optimised=True, batches=1):
    """Return {output: array}; a batch larger than the file's is run piece by piece."""
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    pieces = [
        session.run(None, {name: np.array_split(array, batches)[i] for name, array in feeds.items()})
        for i in range(batches)
    ]
    return {name: np.concatenate([piece[i] for piece in pieces]) for i, name in enumerate(names)}


def simulated(path, feeds, *, verify=False, **options):
    """Return (the report of a run of an imported model, its codes by the names of the model's own tensors)."""
    from accelsim.importers.onnx_model import import_onnx, read_onnx

    trace = import_onnx(path, feeds, **options)
    report = accelsim.simulate(machine(), trace, verify=verify)
    made = {layer.output: result.output_codes for layer, result in zip(trace.layers, report.layers, strict=True)}
    views = {name: codes.view for name, codes in read_onnx(path).views.items()}
    return report, {name: view.to_onnx(made[view.tensor]) for name, view in views.items() if view.tensor in made}


def assert_bit_exact(made, feeds, folder, *, optimised=True, batches=1, verify=False):
    """Run a model with ONNX Runtime and with accelsim; every output must have the same codes, in ONNX's shape, and the
    trace must find them equal to those that it was told to expect. Returns the report.
    """
    wanted = run_onnxruntime(made, feeds, optimised=optimised, batches=batches)
    report, codes = simulated(saved(made, folder), feeds, expected=wanted, verify=verify)
    for name, array in wanted.items():
        np.testing.assert_array_equal(codes[name], array, err_msg=name)
    assert all(layer.mismatches in (0, None) for layer in report.layers)
    assert any(layer.mismatches == 0 for layer in report.layers)
    if verify:
        assert all(layer.verified == 0 for layer in report.layers)
    return report
