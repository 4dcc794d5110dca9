"""Remake operators_external.json: what LiteRT's reference kernels and ONNX Runtime compute, a few cases an operator.

    pip install ai-edge-litert==2.3.0 flatbuffers tflite-micro onnx==1.23.2 onnxruntime==1.31.1
    python tests/golden/make_operators_external.py

The cases are those of tests/operators/runtime_cases.py, the first small ones. On x86 both runtimes give the same codes
on every machine for these operators; ONNX Runtime's QLinearAdd has another path on Arm.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "operators"), str(HERE.parent.parent)]

import runtime_cases  # noqa: E402

CASES = 3
TABLES = 9  # enough for every function of runtime_cases.TABLES
LARGEST = 256  # elements of a case's output


def some(make, name):
    """Return the first small cases of an operator, computed by the runtime."""
    found, seed = [], 1000
    while len(found) < (TABLES if name == "lookup" else CASES):
        operator, attributes, inputs, output, call = make(name, np.random.default_rng(seed))
        seed += 1
        if np.prod(output[0]) <= LARGEST:
            tensors = [{"codes": x[0].tolist(), "format": x[1], "scale": x[2], "zero_point": x[3]} for x in inputs]
            made = {"format": str(output[1]), "scale": output[2], "zero_point": output[3], "codes": call().tolist()}
            found.append({"operator": operator, "attributes": attributes, "inputs": tensors, "output": made})
    return found


def main():
    packages = ("ai-edge-litert", "tflite_micro", "onnx", "onnxruntime")
    document = {
        "made_by": {name: version(name) for name in packages},
        "litert": [case for name in runtime_cases.LITERT for case in some(runtime_cases.litert_case, name)],
        "onnxruntime": [
            case for name in runtime_cases.ONNXRUNTIME for case in some(runtime_cases.onnxruntime_case, name)
        ],
        "tflite_micro_tables": [
            {"function": function, "codes": runtime_cases.micro_table(function, given, made).tolist()}
            for function, given, made in runtime_cases.MICRO_TABLES
        ],
        "onnxruntime_means": [runtime_cases.mean_of_sums(*case)[2]().ravel().tolist() for case in runtime_cases.MEANS],
    }
    parts = []
    for key, value in document.items():
        lines = [json.dumps(item, separators=(",", ":")) for item in value] if isinstance(value, list) else None
        text = "[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(value)
        parts.append(f"{json.dumps(key)}: {text}")
    (HERE / "operators_external.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
