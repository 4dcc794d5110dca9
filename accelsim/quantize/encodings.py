"""How each activation of a network is encoded: its format, scale and zero point, from who takes it and who makes it.

The layers of the array take the formats that they are given. The vector unit computes with plain integers: its rules
say which, and which layers take zero points. What only moves numbers hands its consumers' wishes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accelsim import formats
from accelsim.errors import FormatError, NetworkError, ShapeError
from accelsim.formats import Format, QTensor
from accelsim.formats.spec import FLOATING
from accelsim.operators import ibert
from accelsim.quantize.choice import fitting, is_cast
from accelsim.quantize.evaluate import Float64
from accelsim.quantize.layers import INPUT, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.presets import Pair
from accelsim.quantize.vector_layers import MOVES, Add, Function, LayerNorm, Softmax
from accelsim.quantize.vector_rules import VectorRules

ACCUMULATORS = formats.get("int32")
_TABLE_FORMAT = "int8"
_RELU = ("relu", "relu6")


@dataclass(frozen=True)
class Encoding:
    """How an activation is encoded: its format, coarse scale and zero point."""

    format: Format
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]

    @property
    def raw(self) -> bool:
        """Whether accumulators leave as they are."""
        return self.format == ACCUMULATORS

    def encode(self, values: Float64) -> QTensor:
        return self.format.quantize(values, scale=self.scale, zero_point=self.zero_point)


@dataclass(frozen=True)
class Choices:
    """What the user chose, and the network's values.

    pairs : (weights, activations) by layer of the array
    output : format of the network's outputs
    calibration, reference : every activation, of the calibration inputs and of the inputs
    """

    network: FloatNetwork
    pairs: Mapping[str, Pair]
    output: str
    rules: VectorRules
    calibration: Mapping[str, Float64]
    reference: Mapping[str, Float64]


def choose_encodings(choices: Choices) -> dict[str, Encoding]:
    """Return the encoding of the input and of every layer's output.

    Raises NetworkError where formats contradict each other, or cannot hold an activation.
    """
    network = choices.network
    found = {INPUT: _encoding(choices, INPUT, None)}
    for layer in network.layers:
        if isinstance(layer.meta, MOVES):
            found[layer.name] = found[network.sources(layer)[0]]
        elif _is_raw(choices, layer, found):
            first, second = (found[name].scale for name in network.sources(layer))
            found[layer.name] = Encoding(ACCUMULATORS, np.asarray(first * second), np.zeros((), np.int64))
        else:
            found[layer.name] = _encoding(choices, layer.name, layer)
    return found


def takers(network: FloatNetwork, tensor: str) -> list[FloatLayer]:
    """Return the layers that compute with an activation, on its own or after moves."""
    direct = network.consumers(tensor)
    moved = [taker for layer in direct if isinstance(layer.meta, MOVES) for taker in takers(network, layer.name)]
    return [layer for layer in direct if not isinstance(layer.meta, MOVES)] + moved


def _is_raw(choices: Choices, layer: FloatLayer, found: Mapping[str, Encoding]) -> bool:
    """Return whether I-BERT's softmax takes a product's accumulators as they are: integers, of a scale it can take."""
    network, users = choices.network, choices.network.consumers(layer.name)
    if not isinstance(layer.meta, Matmul) or layer.activation != "none" or choices.rules.softmax != "ibert":
        return False
    if not users or not all(isinstance(user.meta, Softmax) for user in users):
        return False
    operands = [found[name] for name in network.sources(layer)]
    integers = all(form.format.datapath == "integer" and form.format.blocks is None for form in operands)
    scale = float(operands[0].scale * operands[1].scale)
    return integers and ibert.SMALLEST_SCALE <= scale <= ibert.LARGEST_SCALE_EXP


def _wish(choices: Choices, layer: FloatLayer) -> str | None:
    """Return the format that a layer asks its input to have; None: it takes any plain integers."""
    meta, rules = layer.meta, choices.rules
    if not layer.is_vector:
        return choices.pairs[layer.name][1]
    if isinstance(meta, Function) and (meta.function != "gelu" or rules.gelu == "lookup"):
        return _TABLE_FORMAT
    if isinstance(meta, Softmax) and rules.softmax == "tflite":
        return _TABLE_FORMAT
    return "int16" if isinstance(meta, Function) else None


def _format_of(choices: Choices, tensor: str, users: list[FloatLayer], maker: FloatLayer | None) -> Format:
    """Return the format that an activation has for those who take it; of the network's outputs: `output`."""
    wanted = {user.name: wish for user in users if (wish := _wish(choices, user)) is not None}
    if len({formats.get(name) for name in wanted.values()}) > 1:
        said = ", ".join(f"{layer!r} takes {name}" for layer, name in wanted.items())
        raise NetworkError(
            f"float network {choices.network.name!r}: {tensor!r} is taken in several formats ({said}), but an "
            f"activation has one; give these layers the same format of activations"
        )
    chosen = formats.get(next(iter(wanted.values()), choices.rules.wide if users else choices.output))
    vector = [layer for layer in (*([] if maker is None else [maker]), *users) if layer.is_vector]
    if vector and (chosen.datapath != "integer" or chosen.blocks is not None):
        who = next(iter(wanted), "the network's output")
        raise NetworkError(
            f"activation {tensor!r}: {who!r} takes {chosen.name}, but the vector unit, which computes "
            f"{vector[0].name!r}, makes and takes plain integers; use int8 activations there (weights may have any "
            f"format that goes with them, such as W/A = {choices.pairs.get(who, ('mx6', ''))[0]}/int8)"
        )
    return chosen


def _takes_zero_points(choices: Choices, layer: FloatLayer) -> bool:
    """Return whether a layer's inputs, and a vector layer's output, may have zero points."""
    if isinstance(layer.meta, Matmul):
        return False  # two zero points would cost a product more
    if not layer.is_vector:  # sums of floats cannot be corrected for one
        return formats.get(choices.pairs[layer.name][0]).datapath not in FLOATING
    rules, meta = choices.rules, layer.meta
    if isinstance(meta, Add):
        return rules.residual == "tflite" and formats.get(rules.wide).lane_bits <= 8
    if isinstance(meta, LayerNorm):
        return False
    return not (isinstance(meta, Function) and meta.function == "gelu" and rules.gelu == "ibert")


def _encoding(choices: Choices, tensor: str, maker: FloatLayer | None) -> Encoding:
    """Choose the scale of an activation from its values on the calibration inputs."""
    what = f"activation {tensor!r}"
    users = takers(choices.network, tensor)
    chosen = _format_of(choices, tensor, users, maker)
    activation = "none" if maker is None else maker.activation
    values = choices.calibration[tensor]
    check_values(what, chosen, activation)
    of_input = tensor == INPUT and bool(values.min() >= 0 and choices.reference[INPUT].min() >= 0)
    shares = maker is not None and isinstance(maker.meta, Softmax)
    shifted = all(_takes_zero_points(choices, user) for user in users) and not (
        maker is not None and maker.is_vector and not _takes_zero_points(choices, maker)
    )
    form = fitting(chosen, non_negative=of_input or shares or activation in _RELU, zero_points=shifted)
    if shares:
        return _shares(form)
    with naming(what):
        if is_cast(form):
            found = form.quantize(values, scale=1.0)
        else:
            found = form.quantize(values, asymmetric=shifted and form.zero_points != (0, 0))
    encoding = Encoding(form, found.scale, found.zero_point)
    if choices.rules.gelu == "ibert" and any(_is_gelu(user) for user in users):
        return _fine(encoding, what)
    return encoding


def check_values(what: str, chosen: Format, activation: str) -> None:
    """Raise NetworkError where a format cannot hold what an activation leaves."""
    binary = chosen.datapath == "binary"
    if chosen.datapath == "codebook":
        raise NetworkError(
            f"{what}: {chosen.name} is a table of weights; activations take another format, such as int8"
        )
    if activation == "sign" and not binary:
        raise NetworkError(f"{what}: is a sign, +1 or -1, but the next layer takes {chosen.name}; use binary for it")
    if binary and activation in _RELU:
        raise NetworkError(
            f"{what}: leaves {activation}, so that its signs are all +1 and binary would keep nothing of it; train the "
            f"network with activation 'sign', or use another format"
        )


def _is_gelu(layer: FloatLayer) -> bool:
    return isinstance(layer.meta, Function) and layer.meta.function == "gelu"


def _shares(form: Format) -> Encoding:
    """Softmax's output covers [0, 1): scale 2**-bits, of a signed format one bit less."""
    bits = (form.code_high + 1).bit_length() - 1
    return Encoding(form, np.asarray(2.0**-bits), np.zeros((), np.int64))


def _fine(encoding: Encoding, what: str) -> Encoding:
    """I-BERT's erf needs steps of 2**-20 to 2**-8."""
    reach = float(encoding.scale) * encoding.format.high
    limit = ibert.LARGEST_SCALE_ERF * encoding.format.high
    if reach > limit:
        raise NetworkError(
            f"{what}: reaches {reach:g}, but I-BERT's GELU takes {encoding.format.name} up to {limit:g}; use the rule "
            f"gelu='lookup', a table"
        )
    return replace(encoding, scale=np.maximum(encoding.scale, ibert.SMALLEST_SCALE))


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Put what is quantized before the message of an error."""
    try:
        yield
    except (FormatError, ShapeError) as error:
        raise NetworkError(f"{what}: {error}") from None
