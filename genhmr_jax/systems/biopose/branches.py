"""Equal rotations of the shoulders: a sequence of three axes has two solutions.

The rotation of a shoulder by (a, b, c) is also that of (a + 180, 180 - b, c + 180) degrees, and the
ranges of motion exclude neither everywhere. A network needs one of them, and a comparison must not
count the difference.
"""

import numpy as np
from jaxtyping import Float

from genhmr_jax.geometry.anatomy import ANGLES, LIMITS

BALLS = tuple(tuple(range(i, i + 3)) for i in map(ANGLES.index, ("arm_flex_r", "arm_flex_l")))
"""Indices in ANGLES of the angles of each shoulder."""
TURN = 2 * np.pi


def nearest_turn(values: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Angles plus full turns, radians, such that they are nearest to others."""
    return values + TURN * np.round((near - values) / TURN)


def other_solution(ball: Float[np.ndarray, "*f 3"]) -> Float[np.ndarray, "*f 3"]:
    """The second solution of a shoulder, radians, up to full turns."""
    return np.array([1, -1, 1]) * ball + np.pi


def canonical(angles: Float[np.ndarray, "*f 44"]) -> Float[np.ndarray, "*f 44"]:
    """The same rotations with the solution of each shoulder that is nearest to its mid-range.

    Distances are in half ranges; angles beyond a range are clipped to it.

    Args:
      angles: of ANGLES, radians.
    """
    found = np.array(angles, np.float64)
    low, high = LIMITS.T
    for ball in map(list, BALLS):
        middle, half = (low[ball] + high[ball]) / 2, (high[ball] - low[ball]) / 2
        pair = np.stack([found[..., ball], other_solution(found[..., ball])])
        pair = nearest_turn(pair, np.broadcast_to(middle, pair.shape))
        away = np.abs((pair - middle) / half)
        cost = (away**2).sum(-1) + 100 * np.maximum(away - 1, 0).sum(-1)
        second = cost[1] < cost[0]
        found[..., ball] = np.where(second[..., None], pair[1], pair[0])
    found[..., 3:] = np.clip(found[..., 3:], low[3:], high[3:])
    return found


def gap(found: Float[np.ndarray, "*f 44"], truth: Float[np.ndarray, "*f 44"]) -> np.ndarray:
    """Differences of angles (*f, 44), radians, without full turns and second solutions.

    Args:
      found, truth: of ANGLES, radians.
    """
    difference = nearest_turn(found, truth) - truth
    for ball in map(list, BALLS):
        second = other_solution(found[..., ball])
        second = nearest_turn(second, truth[..., ball]) - truth[..., ball]
        first = difference[..., ball]
        less = np.abs(second).sum(-1) < np.abs(first).sum(-1)
        difference[..., ball] = np.where(less[..., None], second, first)
    return difference
