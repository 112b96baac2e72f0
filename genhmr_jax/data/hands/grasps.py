"""Grasps: fingers close on a sphere or a cylinder until they touch it; NumPy, metres."""

import numpy as np
from jaxtyping import Float

from genhmr_jax.data.hands.contacts import HandCapsules, segment_distance
from genhmr_jax.data.hands.postures import assemble
from genhmr_jax.data.hands.ranges import limits
from genhmr_jax.geometry.hand import FINGERS

SPHERES, CYLINDERS = (0.012, 0.055), (0.008, 0.045)
"""Least and largest radius of the objects, metres."""

HELD_OUT = ((0.022, 0.027), (0.037, 0.042))
"""Radii of the objects of the unseen grasps: no training pose is made with one of these."""

_STEPS = 24
# Degrees that the joints close in one step: flexion of MCP, PIP, DIP; of the thumb's CMC, MCP, IP.
_RATES, _THUMB_RATES = np.array([3.9, 4.3, 3.0]), np.array([2.8, 2.0, 2.4])


def grasps(
    hand: HandCapsules, rng: np.random.Generator, count: int, held_out: bool = False
) -> Float[np.ndarray, "N 15 3"]:
    """Postures of a right hand that holds an object, as anatomical angles, radians.

    Spheres lie before the palm or between the finger tips, cylinders across the palm. Each finger
    closes from an open posture. A joint stops when a bone beyond it touches the object, and the
    joints after that bone go on: the fingers wrap the object.

    Args:
      hand: the capsules.
      held_out: objects with a radius in HELD_OUT instead of all others.
    """
    start, end, radius = objects(hand, rng, count, held_out)
    round_ = (np.linalg.norm(end - start, axis=-1) < 1e-9)[:, None]
    flexion = np.array([-5, 4, 2]) + rng.normal(0, 4, (count, 4, 3))
    wide = np.where(round_, 150 * radius[:, None] + 2, 2.0) * rng.uniform(0.5, 1.3, (count, 1))
    spread = wide * [1.0, 0.1, 0.7, 1.3] + rng.normal(0, 1.5, (count, 4))
    low, high = np.array([[-8, -8, 10, 0, -5], [8, 6, 40, 10, 10]])
    thumb = rng.uniform(low, high, (count, 5))
    angles = assemble(flexion, spread, thumb)

    rates = np.zeros((count, 15))
    for name, finger in FINGERS.items():
        each = _THUMB_RATES if name == "thumb" else _RATES
        rates[:, np.array(finger) - 1] = np.radians(each) * rng.uniform(0.75, 1.2, (count, 1))
    frozen = np.zeros((count, 15), bool)
    for _ in range(_STEPS):
        angles[..., 0] += np.where(frozen, 0.0, rates)
        angles = np.clip(angles, limits()[..., 0], limits()[..., 1])
        starts, ends = (core[:, :15] for core in hand.segments(angles))
        gap = segment_distance(starts, ends, start[:, None], end[:, None]) - radius[:, None]
        touches = gap < hand.radii[:15]
        for finger in FINGERS.values():
            bones = np.array(finger) - 1
            # A joint stops if its own bone or one beyond it touches.
            frozen[:, bones] |= np.logical_or.accumulate(touches[:, bones[::-1]], 1)[:, ::-1]
    return angles


def objects(
    hand: HandCapsules, rng: np.random.Generator, count: int, held_out: bool = False
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Float[np.ndarray, "N"]]:
    """Start and end of the core of each object (equal for a sphere) and its radius, metres."""
    is_sphere = rng.random(count) < 0.5
    radius = _radii(rng, is_sphere, held_out)
    across = hand.palm[1, 0] - hand.palm[1, 3]
    across = across / np.linalg.norm(across)  # from the little finger to the index finger
    along = np.cross(across, hand.axes.palm)
    middle = hand.palm[1].mean(0)
    along = along * np.sign(np.dot(along, middle - hand.axes.joints[0]))  # to the finger tips
    power = rng.random(count) < 0.6  # else between the finger tips
    gap = np.where(power, rng.uniform(0, 0.008, count), rng.uniform(0.015, 0.045, count))
    out = hand.radii[15] + radius + gap
    forward = np.where(power, rng.uniform(-0.025, 0.01, count), rng.uniform(0, 0.035, count))
    aside = rng.uniform(-0.01, 0.015, count)
    centre = middle + np.stack([out, forward, aside], -1) @ [hand.axes.palm, along, across]
    tilt = rng.uniform(-0.45, 0.45, count)
    rise = rng.normal(0, 0.12, count)
    direction = across + tilt[:, None] * along + rise[:, None] * hand.axes.palm
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    half = np.where(is_sphere, 0.0, rng.uniform(0.05, 0.1, count))[:, None] * direction
    return centre - half, centre + half, radius


def _radii(rng: np.random.Generator, is_sphere: np.ndarray, held_out: bool) -> np.ndarray:
    """Radii, metres, inside or outside of the bands of HELD_OUT."""
    bounds = np.where(is_sphere[:, None], SPHERES, CYLINDERS)
    share = rng.random(len(is_sphere))
    if held_out:
        bands = np.array(HELD_OUT)[rng.integers(0, len(HELD_OUT), len(is_sphere))]
        return bands[:, 0] + share * (bands[:, 1] - bands[:, 0])
    total = bounds[:, 1] - bounds[:, 0] - sum(high - low for low, high in HELD_OUT)
    radius = bounds[:, 0] + share * total
    for low, high in HELD_OUT:  # step over the bands, from the smallest
        radius = np.where(radius >= low, radius + high - low, radius)
    return radius
