"""Print the accuracy table of docs/import.md: every shared model on all of its samples, under both semantics.

python tests/make_model_table.py [MODEL...]        (some ten minutes)
"""

import sys
import time

import numpy as np
from shared_data import PROJECT
from shared_models import MODELS, as_reference, differing_samples, reference_outputs

import accelsim

RUNTIMES = {"tflite-reference": "litert_ref", "tflite-micro": "tflm"}
SLICE = 125  # samples at once


def outputs_of(model, inputs, semantics, config):
    """Return the network's outputs for all samples, as the stored ones have them."""
    parts = []
    for start in range(0, len(inputs), SLICE):
        trace = accelsim.import_model(model.path, inputs[start : start + SLICE], semantics)
        report = accelsim.simulate(config, trace, watch=False)
        layer = next(layer for layer in trace.layers if layer.output == trace.outputs[-1])
        codes = next(each.output_codes for each in report.layers if each.name == layer.name)
        _, scale, zero_point = trace.output_factors(layer)
        parts.append(as_reference(model, codes, scale, zero_point))
    return np.concatenate(parts)


def main(names):
    config = accelsim.load_config(PROJECT / "configs" / "int8_reference.yaml")
    print("| model | samples | semantics | runtime: correct | accelsim: correct | samples with another output |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for model in MODELS:
        if model.outputs is None or (names and model.name not in names):
            continue
        inputs, labels = model.load()
        for semantics, runtime in RUNTIMES.items():
            start = time.monotonic()
            found, wanted = outputs_of(model, inputs, semantics, config), reference_outputs(model, runtime)
            right = [int(np.count_nonzero(each.argmax(axis=1) == labels)) for each in (wanted, found)]
            differing = differing_samples(model, found, wanted)
            cells = (f"`{model.name}`", len(inputs), semantics, *right, differing)
            print("|", " | ".join(map(str, cells)), "|", flush=True)
            print(f"{model.name}, {semantics}: {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
