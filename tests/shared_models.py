"""The shared TFLite models with the data that suits them: what both the tests and the table of docs/import.md use."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from shared_data import shared


def _data(file):
    with np.load(shared("data", file)) as archive:
        return {name: archive[name] for name in archive.files}


def _pixels(file):
    data = _data(file)
    return (data["images"].astype(np.int16) - 128).astype(np.int8), data["labels"]


def _mnist():
    data = _data("mnist_test1000.npz")
    return data["images"][..., None].astype(np.float32) / np.float32(255), data["labels"]


def _keywords():
    data = _data("kws01_mfcc_int8_500.npz")
    return data["features"], data["labels"]


def _wake_word():
    data = _data("sww01_calibration45.npz")
    return data["specs"], data["labels"]


def _people_80():
    from PIL import Image

    data = _data("vww96_cc_by.npz")
    small = [np.asarray(Image.fromarray(image).resize((80, 80), Image.Resampling.BILINEAR)) for image in data["images"]]
    return np.stack(small).astype(np.float32) / np.float32(127.5) - np.float32(1), data["labels"]


def _noise(shape, dtype):
    info = np.iinfo(dtype)
    return np.random.default_rng(0).integers(info.min, info.max + 1, (8, *shape)).astype(dtype), None


@dataclass(frozen=True)
class SharedModel:
    """name : of the file, without .tflite; load : gives (inputs, labels or None); float_output : what the stored
    reference outputs are: "codes", "dequantized", or "log_softmax" of the dequantized; None: there are none
    """

    name: str
    load: Callable
    outputs: str | None = "codes"

    @property
    def path(self):
        return str(shared("models", f"{self.name}.tflite"))


MODELS = (
    SharedModel("mnist_lenet300_int8", _mnist, "log_softmax"),
    SharedModel("kws01_dscnn_int8", _keywords),
    SharedModel("sww01_dsconv1d_int8", _wake_word),
    SharedModel("ic01_resnet8_int8", lambda: _pixels("cifar10_test500.npz")),
    SharedModel("ic01_resnet8_wide_int8", lambda: _pixels("cifar10_test500.npz")),
    SharedModel("vww01_mobilenetv1_int8", lambda: _pixels("vww96_cc_by.npz")),
    SharedModel("vww_mcunet_int8", _people_80, "dequantized"),
    SharedModel("ad01_fcae_int8", lambda: _noise((640,), np.int8), None),
    SharedModel("micro_speech_int8", lambda: _noise((1960,), np.int8), None),
    SharedModel("imagenet_mobilenetv1_025_128_uint8", lambda: _noise((128, 128, 3), np.uint8), None),
    SharedModel("imagenet_mobilenetv2_100_224_int8", lambda: _noise((224, 224, 3), np.uint8), None),
)
"""Of the last four there are no stored reference outputs, and their data here is noise."""


def reference_outputs(model, runtime):
    """Return what a runtime ("litert_ref" or "tflm") gave for every sample."""
    with np.load(shared("data", "reference_outputs.npz")) as archive:
        return archive[f"{model.name}__{runtime}"]


def as_reference(model, codes, scale, zero_point):
    """Return the network's last codes as the stored outputs have them: float32 where the file ends in floats."""
    if model.outputs == "codes":
        return codes
    reals = (codes - zero_point).astype(np.float32) * np.float32(scale)
    if model.outputs == "dequantized":
        return reals
    reals = reals.astype(np.float64)
    reals -= reals.max(axis=1, keepdims=True)
    return reals - np.log(np.exp(reals).sum(axis=1, keepdims=True))


def differing_samples(model, found, reference):
    """Return how many samples differ from the stored outputs. Log-softmax is a float function that the host computes:
    there the distance of two values of a sample counts, in steps of a code.
    """
    if model.outputs == "log_softmax":
        return int(np.count_nonzero(np.any(np.abs(found - reference) > 1e-4, axis=1)))
    return int(np.count_nonzero(np.any(found != reference, axis=1)))
