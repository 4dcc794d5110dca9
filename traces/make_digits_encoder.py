"""Make the bundled transformer encoder: its float network, and the trace that ``accelsim quantize`` makes of it.

    python traces/make_digits_encoder.py            write both (from the stored weights)
    python traces/make_digits_encoder.py --check    compare the files in this folder with what would be written
    python traces/make_digits_encoder.py --train    train the network anew first, and store its weights

Needs ``pip install -e .[dev]``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from digits import encoder, float_networks, script
from digits import network as net
from threadpoolctl import threadpool_limits

from accelsim import TraceBuilder, load_trace
from accelsim.quantize.convert import trace_builder
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.network_file import load_network, save_network
from accelsim.quantize.transformer import encoder_network

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "digits" / "weights_encoder.npz"
FLOAT, INT8 = FOLDER / "digits_encoder_float.npz", FOLDER / "digits_encoder_int8.npz"
DESCRIPTION = (
    "Handwritten digits, 8x8 pixels, as 8 tokens (rows): a transformer encoder of 2 post-norm blocks, width 32, 4 "
    "heads, feed forward 64 with GELU; the mean of the tokens classifies. UCI Optical Recognition of Handwritten "
    "Digits (E. Alpaydin, C. Kaynak; CC BY 4.0), as shipped by scikit-learn."
)


def train() -> None:
    """Train the network and store its weights."""
    with threadpool_limits(1):  # the order of float additions must not depend on the number of cores
        np.savez_compressed(WEIGHTS, **encoder.train(net.load()))


def float_network() -> FloatNetwork:
    """The network with the test images as its batch, and the first training images to calibrate on."""
    digits = net.load()
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        params = dict(stored)
    calibration = digits.train_images[: float_networks.CALIBRATION_IMAGES]
    return encoder_network(
        params,
        encoder.rows(digits.test_images).astype(np.float16),
        heads=encoder.HEADS,
        epsilon=encoder.EPSILON,
        calibration=encoder.rows(calibration).astype(np.float16),
        labels=digits.test_labels.astype(np.uint8),
        name="digits_encoder",
        description=DESCRIPTION,
    )


def int8_trace(network: FloatNetwork) -> TraceBuilder:
    """What ``accelsim quantize digits_encoder_float.npz --preset int8 --references outputs`` makes."""
    return trace_builder(network, weights="int8", activations="int8", references="outputs", name="digits_encoder_int8")


def write() -> None:
    """Write both files and print the accuracy."""
    network = float_network()
    save_network(FLOAT, network)
    builder = int8_trace(network)
    builder.save(INT8)
    accuracy = net.accuracy(evaluate(network, network.inputs)["classifier"], network.labels)
    print(f"{FLOAT.name}: accuracy {100 * accuracy:.2f} %, {FLOAT.stat().st_size} bytes")
    print(f"{INT8.name}: {INT8.stat().st_size} bytes, digest {load_trace(INT8).digest}")


def check() -> None:
    """Exit with a message unless the files in this folder have exactly the content that would be written."""
    network = float_network()
    with tempfile.TemporaryDirectory() as folder:
        if save_network(Path(folder) / FLOAT.name, network).read_bytes() != FLOAT.read_bytes():
            sys.exit(f"{FLOAT}: is not what this script makes; run it without --check")
    found, made = load_trace(INT8).digest, int8_trace(load_network(FLOAT)).build().digest
    if found != made:
        sys.exit(f"{INT8}: has digest {found}, but this script makes {made}; run it without --check")
    print(f"{FLOAT.name}, {INT8.name}: digest {found}, as made")


if __name__ == "__main__":
    script.run(__doc__, train=train, write=write, check=check)
