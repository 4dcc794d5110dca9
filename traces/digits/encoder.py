"""A small transformer encoder for the digits: forward and backward pass by hand, and training; plain NumPy, float32.

An image is 8 tokens, its rows of 8 pixels. Two post-norm blocks as in BERT, GELU, the mean of the tokens classifies.
Parameters are named as accelsim.quantize.transformer names them.
"""

from __future__ import annotations

import math

import numpy as np
from digits import network as net
from digits.training import Adam, Array, Params, batches, cross_entropy_slope
from numpy.typing import NDArray

Cache = dict[str, Array]

SEED = 20240530
TOKENS, PIXELS = 8, 8
BLOCKS, WIDTH, HEADS, HIDDEN, CLASSES = 2, 32, 4, 64, 10
EPSILON = 1e-5
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 120, 64, 3e-3, 0.05

LINEARS = {"query": (WIDTH, WIDTH), "key": (WIDTH, WIDTH), "value": (WIDTH, WIDTH), "output": (WIDTH, WIDTH)} | {
    "ff1": (HIDDEN, WIDTH),
    "ff2": (WIDTH, HIDDEN),
}


def initial_params(rng: np.random.Generator) -> Params:
    """Glorot's scales; biases 0, gammas 1."""
    shapes = {"embedding": (WIDTH, PIXELS), "classifier": (CLASSES, WIDTH)}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(BLOCKS) for name, shape in LINEARS.items()}
    params: Params = {"position": (0.1 * rng.standard_normal((TOKENS, WIDTH))).astype(np.float32)}
    for name, shape in shapes.items():
        deviation = math.sqrt(2 / sum(shape))
        params[f"{name}.weight"] = (deviation * rng.standard_normal(shape)).astype(np.float32)
        params[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    for i in range(BLOCKS):
        for norm in ("norm1", "norm2"):
            params[f"blocks.{i}.{norm}.gamma"] = np.ones(WIDTH, np.float32)
            params[f"blocks.{i}.{norm}.beta"] = np.zeros(WIDTH, np.float32)
    return params


def gelu(x: Array) -> tuple[Array, Array]:
    """GELU, x * P(normal <= x), and its derivative; the distribution by Abramowitz, Stegun 7.1.26 (to 1.5e-7)."""
    z = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    bell = np.exp(-z * z)
    below = np.where(x >= 0, 1 - 0.5 * poly * bell, 0.5 * poly * bell).astype(np.float32)
    return x * below, below + x * bell * np.float32(1 / math.sqrt(2 * math.pi))


def _heads(x: Array) -> Array:
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def _joined(x: Array) -> Array:
    return x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)


def forward(params: Params, rows: Array) -> tuple[Array, Cache]:
    """Logits [N, 10] of images as rows [N, 8, 8], and what the backward pass needs."""
    cache: Cache = {"rows": rows}

    def linear(x: Array, name: str) -> Array:
        cache[f"{name}.in"] = x
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        inverse = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(EPSILON))
        cache[f"{name}.normal"], cache[f"{name}.inverse"] = centred * inverse, inverse
        return cache[f"{name}.normal"] * params[f"{name}.gamma"] + params[f"{name}.beta"]

    x = linear(rows, "embedding") + params["position"]
    for i in range(BLOCKS):
        b = f"blocks.{i}"
        q, k, v = (_heads(linear(x, f"{b}.{name}")) for name in ("query", "key", "value"))
        scores = (q @ k.transpose(0, 1, 3, 2)) * np.float32(1 / math.sqrt(WIDTH // HEADS))
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        shares = exponentials / exponentials.sum(-1, keepdims=True)
        cache |= {f"{b}.q": q, f"{b}.k": k, f"{b}.v": v, f"{b}.shares": shares}
        x = norm(x + linear(_joined(shares @ v), f"{b}.output"), f"{b}.norm1")
        hidden, cache[f"{b}.slope"] = gelu(linear(x, f"{b}.ff1"))
        x = norm(x + linear(hidden, f"{b}.ff2"), f"{b}.norm2")
    return linear(x.mean(1), "classifier"), cache


def gradients(params: Params, logits: Array, cache: Cache, labels: NDArray[np.int64]) -> Params:
    """Gradients of the mean cross entropy."""
    found: Params = {}

    def linear(delta: Array, name: str) -> Array:
        flat, x = delta.reshape(-1, delta.shape[-1]), cache[f"{name}.in"]
        found[f"{name}.weight"] = flat.T @ x.reshape(-1, x.shape[-1])
        found[f"{name}.bias"] = flat.sum(0)
        return delta @ params[f"{name}.weight"]

    def norm(delta: Array, name: str) -> Array:
        normal = cache[f"{name}.normal"]
        found[f"{name}.gamma"] = (delta * normal).sum((0, 1))
        found[f"{name}.beta"] = delta.sum((0, 1))
        inner = delta * params[f"{name}.gamma"]
        mean, slope = inner.mean(-1, keepdims=True), (inner * normal).mean(-1, keepdims=True)
        return (inner - mean - normal * slope) * cache[f"{name}.inverse"]

    delta = linear(cross_entropy_slope(logits, labels) / np.float32(len(labels)), "classifier")
    delta = np.repeat(delta[:, None] / np.float32(TOKENS), TOKENS, 1)
    for i in reversed(range(BLOCKS)):
        b = f"blocks.{i}"
        delta = norm(delta, f"{b}.norm2")
        delta = delta + linear(linear(delta, f"{b}.ff2") * cache[f"{b}.slope"], f"{b}.ff1")
        delta = norm(delta, f"{b}.norm1")
        mixed = _heads(linear(delta, f"{b}.output"))
        shares, q, k, v = (cache[f"{b}.{name}"] for name in ("shares", "q", "k", "v"))
        to_shares = mixed @ v.transpose(0, 1, 3, 2)
        to_scores = shares * (to_shares - (to_shares * shares).sum(-1, keepdims=True))
        to_scores = to_scores * np.float32(1 / math.sqrt(WIDTH // HEADS))
        to_query, to_key = to_scores @ k, to_scores.transpose(0, 1, 3, 2) @ q
        to_value = shares.transpose(0, 1, 3, 2) @ mixed
        for name, part in (("query", to_query), ("key", to_key), ("value", to_value)):
            delta = delta + linear(_joined(part), f"{b}.{name}")
    found["position"] = delta.sum(0)
    linear(delta, "embedding")
    return found


def train(digits: net.Digits) -> Params:
    """Adam with decoupled weight decay and a cosine schedule, on shifted images; parameters end on their grid."""
    rng = np.random.default_rng(SEED)
    params = initial_params(rng)
    adam, total = Adam(params, WEIGHT_DECAY), EPOCHS * (len(digits.train_labels) // BATCH)
    for batch in batches(rng, len(digits.train_labels), EPOCHS, BATCH):
        images = net.shifted(digits.train_images[batch], rng)
        logits, cache = forward(params, rows(images))
        slopes = gradients(params, logits, cache, digits.train_labels[batch])
        warm = min(1.0, (adam.steps + 1) / 100)
        adam.step(slopes, LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * adam.steps / total)))
    return {name: net.on_grid(array, net.PARAMETER_BITS).astype(np.float32) for name, array in params.items()}


def rows(images: Array) -> Array:
    """Images [N, 8, 8, 1] as tokens [N, 8, 8]."""
    return images[..., 0]
