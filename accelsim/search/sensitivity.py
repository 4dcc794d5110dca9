"""How much a network suffers when one layer alone gets fewer bits: measured on the simulated machine, or supplied.

Losses of layers are taken to add up, and within a layer those of its weights and of its inputs (HAWQ-V3 makes the first
of these assumptions). Searches choose by the sums; the assignment that they find is run as a whole.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.config.model import HardwareConfig
from accelsim.errors import SearchError, did_you_mean, problem_list
from accelsim.progress import ProgressCallback, layer_progress
from accelsim.quantize.network import FloatNetwork
from accelsim.quantize.ranges import RangeRule, weight_of
from accelsim.quantize.requantizer import Requantizer
from accelsim.search.candidate import Widths, formats_of, outputs_of
from accelsim.trace.reader import Trace

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["kl", "cross_entropy", "noise"]
MEASURES: tuple[Measure, ...] = ("kl", "cross_entropy", "noise")
OPERANDS = ("weight", "activation")


@dataclass(frozen=True)
class Sensitivity:
    """What one operand of one layer does to the network at one width, all others at `base` bits.

    loss : increase over the base, in the unit of the measure; never less than at a greater width
    """

    layer: str
    operand: str
    bits: int
    loss: float


@dataclass(frozen=True)
class Sensitivities:
    """Losses of all layers, operands and widths.

    measure : "kl", "cross_entropy" (nats an input), "noise" (output noise over signal, a power ratio), "hessian" or
        "supplied"
    """

    measure: str
    rows: tuple[Sensitivity, ...]

    @property
    def of_activations(self) -> bool:
        """Whether anything is known of activations; of Hessian traces, nothing is."""
        return any(row.operand == "activation" for row in self.rows)

    def frame(self) -> pd.DataFrame:
        """Return columns layer, operand, bits, loss."""
        import pandas as pd

        return pd.DataFrame([vars(row) for row in self.rows])

    def array(
        self, layers: Sequence[str], weight_bits: Sequence[int], activation_bits: Sequence[int]
    ) -> NDArray[np.float64]:
        """Return the loss of each pair of widths, [layers, weight widths, activation widths].

        Raises SearchError for what is missing.
        """
        known = {(row.layer, row.operand, row.bits): row.loss for row in self.rows}
        missing = [(layer, "weight", bits) for layer in layers for bits in weight_bits]
        if self.of_activations:
            missing += [(layer, "activation", bits) for layer in layers for bits in activation_bits]
        missing = [key for key in missing if key not in known]
        if missing:
            layer, operand, bits = missing[0]
            raise SearchError(
                f"sensitivities: {len(missing)} are missing, the first is layer {layer!r}, {operand}s of {bits} bits"
            )
        return np.array(
            [
                [
                    [known[layer, "weight", w] + known.get((layer, "activation", a), 0.0) for a in activation_bits]
                    for w in weight_bits
                ]
                for layer in layers
            ]
        )


def measure_sensitivities(
    requantizer: Requantizer,
    config: HardwareConfig,
    weight_bits: Iterable[int] = range(2, 9),
    activation_bits: Iterable[int] = range(2, 9),
    *,
    measure: Measure = "kl",
    base: int = 8,
    progress: ProgressCallback | bool | None = None,
) -> Sensitivities:
    """Return what each layer's weights, and its inputs, cost the network at each width, all else at `base` bits.

    requantizer : the float network with its calibration; its inputs are what the loss is measured on, which should not
        be those that the accuracy will be reported of
    measure : "kl": divergence of the classes' probabilities from the float network's; "cross_entropy": with the labels;
        "noise": power of the outputs' error over that of the float outputs, 10^(-SQNR / 10)
    progress : True: a bar on a terminal or in a notebook, elsewhere a line every ten seconds; or a callback

    Each network is run bit-accurately on the configured machine: one run for each layer, operand and width. A layer is
    never taken to suffer less from fewer bits than from more: what looks so is chance, and the larger loss counts.

    Raises SearchError (no labels; a measure unknown) and what a run raises.

    >>> from accelsim import load_config
    >>> from accelsim.quantize.network_file import load_network
    >>> requantizer = Requantizer(load_network("traces/digits_cnn_float.npz").head(20))
    >>> found = measure_sensitivities(requantizer, load_config("configs/bitfusion.yaml"), [2, 8], [8])
    >>> losses = found.array(["conv1", "conv2", "fc1", "fc2"], [2, 8], [8])  # [layers, widths, widths]
    >>> losses.shape, bool((losses[:, 0] > losses[:, 1]).all())
    ((4, 2, 1), True)
    """
    if measure not in MEASURES:
        raise SearchError(f"measure {measure!r} is unknown{did_you_mean(measure, MEASURES)}; use {', '.join(MEASURES)}")
    names = [layer.name for layer in requantizer.network.array_layers]
    loss_of = RunLoss(requantizer.network, measure)
    jobs = [
        (name, operand, bits)
        for name in names
        for operand, widths in zip(OPERANDS, (set(weight_bits), set(activation_bits)), strict=True)
        for bits in sorted(widths)
    ]
    everywhere = {name: Widths(base, base) for name in names}
    floor = loss_of(requantizer.trace(formats_of(everywhere)), config)
    found: dict[tuple[str, str, int], float] = {}
    with layer_progress(progress, "runs") as tell:
        for done, (name, operand, bits) in enumerate(jobs):
            tell(done, len(jobs), f"{name} {operand} {bits} bits")
            changed = {**everywhere, name: Widths(bits, base) if operand == "weight" else Widths(base, bits)}
            found[name, operand, bits] = (
                0.0 if bits == base else loss_of(requantizer.trace(formats_of(changed)), config) - floor
            )
        tell(len(jobs), len(jobs), "")
    return Sensitivities(measure, tuple(_monotone(found)))


def hessian_sensitivities(
    network: FloatNetwork, traces: Mapping[str, float], weight_bits: Iterable[int] = range(2, 9)
) -> Sensitivities:
    """Return trace x ||W - Q(W)||^2 of every layer and width (HAWQ-V2 and V3), weights alone.

    traces : by layer, the mean of the Hessian's diagonal over the layer's weights, from elsewhere; 0 or more

    They say nothing of activations: searches give a layer's inputs the width of its weights, as HAWQ-V3 does. Weights
    are quantized as networks are: a scale for each output channel, of least squared error. Raises SearchError where
    layers and traces do not agree, or one is negative.

    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz").head(1)
    >>> traces = {"conv1": 4.0, "conv2": 2.0, "fc1": 0.5, "fc2": 1.0}
    >>> losses = hessian_sensitivities(network, traces, [2, 4]).frame()
    >>> losses.query("layer == 'fc1'").bits.tolist(), bool((losses.loss > 0).all())
    ([2, 4], True)
    """
    layers = {layer.name: layer for layer in network.array_layers if layer.weight is not None}
    unknown = [name for name in traces if name not in layers]
    lacking = [name for name in layers if name not in traces]
    negative = [name for name in traces if not traces[name] >= 0]
    if unknown or lacking or negative:
        what = [f"{name!r} is no layer with weights{did_you_mean(name, layers)}" for name in unknown]
        what += [f"layer {name!r} has no trace" for name in lacking]
        what += [
            f"layer {name!r} has {traces[name]:.6g}; at a minimum of the loss no trace is negative, and with one more "
            f"noise would be better"
            for name in negative
        ]
        raise SearchError(problem_list("Hessian traces", what))
    rows = []
    for name, layer in layers.items():
        assert layer.weight is not None
        weight = layer.weight.astype(np.float64)
        for bits in sorted(set(weight_bits)):
            tensor = weight_of(formats.get(f"int{bits}"), weight, 0, RangeRule("mse"))
            rows.append(
                Sensitivity(name, "weight", bits, traces[name] * float(np.square(tensor.dequantize() - weight).sum()))
            )
    return Sensitivities("hessian", tuple(rows))


def read_sensitivities(
    path: str | Path, network: FloatNetwork | None = None, weight_bits: Iterable[int] = range(2, 9)
) -> Sensitivities:
    r"""Read losses from ``.csv`` (columns layer, operand, bits, loss; without an operand: of the weights), or Hessian
    traces from ``.json``, {layer: mean trace}, which need the network, and the widths of weights to be tried.

    Raises SearchError with the line of what is wrong.

    >>> size = Path("losses.csv").write_text("layer,operand,bits,loss\nfc,weight,4,0.02\nfc,weight,8,0.001\n")
    >>> read_sensitivities("losses.csv").array(["fc"], [4, 8], [8]).tolist()
    [[[0.02], [0.001]]]
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if file.suffix.lower() == ".json":
        if network is None:
            raise SearchError(f"{file}: Hessian traces need the network's weights; pass the network")
        return hessian_sensitivities(network, _traces(file, text), weight_bits)
    return Sensitivities("supplied", tuple(_supplied(file, text)))


def _traces(file: Path, text: str) -> dict[str, float]:
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise SearchError(f"{file}: is not JSON: {error}") from None
    good = isinstance(found, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in found.values()
    )
    if not good or not found:
        raise SearchError(f'{file}: Hessian traces are a mapping of layers to finite numbers: {{"conv1": 0.07, ...}}')
    return {str(name): float(value) for name, value in found.items()}


def _supplied(file: Path, text: str) -> list[Sensitivity]:
    reader = csv.DictReader(text.splitlines())
    needed, titles = {"layer", "bits", "loss"}, set(reader.fieldnames or ())
    if not needed <= titles:
        raise SearchError(
            f"{file}: columns {', '.join(sorted(needed - titles))} are missing; give layer, operand, bits, loss"
        )
    rows, problems = [], []
    for line, row in enumerate(reader, start=2):
        operand = row.get("operand") or "weight"
        try:
            bits, loss = int(row["bits"]), float(row["loss"])
        except (TypeError, ValueError):
            problems.append(f"line {line}: bits is {row['bits']!r}, loss {row['loss']!r}; use an integer and a number")
            continue
        if operand not in OPERANDS or not math.isfinite(loss):
            problems.append(f"line {line}: operand is {operand!r}, loss {loss}; use weight or activation, and numbers")
        rows.append(Sensitivity(row["layer"], operand, bits, loss))
    if problems or not rows:
        raise SearchError(problem_list(str(file), problems[:20] or ["it has no rows"]))
    return rows


def _monotone(found: Mapping[tuple[str, str, int], float]) -> Iterable[Sensitivity]:
    largest: dict[tuple[str, str], float] = {}
    rows = []
    for name, operand, bits in sorted(found, key=lambda key: -key[2]):
        key = name, operand
        largest[key] = max(largest.get(key, 0.0), found[name, operand, bits])
        rows.append(Sensitivity(name, operand, bits, largest[key]))
    return sorted(
        rows, key=lambda row: (list(dict.fromkeys(k[0] for k in found)).index(row.layer), row.operand[::-1], row.bits)
    )


class RunLoss:
    """What a network's trace loses on a machine, by a measure: one bit-accurate run.

    >>> from accelsim import load_config
    >>> from accelsim.quantize.network_file import load_network
    >>> network = load_network("traces/digits_cnn_float.npz").head(10)
    >>> pairs = [dict.fromkeys(("conv1", "conv2", "fc1", "fc2"), pair) for pair in (("int8", "int8"), ("int2", "int2"))]
    >>> config, requantizer = load_config("configs/bitfusion.yaml"), Requantizer(network)
    >>> fine, coarse = (RunLoss(network, "kl")(requantizer.trace(pair), config) for pair in pairs)
    >>> 0 < 10 * fine < coarse
    True
    """

    def __init__(self, network: FloatNetwork, measure: Measure) -> None:
        self.measure = measure
        if measure == "cross_entropy" and network.labels is None:
            raise SearchError(f"network {network.name!r} has no labels; use measure kl or noise, which need none")
        self.labels = network.labels

    def __call__(self, trace: Trace, config: HardwareConfig) -> float:
        simulated, reference = outputs_of(config, trace)
        if self.measure == "noise":
            error = float(np.square(simulated - reference).sum())
            return error / float(np.square(reference).sum())
        classes = simulated.reshape(len(simulated), -1)
        logarithms = _log_softmax(classes)
        if self.measure == "cross_entropy":
            assert self.labels is not None
            return float(-logarithms[np.arange(len(classes)), self.labels].mean())
        wanted = _log_softmax(reference.reshape(len(reference), -1))
        return float((np.exp(wanted) * (wanted - logarithms)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
