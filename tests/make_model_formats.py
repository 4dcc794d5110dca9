"""The table of docs/model_formats.md: ResNet-8 on CIFAR-10 images in several number formats.

    python tests/make_model_formats.py      run all of them, write them into the page (about two minutes)

Needs the shared models and data (tests/shared_data.py).
"""

import re

import numpy as np
from shared_data import PROJECT, shared

import accelsim
from accelsim.importers.api import float_model
from accelsim.quantize.assignment import read_assignment
from accelsim.quantize.requantizer import Requantizer

PAGE = PROJECT / "docs" / "model_formats.md"
BEGIN, END = "<!-- table: made by tests/make_model_formats.py -->", "<!-- end of table -->"
IMAGES = 100
EDGES = "0_*:int8, 14_*:int8, "
ROWS = (
    ("*:int8", "mse"),
    ("*:int6", "mse"),
    ("*:int4", "mse"),
    ("*:int4", "minmax"),
    (f"{EDGES}*:int4", "mse"),
    (f"{EDGES}*:int4/int8", "mse"),
    ("*:vsq4", "mse"),
    (f"{EDGES}*:vsq4", "mse"),
    ("*:mx9", "mse"),
    ("*:mx6", "mse"),
    (f"{EDGES}*:mx6", "mse"),
    ("*:mxfp8_e4m3", "mse"),
    ("*:mxfp4", "mse"),
    (f"{EDGES}*:mxfp4", "mse"),
    (f"{EDGES}8_*:int4/int8, 9_*:int4/int8, 10_*:int4/int8, *:mx6", "mse"),
)
HEADER = ("formats", "ranges", "weights, KiB", "float", "simulated", "same class", "SQNR dB", "lowest layer, dB")


def requantizers():
    """The calibrated float network, by rule."""
    with np.load(shared("data", "cifar10_test500.npz")) as data:
        path = str(shared("models", "ic01_resnet8_float.tflite"))
        network = float_model(path, data["images"], labels=data["labels"], batch=IMAGES)
    return {ranges: Requantizer(network, ranges=ranges) for ranges in ("mse", "minmax")}


def cells(text, ranges, calibrated):
    """A row of the table."""
    requantizer = calibrated[ranges]
    config = accelsim.load_config(PROJECT / "configs" / "mixed.yaml")
    trace = requantizer.trace(read_assignment(text, requantizer.network))
    report = accelsim.simulate(config, trace, watch=False)
    accuracy = report.accuracy
    lowest = min(layer.accuracy.sqnr_db for layer in report.layers if layer.accuracy is not None)
    return (
        f"`{text}`",
        ranges,
        f"{trace.weight_bytes / 1024:.1f}",
        f"{accuracy.float_accuracy:.0%}",
        f"{accuracy.simulated_accuracy:.0%}",
        f"{accuracy.agreement:.0%}",
        f"{report.network.sqnr_db:.1f}",
        f"{lowest:.1f}",
    )


def line(row):
    return f"| {' | '.join(row)} |"


def main():
    calibrated = requantizers()
    lines = [line(HEADER), line(["---", "---", *["---:"] * (len(HEADER) - 2)])]
    for text, ranges in ROWS:
        lines.append(line(cells(text, ranges, calibrated)))
        print(lines[-1], flush=True)
    table = "\n".join(lines)
    page = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
