"""Rotated squares around a hand in a picture, in which its middle finger points up."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.geometry.hand import HAND21

KNUCKLES = tuple(HAND21.index(f"{name}_mcp") for name in ("index", "middle", "ring", "pinky"))
MARGIN = 1.25
"""Side of `upright_region` over the longer extent of the keypoints."""
PALM = np.array([0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18])
"""Keypoints that define `palm_region`."""
PALM_SCALE, PALM_SHIFT = 2.0, -0.1
"""Side of `palm_region` over the longer extent of PALM, and its shift over their height."""

HALF_SURE = 0.06
"""Expected error of a keypoint, in sides of the hand's square, at which its confidence is half."""


def confidence_of(spread: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The confidence 0..1 of keypoints from their expected errors, in sides of the hand's square.

    It is a convention of this project: detector and simulated views share it.
    """
    return 1.0 / (1.0 + (spread / HALF_SURE) ** 2)


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


def palm_region(points: Float[Array, "*b 21 2"], least: float = 1.0) -> Float[Array, "*b 4"]:
    """The square (centre x, y, side and clockwise angle) that the landmark network looks at next.

    It is MediaPipe's (mediapipe/modules/hand_landmark: hand_landmark_landmarks_to_roi.pbtxt and
    calculators/hand_landmarks_to_rect_calculator.cc): around the palm, with the middle knuckle
    above the wrist. NumPy arrays give a NumPy array.

    Args:
      points: in the order of HAND21, px or other units.
      least: the smallest side.
    """
    xp = np if isinstance(points, np.ndarray) else jnp
    # 1. The angle: the direction from the wrist to the knuckles, of which the middle one is twice
    # as important.
    towards = (points[..., 5, :] + 2 * points[..., 9, :] + points[..., 13, :]) / 4
    up = towards - points[..., 0, :]
    angle = xp.arctan2(up[..., 0], -up[..., 1])
    cos, sin = xp.cos(angle), xp.sin(angle)
    across, down = xp.stack([cos, sin], -1), xp.stack([-sin, cos], -1)
    # 2. The box of the palm along these axes, grown and shifted towards the finger tips.
    palm = points[..., PALM, :]
    inside = xp.stack([xp.sum(palm * axis[..., None, :], -1) for axis in (across, down)], -1)
    low, high = xp.min(inside, -2), xp.max(inside, -2)
    sides, middle = high - low, (low + high) / 2
    shifted = middle[..., 1:] + PALM_SHIFT * sides[..., 1:]
    centre = middle[..., :1] * across + shifted * down
    side = xp.maximum(PALM_SCALE * xp.max(sides, -1, keepdims=True), least)
    return xp.concatenate([centre, side, angle[..., None]], -1)
