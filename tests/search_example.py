"""The real search of docs/search.md: a keyword spotter, a machine of fusing multipliers and one of bit-serial ones."""

import csv
from pathlib import Path

import numpy as np

from accelsim.config.loader import load_config, parse_config
from accelsim.importers.api import float_model
from accelsim.search.candidate import Widths, uniform
from accelsim.search.run import Search
from accelsim.search.sensitivity import read_sensitivities

PROJECT = Path(__file__).resolve().parents[1]
SENSITIVITIES = PROJECT / "tests" / "search" / "kws_sensitivities.csv"
RUNS = PROJECT / "tests" / "search" / "kws_runs.csv"
CALIBRATION, HELD_OUT = 100, 400
MACHINES = {
    "cloud": ("bitfusion", {"kind": "hbm2", "timing": "preset"}),
    "edge": ("bitserial", {"kind": "lpddr4", "timing": "preset", "channels": 1, "bytes_per_cycle": 1.0}),
}
ENERGY_SHARES = tuple(f"{share}%" for share in range(45, 100, 5))
LATENCY_POINTS = 7
KEPT = 352
"""Correct answers of 400, 88 %: what a machine's policy keeps."""


def machine(name):
    """Return a machine with DRAM that takes time: HBM2 around bitfusion.yaml; 0.2 GB/s around bitserial.yaml."""
    base, dram = MACHINES[name]
    config = load_config(PROJECT / "configs" / f"{base}.yaml").model_dump(mode="json")
    config["dram"].update(dram)
    return parse_config({**config, "name": f"{base}_{name}"})


def keyword_spotter(folder):
    """Return the float DS-CNN of MLPerf Tiny with its 500 inputs; `folder` finds shared files."""
    data = np.load(folder("data", "kws01_mfcc_int8_500.npz"))
    features = (data["features"].astype(np.float32) - 83) * np.float32(0.5847029)
    return float_model(folder("models", "kws01_dscnn_float.tflite"), features, labels=data["labels"])


def search_on(name, network):
    """Return the search on a machine, with the sensitivities that were measured before."""
    return Search(machine(name), network, calibration=CALIBRATION, sensitivities=read_sensitivities(SENSITIVITIES))


def uniform_assignments(network):
    """Return label -> widths: all 49 pairs of weight and input bits, and one width between ends of 8 bits."""
    found = {f"uniform {w}/{a}": uniform(network, w, a) for w in range(2, 9) for a in range(2, 9)}
    return found | {f"ends 8, inner {bits}": between_ends(network, bits) for bits in range(2, 8)}


def between_ends(network, bits):
    """Return one width everywhere, and 8 bits in the first and the last layer."""
    names = [layer.name for layer in network.array_layers]
    return uniform(network, bits) | {names[0]: Widths(8, 8), names[-1]: Widths(8, 8)}


def energy_limits(search):
    """Return label -> limit: what the uniform networks take, and shares of what 8 bits everywhere do."""
    network = search.network
    pairs = [(3, 2), (4, 2), *((bits, bits) for bits in range(3, 9))]
    given = {f"uniform {w}/{a}": uniform(network, w, a) for w, a in pairs}
    given |= {f"ends 8, inner {bits}": between_ends(network, bits) for bits in range(4, 8)}
    limits = {label: search.costs(widths)["energy"] for label, widths in given.items()}
    return limits | dict(zip(ENERGY_SHARES, ENERGY_SHARES, strict=True))


def read_runs(network):
    """Return label -> (widths, correct answers of 400): the bit-accurate runs behind the page."""
    names = [layer.name for layer in network.array_layers]
    found = {}
    with RUNS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pairs = [Widths(*map(int, pair.split("/"))) for pair in row["widths"].split()]
            found[row["label"]] = dict(zip(names, pairs, strict=True)), int(row["correct"])
    return found


def policies(runs, searches):
    """Return machine -> widths: of each machine's front of latency, the fastest that keep 88 % of the answers."""
    found = {}
    for name, search in searches.items():
        own = [
            (search.costs(widths)["latency"], label, widths)
            for label, (widths, correct) in runs.items()
            if label.startswith(f"{name} latency") and correct >= KEPT
        ]
        found[name] = min(own)[2]
    return found
