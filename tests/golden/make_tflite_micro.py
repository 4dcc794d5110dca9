"""Make tests/golden/tflite_micro.json: what TFLite Micro gives for the models of test_importers_tflite_micro.py.

Two steps, for the package tflite-micro wants a numpy of its own::

    PYTHONPATH=tests:tests/importers python tests/golden/make_tflite_micro.py models FOLDER
    python tests/golden/make_tflite_micro.py run FOLDER             (with tflite-micro installed)
"""

import json
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("tflite_micro.json")


def models(folder):
    from test_importers_tflite_micro import MODELS

    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        net, inputs, output, data = make()
        net.save(folder / f"{name}.tflite", inputs, [output])
        np.savez(folder / f"{name}.npz", *data)


def run(folder):
    from importlib.metadata import version

    from tflite_micro.python.tflite_micro import runtime

    outputs = {}
    for path in sorted(folder.glob("*.tflite")):
        interpreter = runtime.Interpreter.from_file(str(path))
        with np.load(path.with_suffix(".npz")) as data:
            for i, name in enumerate(data.files):
                interpreter.set_input(data[name], i)
        interpreter.invoke()
        outputs[path.stem] = interpreter.get_output(0).reshape(-1).tolist()
    made_by = f"tflite-micro {version('tflite-micro')}, tests/golden/make_tflite_micro.py"
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(codes)}" for name, codes in outputs.items())
    GOLDEN.write_text(f'{{"made_by": {json.dumps(made_by)},\n "outputs": {{\n{rows}\n }}}}\n')


if __name__ == "__main__":
    {"models": models, "run": run}[sys.argv[1]](Path(sys.argv[2]))
