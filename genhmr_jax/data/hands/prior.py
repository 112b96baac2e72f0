"""A procedural prior of hand poses: random poses within the ranges of motion, without recordings.

A sample is a mixture of functional postures with synergies, grasps of spheres and cylinders, named
postures (fist, flat, pointing, numbers, subsets of fingers), pinches, random postures over the
ranges of motion, and the way between two of these. No two parts of the hand overlap by more than
2 mm. The facts and their sources are in ranges.py and postures.py.
"""

import numpy as np
from jaxtyping import Float
from smpl_jax import SmplModel

from genhmr_jax.data.hands import postures
from genhmr_jax.data.hands.contacts import HandCapsules, hand_capsules
from genhmr_jax.data.hands.grasps import grasps
from genhmr_jax.geometry.hand import FINGERS

SPLITS = ("train", "val", "grasps")
"""train and val: the same mixture, never the same random numbers. grasps: only grasps, of objects
with radii that the other splits leave out (grasps.HELD_OUT)."""

SHARES = {"functional": 0.32, "grasps": 0.24, "named": 0.2, "pinches": 0.1, "wide": 0.14}
BETWEEN = 0.12
"""Share of the poses that lie between two others."""

TOLERANCE = 0.002
"""Deepest overlap of two parts of a hand, metres."""

_MARGIN = 1e-4  # metres; poses are stored in float32
_OPENING, _ROUNDS = 0.16, 14  # a finger that is in the way opens by this share in each round
_THUMB_ROUNDS = 8  # before them only the thumb gives way to a finger
_BISECTIONS = 4
_PALM = 15  # capsules from here on are the palm's


class HandPrior:
    """The prior of one hand.

    Args:
      model: a right hand, `genhmr_jax.geometry.hand.load_hand()` or the user's.
    """

    def __init__(self, model: SmplModel) -> None:
        self.hand: HandCapsules = hand_capsules(model)
        self._pinches = postures.Pinches(self.hand)
        self._involved = _fingers_of_pairs(self.hand)

    def sample(
        self, rng: np.random.Generator, count: int, split: str = "train"
    ) -> Float[np.ndarray, "N 15 3"]:
        """Random poses: axis-angle, radians, float32, of the right hand's joints HAND_JOINTS[1:].

        Args:
          rng: the result is a function of its state, the count and the split.
          count: number of poses N.
          split: one of SPLITS. Generators with one seed give other poses for each split.

        Raises:
          ValueError: an unknown split.
        """
        return self.hand.axes.rotations_from_angles(self.sample_angles(rng, count, split))

    def sample_angles(
        self, rng: np.random.Generator, count: int, split: str = "train"
    ) -> Float[np.ndarray, "N 15 3"]:
        """As `sample`, as anatomical angles (flexion, abduction, twist), radians."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose among {', '.join(SPLITS)}")
        rng = np.random.default_rng([int(rng.integers(2**62)), SPLITS.index(split)])
        parts, missing = [], count
        while missing > 0:
            drawn = min(missing + missing // 20 + 8, 2000)  # 2000 at a time bound the memory
            angles, sound = self.opened(self._candidates(rng, drawn, split))
            parts.append(angles[sound][:missing])
            missing -= len(parts[-1])
        return np.concatenate(parts) if parts else np.zeros((0, 15, 3))

    def _candidates(self, rng: np.random.Generator, count: int, split: str) -> np.ndarray:
        """Angles of poses in which fingers may overlap."""
        if split == "grasps":
            return grasps(self.hand, rng, count, held_out=True)
        kind = rng.choice(len(SHARES), count, p=list(SHARES.values()))
        makers = {
            "functional": lambda n: postures.functional(rng, n),
            "grasps": lambda n: grasps(self.hand, rng, n),
            "named": lambda n: postures.named(rng, n),
            "pinches": lambda n: self._pinches.sample(rng, n),
            "wide": lambda n: postures.wide(rng, n),
        }
        angles = np.zeros((count, 15, 3))
        for i, name in enumerate(SHARES):
            angles[kind == i] = makers[name](int(np.sum(kind == i)))
        mixed = np.flatnonzero(rng.random(count) < BETWEEN)
        others = angles[rng.integers(0, count, len(mixed))]
        share = rng.uniform(0.2, 0.8, (len(mixed), 1, 1))
        angles[mixed] = (1 - share) * angles[mixed] + share * others
        return angles

    def opened(
        self, angles: Float[np.ndarray, "N 15 3"]
    ) -> tuple[Float[np.ndarray, "N 15 3"], np.ndarray]:
        """Open the fingers that overlap, just as far as they must.

        Fingers open step by step. If the thumb is in the way, it gives way first, and then both.
        Then a bisection closes them again until they touch.

        Returns:
          The angles, and a mask (N,) of the poses in which nothing overlaps by more than TOLERANCE.
        """
        wanted, angles, open_ = angles, np.array(angles), _open_posture()
        active = np.arange(len(angles))
        for round_ in range(_ROUNDS + 1):
            bad = self._overlapping(angles[active])
            active, bad = active[bad.any(1)], bad[bad.any(1)]
            if not len(active) or round_ == _ROUNDS:
                break
            fingers = np.einsum("np,pf->nf", bad, self._involved[int(round_ >= _THUMB_ROUNDS)]) > 0
            for i, finger in enumerate(FINGERS.values()):
                rows, bones = active[fingers[:, i]][:, None], np.array(finger) - 1
                angles[rows, bones] += _OPENING * (open_[bones] - angles[rows, bones])
        sound = np.ones(len(angles), bool)
        sound[active] = False
        changed = np.flatnonzero(sound & np.any(angles != wanted, axis=(1, 2)))
        closed = np.zeros(len(changed))  # share of the way back to `wanted` without overlap
        for step in 0.5 ** np.arange(1, _BISECTIONS + 1):
            trial = _between(angles[changed], wanted[changed], closed + step)
            closed += step * ~self._overlapping(trial).any(1)
        angles[changed] = _between(angles[changed], wanted[changed], closed)
        return angles, sound

    def _overlapping(self, angles: np.ndarray) -> np.ndarray:
        """(N, P) whether a pair of capsules overlaps by more than TOLERANCE."""
        return self.hand.overlaps(angles) > TOLERANCE - _MARGIN


def _between(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    return start + share[:, None, None] * (end - start)


def _open_posture() -> Float[np.ndarray, "15 3"]:
    """Angles of a relaxed, open hand in which nothing overlaps."""
    flexion = np.tile([8.0, 8.0, 5.0], (1, 4, 1))
    return postures.assemble(flexion, np.array([[5.0, 0.0, 4.0, 8.0]]), np.zeros((1, 5)))[0]


def _fingers_of_pairs(hand: HandCapsules) -> Float[np.ndarray, "2 P 5"]:
    """For each pair of capsules which fingers open: first the thumb alone, then all that touch."""
    table = np.zeros((2, len(hand.pairs), len(FINGERS)))
    finger_of = {joint - 1: i for i, joints in enumerate(FINGERS.values()) for joint in joints}
    for row, pair in enumerate(hand.pairs):
        fingers = [finger_of[int(bone)] for bone in pair if bone < _PALM]
        table[1, row, fingers] = 1
        table[0, row, [min(fingers)] if min(fingers) == 0 else fingers] = 1  # 0 is the thumb
    return table
