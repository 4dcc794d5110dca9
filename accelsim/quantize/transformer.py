"""Transformer encoders (Vaswani et al. 2017; BERT, ViT) from their weights: float networks, and traces of them.

Parameters are a dictionary of NumPy arrays, linear weights [out, in] as PyTorch stores them::

    embedding.weight [D, I], embedding.bias [D]            optional: without, the inputs are embedded already
    position [T, D]                                        optional: added to the embedded tokens
    embedding_norm.gamma [D], .beta [D]                    optional
    blocks.<i>.query.weight [D, D], .bias [D]              likewise key, value, output (after the heads are joined)
    blocks.<i>.norm1.gamma, .beta [D]                      of the attention
    blocks.<i>.ff1.weight [F, D], ff2.weight [D, F]        feed forward, with .bias
    blocks.<i>.norm2.gamma, .beta [D]                      of the feed forward
    norm.gamma, .beta [D]                                  optional: after the last block
    classifier.weight [C, D], .bias [C]                    optional

Every bias and beta may be left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import NetworkError, did_you_mean, problem_list
from accelsim.operators.tables import FUNCTIONS
from accelsim.quantize.convert import References, trace_builder
from accelsim.quantize.layers import INPUT, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork, Floats
from accelsim.quantize.presets import Pair
from accelsim.quantize.vector_layers import (
    Add,
    Function,
    LayerNorm,
    Mean,
    Reshape,
    Slice,
    Softmax,
    Transpose,
    VectorLayerMeta,
)
from accelsim.quantize.vector_rules import VectorRules
from accelsim.trace.builder import TraceBuilder

Norm = Literal["post", "pre"]
Pooling = Literal["mean", "first", "flatten", "none"]

_OUTSIDE = ("embedding.weight", "embedding.bias", "position", "classifier.weight", "classifier.bias")
_NORMS = tuple(f"{norm}.{part}" for norm in ("embedding_norm", "norm") for part in ("gamma", "beta"))
_LINEARS = ("query", "key", "value", "output", "ff1", "ff2")
_INSIDE = tuple(f"{name}.{part}" for name in _LINEARS for part in ("weight", "bias")) + tuple(
    f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("gamma", "beta")
)


def encoder_network(
    params: Mapping[str, ArrayLike],
    inputs: ArrayLike,
    *,
    heads: int,
    norm: Norm = "post",
    activation: str = "gelu",
    epsilon: float = 1e-5,
    pooling: Pooling = "mean",
    calibration: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    name: str = "encoder",
    description: str = "",
) -> FloatNetwork:
    """Return a transformer encoder as a float network, layer by layer.

    params : see this module
    inputs : floats [batch, T, I]: T tokens of I numbers (or of D, already embedded)
    heads : attention heads; they divide D
    norm : layer norms after the residual additions (BERT) or before attention and feed forward (ViT, GPT)
    activation : of the feed forward, a name in accelsim.operators.tables.FUNCTIONS
    epsilon : of the layer norms
    pooling : what the classifier sees of the last block: the mean of the tokens, the first token, all of them in a row
        (its weight is [C, T * D]), or each token by itself
    calibration, labels, name, description : as FloatNetwork's

    1 / sqrt(D / heads) is folded into the queries' weight and bias. Layers are called "embedding", "block0.query" and
    so on; quantization may give each its own format.

    Raises NetworkError with everything that is wrong: parameters missing or unknown, shapes that do not fit.
    """
    encoder = _Encoder(params, np.asarray(inputs), heads, norm, activation, epsilon, name)
    encoder.build(pooling)
    return FloatNetwork(name, inputs, encoder.layers, calibration=calibration, labels=labels, description=description)


def encoder_trace(
    params: Mapping[str, ArrayLike],
    inputs: ArrayLike,
    *,
    heads: int,
    rules: str | VectorRules = "ibert",
    weights: str = "int8",
    activations: str = "int8",
    overrides: Mapping[str, str | Pair] | None = None,
    per_channel: bool = True,
    output: str = "int8",
    rounding: str | None = None,
    references: References = "all",
    norm: Norm = "post",
    activation: str = "gelu",
    epsilon: float = 1e-5,
    pooling: Pooling = "mean",
    calibration: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    name: str = "encoder",
    description: str = "",
) -> TraceBuilder:
    """Quantize a transformer encoder after training: ``encoder_trace(...).save("encoder.npz")``.

    rules, weights, activations, per_channel, output, rounding, references : as accelsim.quantize.convert's
        quantize_network; activations are plain integers, for most come from the vector unit
    overrides : formats of single layers: {"block0.ff1": "mx6"} for weights, {"block0.ff1": ("mx6", "int8")} for both
    all others : as :func:`encoder_network`'s

    Raises NetworkError, FormatError or TraceError, all AccelsimError.

    >>> rng = np.random.default_rng(1)
    >>> shapes = dict.fromkeys(("query", "key", "value", "output"), (8, 8)) | {"ff1": (16, 8), "ff2": (8, 16)}
    >>> params = {f"blocks.0.{name}.weight": rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    >>> params |= {f"blocks.0.{norm}.gamma": np.ones(8) for norm in ("norm1", "norm2")}
    >>> trace = encoder_trace(params, rng.normal(size=(2, 5, 8)), heads=2).build()  # 2 inputs of 5 tokens
    >>> from accelsim import load_config, simulate
    >>> report = simulate(load_config("configs/int8_ws.yaml"), trace)
    >>> report.layers[-1].output_codes.shape, report.network.sqnr_db > 20
    ((2, 8), True)
    """
    network = encoder_network(
        params,
        inputs,
        heads=heads,
        norm=norm,
        activation=activation,
        epsilon=epsilon,
        pooling=pooling,
        calibration=calibration,
        labels=labels,
        name=name,
        description=description,
    )
    pairs = {
        layer: (given, activations) if isinstance(given, str) else given for layer, given in (overrides or {}).items()
    }
    return trace_builder(
        network,
        weights=weights,
        activations=activations,
        overrides=pairs,
        per_channel=per_channel,
        output=output,
        rounding=rounding,
        rules=rules,
        references=references,
        name=name,
    )


class _Encoder:
    """The layers so far. `at` is the activation that the next layer takes."""

    def __init__(
        self,
        params: Mapping[str, ArrayLike],
        inputs: NDArray[np.generic],
        heads: int,
        norm: Norm,
        activation: str,
        epsilon: float,
        name: str,
    ) -> None:
        self.params = {key: np.asarray(array) for key, array in params.items()}
        self.blocks = _block_count(self.params)
        self.norm, self.activation, self.epsilon = norm, activation, epsilon
        self.layers: list[FloatLayer] = []
        self.at = INPUT
        problems = _problems(self.params, self.blocks)
        if norm not in ("post", "pre"):
            problems.append(f"norm={norm!r} is unknown; use 'post' or 'pre'")
        if activation not in FUNCTIONS:
            near = did_you_mean(activation, FUNCTIONS)
            problems.append(f"activation: no function {activation!r}{near}; use one of {', '.join(FUNCTIONS)}")
        if inputs.ndim != 3:
            problems.append(f"inputs have shape {inputs.shape}; use [batch, tokens, numbers]")
        if not problems:
            self.tokens = int(inputs.shape[1])
            embedding = self.params.get("embedding.weight")
            self.width = int(inputs.shape[2]) if embedding is None else len(embedding)
            if heads < 1 or self.width % heads:
                problems.append(f"heads={heads} does not divide the width {self.width}")
        if problems:
            raise NetworkError(problem_list(f"encoder {name!r}", problems))
        self.heads, self.depth = heads, self.width // heads

    def build(self, pooling: Pooling) -> None:
        if "embedding.weight" in self.params:
            self._linear("embedding", "embedding")
        if "position" in self.params:
            self._vector(Add(name="position", input=self.at), self._floats("position"))
        if "embedding_norm.gamma" in self.params:
            self._layer_norm("embedding_norm", "embedding_norm")
        for index in range(self.blocks):
            self._block(index)
        if "norm.gamma" in self.params:
            self._layer_norm("norm", "norm")
        if pooling == "mean":
            self._vector(Mean(name="pool", input=self.at, axes=(1,)))
        elif pooling == "first":
            self._vector(Slice(name="first", input=self.at, begin=(0, 0), size=(1, self.width)))
            self._vector(Reshape(name="pool", input=self.at, shape=(self.width,)))
        elif pooling not in ("flatten", "none"):
            raise NetworkError(f"pooling={pooling!r} is unknown; use 'mean', 'first', 'flatten' or 'none'")
        if "classifier.weight" in self.params:
            self._linear("classifier", "classifier", flatten=pooling == "flatten")

    def _block(self, index: int) -> None:
        here, layer = f"blocks.{index}", f"block{index}"
        for norm, body in (("norm1", self._attention), ("norm2", self._feed_forward)):
            residual = self.at
            if self.norm == "pre":
                self._layer_norm(f"{layer}.{norm}", f"{here}.{norm}")
            body(here, layer)
            self._vector(Add(name=f"{layer}.residual{norm[-1]}", input=self.at, other=residual))
            if self.norm == "post":
                self._layer_norm(f"{layer}.{norm}", f"{here}.{norm}")

    def _attention(self, here: str, layer: str) -> None:
        source = self.at
        split = {}
        for name, scale in (("query", 1 / math.sqrt(self.depth)), ("key", 1.0), ("value", 1.0)):
            self.at = source
            self._linear(f"{layer}.{name}", f"{here}.{name}", scale)
            self._vector(
                Reshape(name=f"{layer}.{name}.split", input=self.at, shape=(self.tokens, self.heads, self.depth))
            )
            self._vector(Transpose(name=f"{layer}.{name}.heads", input=self.at, axes=(2, 1, 3)))
            split[name] = self.at
        scores, mix = f"{layer}.scores", f"{layer}.mix"
        self._add(FloatLayer(Matmul(name=scores, input=split["query"], other=split["key"], transpose_other=True)))
        self._vector(Softmax(name=f"{layer}.softmax", input=self.at))
        self._add(FloatLayer(Matmul(name=mix, input=self.at, other=split["value"])))
        self._vector(Transpose(name=f"{layer}.mix.tokens", input=self.at, axes=(2, 1, 3)))
        self._vector(Reshape(name=f"{layer}.mix.join", input=self.at, shape=(self.tokens, self.width)))
        self._linear(f"{layer}.output", f"{here}.output")

    def _feed_forward(self, here: str, layer: str) -> None:
        self._linear(f"{layer}.ff1", f"{here}.ff1")
        self._vector(Function(name=f"{layer}.{self.activation}", input=self.at, function=self.activation))
        self._linear(f"{layer}.ff2", f"{here}.ff2")

    def _linear(self, name: str, key: str, scale: float = 1.0, *, flatten: bool = False) -> None:
        weight, bias = self._floats(f"{key}.weight"), self.params.get(f"{key}.bias")
        scaled = None if bias is None else np.asarray(self._floats(f"{key}.bias") * scale)
        self._add(FloatLayer(Linear(name=name, input=self.at, flatten=flatten), np.asarray(weight * scale), scaled))

    def _layer_norm(self, name: str, key: str) -> None:
        beta = self._floats(f"{key}.beta") if f"{key}.beta" in self.params else None
        self._vector(LayerNorm(name=name, input=self.at, epsilon=self.epsilon), self._floats(f"{key}.gamma"), beta)

    def _vector(self, meta: VectorLayerMeta, weight: Floats | None = None, bias: Floats | None = None) -> None:
        self._add(FloatLayer(meta, weight, bias))

    def _add(self, layer: FloatLayer) -> None:
        self.layers.append(layer)
        self.at = layer.name

    def _floats(self, key: str) -> Floats:
        array = self.params[key]
        return array if array.dtype.kind == "f" else array.astype(np.float64)


def _block_count(params: Mapping[str, NDArray[np.generic]]) -> int:
    found = [int(match[1]) for key in params if (match := re.match(r"blocks\.(\d{1,4})\.", key))]
    return max(found, default=-1) + 1


def _problems(params: Mapping[str, NDArray[np.generic]], blocks: int) -> list[str]:
    """Return what is missing, unknown or no numbers among the parameters."""
    inside = [f"blocks.{index}.{name}" for index in range(blocks) for name in _INSIDE]
    known = {*_OUTSIDE, *_NORMS, *inside}
    needed = [name for name in inside if not name.endswith((".bias", ".beta"))]
    needed += [f"{name.removesuffix('beta')}gamma" for name in _NORMS if name.endswith("beta") and name in params]
    needed += [f"{name}.weight" for name in ("embedding", "classifier") if f"{name}.bias" in params]
    problems = [f"parameter {name!r} is missing" for name in needed if name not in params]
    problems += [f"parameter {name!r} is unknown{did_you_mean(name, known)}" for name in sorted(params.keys() - known)]
    problems += [
        f"parameter {name!r} has dtype {array.dtype}; use numbers"
        for name, array in params.items()
        if array.dtype.kind not in "iuf"
    ]
    if not blocks:
        problems.append("there are no blocks; parameters of the first are called 'blocks.0.query.weight' and so on")
    return problems
