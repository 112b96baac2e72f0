"""The random numbers of one training sample, from one call of the generator."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

MOST = 256
"""Numbers of a sample."""


class Draws:
    """Successive random numbers of one key.

    Each call of jax.random adds the whole generator to the program, and XLA compiles it again: with
    forty calls for a sample the generator took most of the time in which a training step was
    compiled. Here it is called once. The order of the calls, which Python determines while the
    function is traced, says which number is whose.
    """

    def __init__(self, key: Array):
        """Draw all numbers of a typed key."""
        self._numbers, self._used = jax.random.uniform(key, (MOST,)), 0

    def uniform(
        self, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Float[Array, "*shape"]:
        """Uniform in [low, high).

        Raises:
          ValueError: more than MOST numbers in all.
        """
        first, self._used = self._used, self._used + math.prod(shape)
        if self._used > MOST:
            raise ValueError(f"a sample needs more than {MOST} random numbers")
        return low + (high - low) * self._numbers[first : self._used].reshape(shape)

    def normal(self, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
        """Normal with mean 0 and deviation 1."""
        least = np.nextafter(np.float32(-1), np.float32(0))  # its inverse is finite
        sides = jnp.maximum(2 * self.uniform(shape) - 1, least)
        return math.sqrt(2) * jax.scipy.special.erfinv(sides)

    def flag(self, share: float, shape: tuple[int, ...] = ()) -> Bool[Array, "*shape"]:
        """True with the probability `share`."""
        return self.uniform(shape) < share
