"""The height of a body, and shapes of a given height."""

import numpy as np
import smpl_jax
from jaxtyping import Float

from genhmr_jax.io.errors import InputError

LEAST, MOST = 0.5, 2.6
"""Metres: heights that are accepted."""
_ROUNDS = 5


def stature(body: smpl_jax.SmplModel, betas: Float[np.ndarray, "10"]) -> float:
    """Height of the rest pose from the lowest to the highest vertex, metres."""
    height = _heights(body, betas)
    return float(height.max() - height.min())


def check_height(height: float) -> None:
    """Check a height in metres.

    Raises:
      InputError: it is outside LEAST..MOST.
    """
    if not LEAST <= height <= MOST:
        problem = f"{height:g} metres is no height of a person"
        raise InputError("--height", problem, f"give metres between {LEAST} and {MOST}")


def with_stature(
    body: smpl_jax.SmplModel, betas: Float[np.ndarray, "10"], height: float
) -> Float[np.ndarray, "10"]:
    """The nearest shape of a height, by Newton's method along the gradient of `stature`.

    Args:
      body: the body.
      betas: the shape.
      height: metres.

    Raises:
      InputError: the height is outside LEAST..MOST, or the body has no shapes.
    """
    check_height(height)
    directions = np.asarray(body.directions)[: body.num_betas, 1]
    betas = np.array(betas, np.float64)
    for _ in range(_ROUNDS):
        level = _heights(body, betas)
        slope = directions[:, level.argmax()] - directions[:, level.argmin()]
        if not slope.any():
            remedy = "give a body with shape directions"
            raise InputError("--height", "this body has only one shape", remedy)
        betas += slope * (height - (level.max() - level.min())) / (slope @ slope)
    return betas.astype(np.float32)


def _heights(body: smpl_jax.SmplModel, betas: np.ndarray) -> Float[np.ndarray, "V"]:
    directions = np.asarray(body.directions)[: body.num_betas, 1]
    return np.asarray(body.template)[1] + np.asarray(betas) @ directions
