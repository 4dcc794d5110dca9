"""The real search of docs/search.md: a keyword spotter, a machine of fusing multipliers and one of bit-serial ones."""

from pathlib import Path

import numpy as np

from accelsim.config.loader import load_config, parse_config
from accelsim.importers.api import float_model
from accelsim.search.run import Search
from accelsim.search.sensitivity import read_sensitivities

PROJECT = Path(__file__).resolve().parents[1]
SENSITIVITIES = PROJECT / "tests" / "search" / "kws_sensitivities.csv"
CALIBRATION = 100
MACHINES = {
    "cloud": ("bitfusion", {"kind": "hbm2", "timing": "preset"}),
    "edge": ("bitserial", {"kind": "lpddr4", "timing": "preset", "channels": 1, "bytes_per_cycle": 1.0}),
}
LATENCY = {"cloud": "90%", "edge": "50%"}


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
