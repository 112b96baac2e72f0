"""The rotated square of a hand in a picture, in which its middle finger points up."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.geometry.hand import HAND21

KNUCKLES = tuple(HAND21.index(f"{name}_mcp") for name in ("index", "middle", "ring", "pinky"))
MARGIN = 1.25
"""Side of the square over the longer extent of the keypoints."""


def upright_region(keypoints: Float[Array, "*b 21 3"]) -> Float[Array, "*b 4"]:
    """The square (centre x, y and side in px, clockwise angle in radians) around hand keypoints.

    Its upper side is in the direction from the wrist to the middle of the four knuckles, as in
    MediaPipe's pipeline. NumPy arrays give a NumPy array.

    Args:
      keypoints: in the order of HAND21, px and confidence; those of confidence 0 do not count.
        Without the wrist, or without a knuckle, the angle is 0.
    """
    xp = np if isinstance(keypoints, np.ndarray) else jnp
    points, known = keypoints[..., :2], keypoints[..., 2:] > 0
    # 1. The angle.
    knuckles, seen = points[..., KNUCKLES, :], known[..., KNUCKLES, :]
    count = xp.maximum(xp.sum(seen, (-2, -1)), 1)[..., None]
    up = xp.sum(xp.where(seen, knuckles, 0.0), -2) / count - points[..., 0, :]
    usable = known[..., 0, 0] & xp.any(seen, (-2, -1)) & xp.any(up != 0, -1)
    # The gradient of atan2 is NaN at (0, 0).
    x, y = xp.where(usable, up[..., 0], 0.0), xp.where(usable, up[..., 1], -1.0)
    angle = xp.arctan2(x, -y)
    # 2. The bounds along the axes of the square.
    cos, sin = xp.cos(angle)[..., None], xp.sin(angle)[..., None]
    across = cos * points[..., 0] + sin * points[..., 1]
    down = cos * points[..., 1] - sin * points[..., 0]
    own = xp.stack([across, down], -1)
    low = xp.min(xp.where(known, own, xp.inf), -2)
    high = xp.max(xp.where(known, own, -xp.inf), -2)
    found = xp.any(known, (-2, -1))[..., None]
    low, high = xp.where(found, low, 0.0), xp.where(found, high, 1.0)
    middle = (low + high) / 2
    side = MARGIN * xp.maximum(xp.max(high - low, -1, keepdims=True), 1.0)
    centre_x = cos * middle[..., :1] - sin * middle[..., 1:]
    centre_y = sin * middle[..., :1] + cos * middle[..., 1:]
    region = xp.concatenate([centre_x, centre_y, side, angle[..., None]], -1)
    return region.astype(keypoints.dtype)
