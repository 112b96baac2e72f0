"""Hand postures without objects: functional ones with synergies, named ones, pinches; NumPy.

Postures are made in degrees and returned as anatomical angles (N, 15, 3) in radians, HandAxes.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from genhmr_jax.data.hands.contacts import HandCapsules
from genhmr_jax.data.hands.ranges import DIP_OF_PIP, FUNCTIONAL, limits
from genhmr_jax.geometry.hand import FINGERS

LONG = ("index", "middle", "ring", "pinky")
_FLEXION = np.array([FINGERS[name] for name in LONG]) - 1  # (4, 3) joints
_THUMB = np.array(FINGERS["thumb"]) - 1
_SPREAD = np.array([0.9, 0.1, 0.8, 1.3])  # how far each finger moves when the hand spreads

# Thumb: CMC flexion, abduction, twist; MCP and IP flexion; degrees from the rest pose.
_THUMB_OPEN = np.array([0, 0, 0, 0, 0.0])
_THUMB_BESIDE = np.array([22, -30, 0, 8, 5.0])  # along the index finger
_THUMB_OPPOSED = np.array([45, 2, 30, 20, 25.0])
_THUMB_FOLDED = np.array([48, -8, 18, 38, 40.0])  # across the palm
_THUMB_OVER = np.array([30, 4, -3, 14, 45.0])  # over the folded index finger, as in a fist

# Which of thumb, index, middle, ring and pinky are extended.
NAMED = {
    "fist": (0, 0, 0, 0, 0),
    "flat": (1, 1, 1, 1, 1),
    "point": (0, 1, 0, 0, 0),
    "thumb up": (1, 0, 0, 0, 0),
    "two": (0, 1, 1, 0, 0),
    "three": (0, 1, 1, 1, 0),
    "three with thumb": (1, 1, 1, 0, 0),
    "four": (0, 1, 1, 1, 1),
    "call": (1, 0, 0, 0, 1),
    "gun": (1, 1, 0, 0, 0),
    "horns": (0, 1, 0, 0, 1),
}


def assemble(
    flexion: Float[np.ndarray, "N 4 3"],
    spread: Float[np.ndarray, "N 4"],
    thumb: Float[np.ndarray, "N 5"],
    twist: Float[np.ndarray, "N 4"] | float = 0.0,
) -> Float[np.ndarray, "N 15 3"]:
    """Angles, radians, from degrees; clipped to the ranges of motion.

    Args:
      flexion: MCP, PIP and DIP of index, middle, ring and little finger.
      spread: abduction of their MCP joints away from each other.
      thumb: CMC flexion, abduction and twist, MCP flexion, IP flexion, from the rest pose.
      twist: of the MCP joints.
    """
    angles = np.zeros((len(flexion), 15, 3))
    angles[:, _FLEXION, 0] = flexion
    angles[:, _FLEXION[:, 0], 1] = spread
    angles[:, _FLEXION[:, 0], 2] = twist
    angles[:, _THUMB[0]] = thumb[:, :3]
    angles[:, _THUMB[1:], 0] = thumb[:, 3:]
    return np.clip(np.radians(angles), limits()[..., 0], limits()[..., 1])


def functional(rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 15 3"]:
    """Postures of everyday use with a few synergies.

    One number closes all fingers (the first synergy of Santello et al. 1998), one moves the bend
    from MCP to PIP (their second), and one opposes the thumb. Neighbouring fingers move together,
    DIP follows PIP, and fingers spread only when they are extended. The mean flexion is that of
    Hume et al. 1990 where the closing is 0.55.
    """
    closing = rng.beta(1.6, 1.4, (count, 1))
    balance = rng.normal(0, 0.25, (count, 1))
    slope = rng.normal(0, 0.12, (count, 1)) * np.array([-1.5, -0.5, 0.5, 1.5])
    each = np.clip(closing + slope + _between_neighbours(rng, count, 0.10), 0, 1.1)
    mcp = each * FUNCTIONAL[0] / 0.55 * (1 + balance) - 12 + rng.normal(0, 4, each.shape)
    pip = each * FUNCTIONAL[1] / 0.55 * (1 - balance) + rng.normal(0, 5, each.shape)
    dip = coupled_dip(rng, pip)
    extended = np.clip(1 - mcp / 70, 0, 1)
    spread = extended * _SPREAD * rng.normal(4, 7, (count, 1)) + rng.normal(0, 1.5, mcp.shape)
    opposed = rng.beta(1.2, 1.2, (count, 1))
    start = np.where(rng.random((count, 1)) < 0.4, _THUMB_BESIDE, _THUMB_OPEN)
    thumb = (1 - opposed) * start + opposed * _THUMB_OPPOSED
    thumb = thumb + rng.normal(0, 1, (count, 5)) * [7, 6, 6, 9, 12]
    twist = rng.normal(0, 1.5, mcp.shape)
    return assemble(np.stack([mcp, pip, dip], -1), spread, thumb, twist)


def wide(rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 15 3"]:
    """Random postures over nearly the whole ranges of motion; only DIP and spread are coupled."""
    base = rng.uniform(-15, 85, (count, 1))
    mcp = np.clip(base + _between_neighbours(rng, count, 28), -25, 88)
    pip = np.clip(rng.uniform(0, 95, (count, 1)) + _between_neighbours(rng, count, 30), 0, 98)
    dip = coupled_dip(rng, pip, 10.0)
    extended = np.clip(1 - mcp / 90, 0, 1)
    spread = extended * rng.uniform(-8, 18, mcp.shape)
    low, high = np.array([[-10, -38, -10, -5, -10], [65, 5, 42, 52, 75]])
    thumb = rng.uniform(low, high, (count, 5))
    return assemble(np.stack([mcp, pip, dip], -1), spread, thumb, rng.normal(0, 2, mcp.shape))


def named(
    rng: np.random.Generator, count: int, patterns: Float[np.ndarray, "P 5"] | None = None
) -> Float[np.ndarray, "N 15 3"]:
    """Postures in which some fingers are extended and the others are folded.

    Args:
      patterns: rows of 0 and 1 for thumb, index, middle, ring and pinky. Default: each of NAMED
        (fist, flat, pointing, numbers, ...) half of the time, else a random subset of fingers.
    """
    if patterns is None:
        known = np.array(list(NAMED.values()))[rng.integers(0, len(NAMED), count)]
        random = rng.integers(0, 2, (count, 5))
        patterns = np.where(rng.random((count, 1)) < 0.5, known, random)
    else:
        patterns = patterns[rng.integers(0, len(patterns), count)]
    up = patterns[:, 1:].astype(bool)
    loose = rng.uniform(0, 1, (count, 1))  # how far folded fingers stay open
    mcp = np.where(up, rng.normal(2, 7, up.shape), 76 - 25 * loose + rng.normal(0, 5, up.shape))
    pip = np.where(
        up, np.abs(rng.normal(4, 5, up.shape)), 96 - 25 * loose + rng.normal(0, 4, up.shape)
    )
    dip = np.where(up, 0.6 * pip, coupled_dip(rng, pip))
    spread = up * _SPREAD * rng.normal(4, 5, (count, 1)) + rng.normal(0, 1, up.shape)
    out = np.where(rng.random((count, 1)) < 0.4, _THUMB_BESIDE, _THUMB_OPEN)
    folded = np.where(up[:, :1], _THUMB_FOLDED, _THUMB_OVER)
    thumb = np.where(patterns[:, :1] > 0, out, folded)
    thumb = thumb + rng.normal(0, 1, (count, 5)) * [5, 4, 4, 6, 8]
    return assemble(np.stack([mcp, pip, dip], -1), spread, thumb)


def coupled_dip(
    rng: np.random.Generator, pip: Float[np.ndarray, "*b"], spread: float = 5.0
) -> Float[np.ndarray, "*b"]:
    """DIP flexion, degrees, that follows PIP flexion within a normal spread."""
    return DIP_OF_PIP * pip + rng.normal(0, spread, pip.shape)


def _between_neighbours(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """(count, 4) deviations, with a correlation of 0.7 from one finger to the next."""
    steps = rng.normal(0, spread, (count, 4))
    for i in range(1, 4):
        steps[:, i] = 0.7 * steps[:, i - 1] + np.sqrt(1 - 0.49) * steps[:, i]
    return steps


class Pinches:
    """Pairs of thumb and finger postures whose pads touch, found by random search on a hand.

    Args:
      hand: the capsules of a right hand.
      tries: random postures of the thumb and of each finger.
    """

    def __init__(self, hand: HandCapsules, tries: int = 5000) -> None:
        rng = np.random.default_rng(0)
        low, high = np.array([[10, -20, 0, 0, 0], [65, 6, 45, 45, 45]])
        thumbs = rng.uniform(low, high, (tries, 5))
        mcp, pip = rng.uniform(10, 85, (tries, 4)), rng.uniform(15, 90, (tries, 4))
        flexion = np.stack([mcp, pip, coupled_dip(rng, pip)], -1)
        spread = rng.uniform(-6, 8, (tries, 4)) * (1 - mcp / 100)
        angles = assemble(flexion, spread, thumbs)
        pads = pad_points(hand, angles)
        tree = cKDTree(pads[:, 0])
        found = []
        for finger in range(4):
            gap, thumb = tree.query(pads[:, 1 + finger])
            touching = np.flatnonzero(gap < 0.01)[:2000]  # enough, and checked in half a second
            pairs = np.stack([thumb[touching], touching], -1)
            found.append(pairs[self._touch(hand, angles, pairs, finger)])
        self._angles, self._found = angles, found

    @staticmethod
    def _touch(
        hand: HandCapsules, angles: np.ndarray, pairs: np.ndarray, finger: int
    ) -> np.ndarray:
        """Mask of the pairs whose outer bones are in contact and in which nothing overlaps much."""
        posture = np.tile(hand.axes.rest, (len(pairs), 1, 1))
        posture[:, _THUMB] = angles[pairs[:, 0]][:, _THUMB]
        posture[:, _FLEXION[finger]] = angles[pairs[:, 1]][:, _FLEXION[finger]]
        overlaps = hand.overlaps(posture)
        tips = np.all(hand.pairs == (_THUMB[2], _FLEXION[finger, 2]), axis=1)
        contact = overlaps[:, tips].max(1) > -0.003
        return contact & (overlaps.max(1) < 0.008)

    def sample(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 15 3"]:
        """Pinches with one finger; the other fingers are extended, or bent like it."""
        result = np.zeros((count, 15, 3))
        used = np.array([len(found) > 0 for found in self._found]) * [0.55, 0.25, 0.1, 0.1]
        fingers = rng.choice(4, count, p=used / used.sum())
        rows = rng.random(count)
        for i, (finger, row) in enumerate(zip(fingers, rows, strict=True)):
            found = self._found[finger]
            thumb, touching = found[int(row * len(found))]
            bent = np.degrees(self._angles[touching][_FLEXION[finger], 0])
            like = rng.random() < 0.5
            others = bent * rng.uniform(0.6, 1.1) if like else rng.uniform(0, 25) * np.ones(3)
            flexion = others + rng.normal(0, 6, (4, 3))
            spread = np.where(like, 1.0, 5.0) * _SPREAD * rng.uniform(0, 1.5)
            posture = assemble(flexion[None], spread[None], np.zeros((1, 5)))[0]
            posture[_FLEXION[finger]] = self._angles[touching][_FLEXION[finger]]
            posture[_THUMB] = self._angles[thumb][_THUMB]
            result[i] = posture
        return result


def pad_points(
    hand: HandCapsules, angles: Float[np.ndarray, "N 15 3"]
) -> Float[np.ndarray, "N 5 3"]:
    """The middle of the pad of each finger tip, thumb first, metres."""
    last = np.array([finger[2] - 1 for finger in FINGERS.values()])
    axes = hand.axes.axes[last]
    pad = np.cross(axes[:, 0], axes[:, 2])  # where flexion moves the tip
    points = hand.cores[:, 1].copy()
    points[last] += hand.radii[last, None] * pad
    return hand.axes.moved(hand.axes.rotmats_from_angles(angles), points[:, None])[:, last, 0]
