"""Make the bundled traces and networks: two quantizations of a small network for handwritten digits, and the float
networks (``digits_cnn_float*.npz``) of which ``accelsim quantize`` makes a trace in any other format.

    python traces/make_digits.py            write all of them (from the stored weights)
    python traces/make_digits.py --check    compare the files in this folder with what would be written
    python traces/make_digits.py --train    train the networks anew first, and store their weights

Needs ``pip install -e .[dev]``. Expected codes come from digits/reference.py, which shares no arithmetic with accelsim;
traces/README.md says what is the same on every machine, and why.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from digits import float_networks, script
from digits import network as net
from digits import quantized_training as aware
from digits import reference as integer
from digits.reference import Integers, Operand
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from accelsim import TraceBuilder, formats, load_trace
from accelsim.formats import QTensor
from accelsim.quantize.evaluate import evaluate
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.network_file import save_network

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "digits" / "weights.npz"
KINDS = ("int8", "int4_vsq")
DIMS = ("batch", "height", "width", "channel")
INT8_OUTPUTS = {"conv1": "uint8", "conv2": "int8", "fc1": "uint8", "fc2": "int8"}
VSQ_WEIGHT, VSQ_INPUT, VSQ_OUTPUT = "vsq_int4_v16_s4", "vsq_int4_v16_s4", "vsq_uint4_v16_s4"
ROUNDING = {"int8": "double_half_up_then_away", "int4_vsq": "half_up"}


@dataclass(frozen=True)
class Float:
    """The trained network and what it computes, float64.

    calibration : outputs by layer (and "input") on the training images; they set the scales, the test images do not
    reference : the same on the test images
    """

    params: net.Params
    calibration: dict[str, NDArray[np.float64]]
    reference: dict[str, NDArray[np.float64]]
    labels: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        return net.accuracy(self.reference["fc2"], self.labels)


def train() -> None:
    """Train the float network, then its variants with quantized weights, and store all weights."""
    digits = net.load()
    with threadpool_limits(1):  # the order of float additions must not depend on the number of cores
        params = net.train(digits)
        np.savez_compressed(WEIGHTS, **params)
        for variant in aware.VARIANTS.values():
            np.savez_compressed(variant_weights(variant.name), **aware.train(variant, digits, params))


def variant_weights(name: str) -> Path:
    """The stored weights of a network that was trained with quantized weights."""
    return FOLDER / "digits" / f"weights_{name}.npz"


def stored(path: Path) -> net.Params:
    """The weights in a file."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def float_network() -> Float:
    """Evaluate the stored float network on all images."""
    digits = net.load()
    params = stored(WEIGHTS)
    return Float(
        params,
        net.evaluate(params, digits.train_images) | {"input": digits.train_images},
        net.evaluate(params, digits.test_images) | {"input": digits.test_images},
        digits.test_labels,
    )


@dataclass(frozen=True)
class Output:
    """A layer's output: its encoding, and the codes that it must have.

    lanes : the codes as the next layer multiplies them
    """

    format: str
    scale: float
    zero_point: int
    codes: Integers
    lanes: Operand


def int8_output(layer: str, acc: Integers, acc_scale: NDArray[np.float64], network: Float) -> Output:
    """Asymmetric 8 bits, range from the calibration's smallest and largest value; rule R1; ReLU at the zero point."""
    kind = formats.get(INT8_OUTPUTS[layer])
    calibrated = kind.quantize(network.calibration[layer], asymmetric=True)
    scale, zero_point = float(calibrated.scale), int(calibrated.zero_point)
    codes = integer.double_half_up_then_away(acc, acc_scale / scale) + zero_point
    low = kind.low if layer == "fc2" else max(kind.low, zero_point)
    codes = np.clip(codes, low, kind.high)
    return Output(kind.name, scale, zero_point, codes, Operand(codes - zero_point))


def vsq_output(layer: str, acc: Integers, acc_scale: NDArray[np.float64], network: Float) -> Output:
    """Unsigned 4-bit VSQ after ReLU, gamma from the calibration's largest value; the logits are symmetric int8."""
    kind = formats.get("int8" if layer == "fc2" else VSQ_OUTPUT)
    scale = float(kind.quantize(network.calibration[layer]).scale)
    if layer == "fc2":
        codes = np.clip(integer.half_up(acc, acc_scale / scale), kind.low, kind.high)
        return Output(kind.name, scale, 0, codes, Operand(codes))
    lanes = integer.vsq_encode(acc, acc_scale / scale)
    return Output(kind.name, scale, 0, lanes.values, lanes)


def operand(tensor: QTensor) -> Operand:
    """A stored tensor as the multipliers see it."""
    scales = None if tensor.block_scales is None else tensor.block_scales.astype(np.int64)
    return Operand(tensor.codes.astype(np.int64) - tensor.per_channel(tensor.zero_point), scales)


def build(kind: str, network: Float) -> tuple[TraceBuilder, Integers]:
    """Quantize the network, compute the expected codes of the test images; return the trace and the logits' codes."""
    vsq = kind == "int4_vsq"
    images = network.reference["input"]
    pixels = network.calibration["input"]
    if vsq:
        gamma = formats.get(VSQ_INPUT).quantize(pixels).scale
        first = formats.get(VSQ_INPUT).quantize(images, scale=gamma)
    else:
        calibrated = formats.get("uint8").quantize(pixels, asymmetric=True)
        first = formats.get("uint8").quantize(images, scale=calibrated.scale, zero_point=calibrated.zero_point)

    builder = TraceBuilder(f"digits_cnn_{kind}", DESCRIPTION[kind])
    handle = builder.input("image", first, DIMS)
    x, x_scale = operand(first), float(first.scale)
    for layer in (*net.CONVS, *net.LINEARS):
        weight = formats.get(VSQ_WEIGHT if vsq else "int8").quantize(
            network.params[f"{layer.name}/weight"], -1 if vsq else None, channel_axis=0
        )
        acc_scale = x_scale * weight.scale
        bias = np.rint(network.params[f"{layer.name}/bias"] / acc_scale).astype(np.int64)
        if isinstance(layer, net.Conv):
            acc = integer.conv2d(x, operand(weight), layer.stride) + bias
        else:
            acc = integer.linear(x.reshaped(len(images)), operand(weight)) + bias
        out = (vsq_output if vsq else int8_output)(layer.name, acc, acc_scale, network)
        common = {
            "weight": weight,
            "bias": bias,
            "output": out.format,
            "scale": out.scale,
            "zero_point": out.zero_point,
            "rounding": ROUNDING[kind],
            "activation": "none" if layer.name == "fc2" else "relu",
            "expected": out.codes,
            "expected_block_scales": out.lanes.block_scales,
            "reference": network.reference[layer.name].astype(np.float16),
        }
        if isinstance(layer, net.Conv):
            handle = builder.conv2d(layer.name, handle, stride=layer.stride, padding=1, **common)
        else:
            handle = builder.linear(layer.name, handle, flatten=layer.name == "fc1", **common)
        x, x_scale = out.lanes, out.scale
    builder.labels(network.labels)
    return builder, out.codes


_NETWORK = (
    "Handwritten digits, 8x8 pixels: conv 3x3 stride 2 1->16, conv 3x3 16->32, fully connected 512->64->10, ReLU. "
    "UCI Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; CC BY 4.0), as shipped by scikit-learn. "
)
DESCRIPTION = {
    "int8": _NETWORK + "uint8 and int8 activations with zero points, int8 weights with a scale per output channel.",
    "int4_vsq": _NETWORK + "4-bit VS-Quant: 16 elements share a 4-bit scale, weights and activations; int8 logits.",
    "xnor": "Trained with binary weights in conv2 and fc1, scaled per output channel, and with signs in place of ReLU "
    "after conv1 and conv2.",
    "bwn": "Trained with binary weights in conv2 and fc1, scaled per output channel.",
    "ternary": "Trained with ternary weights in conv2 and fc1, scaled per output channel.",
}


def networks() -> dict[Path, FloatNetwork]:
    """The float networks by the files that hold them."""
    digits = net.load()
    made = {FOLDER / "digits_cnn_float.npz": float_networks.build("digits_cnn", _NETWORK, digits, stored(WEIGHTS))}
    for variant in aware.VARIANTS.values():
        params = stored(variant_weights(variant.name))
        text = _NETWORK + DESCRIPTION[variant.name]
        path = FOLDER / f"digits_cnn_float_{variant.name}.npz"
        made[path] = float_networks.build("digits_cnn", text, digits, params, variant)
    return made


def write(network: Float) -> None:
    """Write all files and print the accuracy."""
    for path, floats in networks().items():
        save_network(path, floats)
        accuracy = net.accuracy(evaluate(floats, floats.inputs)["fc2"], floats.labels)
        print(f"{path.name}: accuracy {100 * accuracy:.2f} %, {path.stat().st_size} bytes")
    if net.accuracy(network.reference["fc2"].astype(np.float16), network.labels) != network.accuracy:
        sys.exit("the stored reference (float16) classifies otherwise than the float network; store float32")
    print(f"{len(network.labels)} test images; float accuracy {100 * network.accuracy:.2f} %")
    for kind in KINDS:
        builder, logits = build(kind, network)
        path = FOLDER / f"digits_cnn_{kind}.npz"
        builder.save(path)
        quantized = net.accuracy(logits, network.labels)
        difference = 100 * (quantized - network.accuracy)
        print(f"{path.name}: accuracy {100 * quantized:.2f} % ({difference:+.2f} points), {path.stat().st_size} bytes")


def check(network: Float) -> None:
    """Exit with a message unless the files in this folder have exactly the content that would be written."""
    for path, floats in networks().items():
        with tempfile.TemporaryDirectory() as folder:
            made = npz_digest(save_network(Path(folder) / path.name, floats))
        if npz_digest(path) != made:
            sys.exit(f"{path}: is not what this script makes; run it without --check")
        print(f"{path.name}: digest {made}, as made")
    for kind in KINDS:
        path = FOLDER / f"digits_cnn_{kind}.npz"
        found, made = load_trace(path).digest, build(kind, network)[0].build().digest
        if found != made:
            sys.exit(f"{path}: has digest {found}, but this script makes {made}; run it without --check")
        print(f"{path.name}: digest {found}, as made")


def npz_digest(path: Path) -> str:
    """Digest of an archive's entries: names, sizes and checksums, however they are packed."""
    with zipfile.ZipFile(path) as archive:
        entries = sorted((info.filename, info.file_size, info.CRC) for info in archive.infolist())
    return hashlib.sha256(repr(entries).encode()).hexdigest()[:16]


if __name__ == "__main__":
    script.run(__doc__, train=train, write=lambda: write(float_network()), check=lambda: check(float_network()))
