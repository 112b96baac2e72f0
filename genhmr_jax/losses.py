"""Losses and the error measures that training prints.

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


def pelvis_aligned(joints: Float[Array, "*b K 3"]) -> Float[Array, "*b K 3"]:
    """Joints relative to the first one (the pelvis in SMPL's order)."""
    return joints - joints[..., :1, :]


def mpjpe(predicted: Float[Array, "*b K 3"], target: Float[Array, "*b K 3"]) -> Float[Array, "*b"]:
    """Mean per-joint position error after aligning the pelvis; the unit of the input."""
    return jnp.mean(jnp.linalg.norm(pelvis_aligned(predicted) - pelvis_aligned(target), axis=-1), -1)


def pa_mpjpe(predicted: Float[Array, "*b K 3"], target: Float[Array, "*b K 3"]) -> Float[Array, "*b"]:
    """MPJPE after the best similarity transform (Procrustes; Gower 1975; reflections excluded as in Umeyama 1991)."""
    centre_p, centre_t = jnp.mean(predicted, -2, keepdims=True), jnp.mean(target, -2, keepdims=True)
    p, t = predicted - centre_p, target - centre_t
    u, s, vt = jnp.linalg.svd(jnp.swapaxes(p, -1, -2) @ t)
    sign = jnp.sign(jnp.linalg.det(u) * jnp.linalg.det(vt))
    s = s.at[..., -1].multiply(sign)
    vt = vt.at[..., -1, :].multiply(sign[..., None])
    scale = jnp.sum(s, -1) / jnp.maximum(jnp.sum(p**2, (-1, -2)), 1e-12)
    aligned = scale[..., None, None] * p @ (u @ vt)
    return jnp.mean(jnp.linalg.norm(aligned - t, axis=-1), -1)
