"""The plain materials of people in files."""

import numpy as np
from jaxtyping import Float

from genhmr_jax.render.overlay import COLOURS

ROUGHNESS = 0.75


def linear_colour(number: int) -> Float[np.ndarray, "3"]:
    """The colour that pictures give a person, from 0, as linear RGB, 0..1.

    COLOURS are sRGB (IEC 61966-2-1; none is in its linear part, below 0.04).
    """
    return ((COLOURS[number % len(COLOURS)] + 0.055) / 1.055) ** 2.4
