"""Losses of training (the error measures are in evaluate/metrics.py).

A batch's loss is a plain sum over its rows of weight x value; `normalised` makes the weights once for the whole batch, so that the parts
of a batch (on devices, processes, micro-batches) add up to the loss of the whole.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def normalised(weight: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Weights scaled to the sum 1; all zero when none is positive (a label that no row carries)."""
    return weight / jnp.maximum(jnp.sum(weight), 1e-8)


def row_mean(values: Float[Array, "B *s"]) -> Float[Array, "B"]:
    """Mean over all axes but the first."""
    return jnp.mean(values.reshape(values.shape[0], -1), -1)


def token_nll(logits: Float[Array, "B L N"], tokens: Int[Array, "B L"], label_smoothing: float = 0.0) -> Float[Array, "B L"]:
    """Negative log-likelihood of each token in nats, in float32 (the sum over masked positions is MaskGIT's loss, eq. 2)."""
    logp = jax.nn.log_softmax(logits.astype(jnp.float32))
    nll = -jnp.take_along_axis(logp, tokens[..., None], -1)[..., 0]
    if label_smoothing:
        nll = (1.0 - label_smoothing) * nll - label_smoothing * jnp.mean(logp, -1)
    return nll
