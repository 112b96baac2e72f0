"""Transformer layers in plain NumPy and float64, written from their formulas: what the tests hold
the networks against."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def with_random_arrays(make, seed: int = 0, deviation: float = 0.4):
    """The module that `make()` builds, every array of it (biases and norms too) drawn from N(0,
    deviation^2)."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(nnx.eval_shape(make))
    return nnx.merge(
        graph,
        jax.tree.map(lambda a: jnp.asarray(rng.normal(0, deviation, a.shape), jnp.float32), state),
    )


def array(variable) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def linear(layer, x):
    return x @ array(layer.kernel) + array(layer.bias)


def layer_norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * array(
        layer.scale
    ) + array(layer.bias)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def self_attention(qkv, out, x, heads: int):
    """Multi-head attention of x (S, C) to itself; the columns of qkv are q, k, v, each split into
    heads."""
    size = x.shape[-1] // heads
    q, k, v = np.split(linear(qkv, x), 3, axis=-1)
    pieces = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        pieces.append(softmax(q[:, part] @ k[:, part].T / math.sqrt(size)) @ v[:, part])
    return linear(out, np.concatenate(pieces, -1))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
