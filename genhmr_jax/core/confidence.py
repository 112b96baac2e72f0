"""Joint confidence, from the spread of a system's own samples about its answer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core.sampling import gumbel, most_probable
from genhmr_jax.geometry.metrics import distances, procrustes

DRAWS = 16
"""Number of sampled poses from whose spread the confidence follows."""

NEAR = 0.1
"""Metres. The confidence of a joint is the probability that its error is smaller than this.

The error is measured after one similarity transform of all joints.
"""


def within(mean_squared: Float[Array, "*s"], near: float = NEAR) -> Float[Array, "*s"]:
    """Probability that an isotropic Gaussian error in 3D is shorter than `near`.

    It is the distribution function of Maxwell's distribution, erf(x / sqrt 2) - sqrt(2 / pi) x
    exp(-x^2 / 2) at x = near / sigma, where sigma^2 is a third of the mean squared error.

    Args:
      mean_squared: mean squared error, square metres.
      near: metres.
    """
    x = near / jnp.sqrt(mean_squared / 3 + 1e-12)
    return jax.lax.erf(x / np.sqrt(2)) - np.sqrt(2 / np.pi) * x * jnp.exp(-(x**2) / 2)


def of_spread(
    decode: Callable[[Float[Array, "B L D"]], Float[Array, "B J 3 3"]],
    vectors: Float[Array, "N D"],
    logits: Float[Array, "B L N"],
    body: smpl_jax.SmplModel,
    betas: Float[Array, "B S"],
    rotmats: Float[Array, "B J 3 3"],
    keys: Array,
    near: float = NEAR,
) -> Float[Array, "B J"]:
    """Probability that each joint of an answer is within `near` of the truth.

    DRAWS poses are drawn from the token probabilities before any token is kept, and aligned to the
    answer. The mean squared distance of a joint from them is the estimate of its mean squared
    error.

    Args:
      decode: of the tokenizer; the root's axes do not matter.
      vectors: the code vectors.
      logits: of the first step of sampling.
      body: a keypoint model, for its joints.
      betas, rotmats: the answer.
      keys: (B,) typed, one for each row.
      near: metres.
    """
    answer = smpl_jax.forward(body, betas, rotmats).joints

    def squared_distance(total: jax.Array, draw: jax.Array) -> tuple[jax.Array, None]:
        tokens = most_probable(logits + gumbel(keys, draw, logits.shape[1:]))
        joints = smpl_jax.forward(body, betas, decode(vectors[tokens])).joints
        return total + distances(procrustes(joints, answer)(joints), answer) ** 2, None

    total, _ = jax.lax.scan(squared_distance, jnp.zeros(answer.shape[:2]), jnp.arange(DRAWS))
    return within(total / DRAWS, near)
