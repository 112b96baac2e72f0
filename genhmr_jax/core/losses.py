"""Losses of training (error measures are in geometry/metrics.py).

The loss of a batch is a plain sum over its rows of weight x value. `normalised` computes the
weights once for the whole batch, so that the losses of its parts (on devices, processes,
micro-batches) add up to the loss of the whole.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def normalised(weight: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Weights scaled to the sum 1; all zero if none is positive (no row has the label)."""
    return weight / jnp.maximum(jnp.sum(weight), 1e-8)


def row_mean(values: Float[Array, "B *s"]) -> Float[Array, "B"]:
    """Mean over all axes but the first."""
    return jnp.mean(values.reshape(values.shape[0], -1), -1)


def known_mean(values: Float[Array, "B K"], confidence: Float[Array, "B K"]) -> Float[Array, "B"]:
    """Mean over the last axis, weighted by confidence; 0 where nothing is known."""
    return jnp.sum(values * confidence, -1) / jnp.maximum(jnp.sum(confidence, -1), 1e-8)


def token_nll(
    logits: Float[Array, "B L N"], tokens: Int[Array, "B L"], label_smoothing: float = 0.0
) -> Float[Array, "B L"]:
    """Negative log-likelihood of each token in nats, in float32.

    The sum over masked positions is MaskGIT's loss (Chang et al. 2022, eq. 2).
    """
    logp = jax.nn.log_softmax(logits.astype(jnp.float32))
    nll = -jnp.take_along_axis(logp, tokens[..., None], -1)[..., 0]
    if label_smoothing:
        nll = (1.0 - label_smoothing) * nll - label_smoothing * jnp.mean(logp, -1)
    return nll


def combined(
    weights: Mapping[str, float],
    parts: Mapping[str, tuple[dict[str, Array], dict[str, Array]]],
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The weighted sum of all terms of a batch, in the form of train.task.Task.loss.

    Args:
      weights: of each term.
      parts: terms and metrics of each part of the batch. In the log those of "images" begin with
        "image_".
    """
    total, all_terms, all_metrics = jnp.zeros(()), {}, {}
    for part, (terms, metrics) in parts.items():
        total = total + sum(weights[name] * value for name, value in terms.items())
        prefix = "image_" if part == "images" else ""
        all_terms |= {prefix + name: value for name, value in terms.items()}
        all_metrics |= {prefix + name: value for name, value in metrics.items()}
    return total, {"terms": all_terms, "metrics": all_metrics, "carry": {}}
