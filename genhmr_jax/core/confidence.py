"""Joint confidence, from the spread of a system's own samples about its answer."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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
