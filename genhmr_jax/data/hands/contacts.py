"""Contacts of a posed hand: capsules for bones and palm, and their distances; NumPy, metres."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel

from genhmr_jax.geometry.hand import FINGERS
from genhmr_jax.geometry.hand_axes import HandAxes, hand_axes

_PALM_RADIUS = 0.01  # metres
_LONG = ("index", "middle", "ring", "pinky")


@dataclass(frozen=True, eq=False)
class HandCapsules:
    """A hand as capsules: 15 bones of the fingers, which move, and 4 of the palm, which do not.

    Attributes:
      axes: the skeleton.
      radii: (19,) of the 15 bones in the order HAND_JOINTS[1:], then of the palm.
      cores: (15, 2, 3) start and end of the core of each bone at rest, in the middle of its skin.
      palm: (2, 4, 3) start and end of the palm's bones, wrist to MCP, on the palm's side.
      pairs: (P, 2) the capsules that may touch; neither neighbours of one finger nor the parts of
        two fingers that the palm's skin joins.
      slack: (P,) overlap of each pair at rest, which counts as contact and not as penetration.
    """

    axes: HandAxes
    radii: Float[np.ndarray, "19"]
    cores: Float[np.ndarray, "15 2 3"]
    palm: Float[np.ndarray, "2 4 3"]
    pairs: Int[np.ndarray, "P 2"]
    slack: Float[np.ndarray, "P"]

    def segments(
        self, angles: Float[np.ndarray, "N 15 3"]
    ) -> tuple[Float[np.ndarray, "N 19 3"], Float[np.ndarray, "N 19 3"]]:
        """Start and end of the core of each capsule in poses given by anatomical angles."""
        return self.segments_of_rotmats(self.axes.rotmats_from_angles(angles))

    def segments_of_rotmats(
        self, rotmats: Float[np.ndarray, "N 15 3 3"]
    ) -> tuple[Float[np.ndarray, "N 19 3"], Float[np.ndarray, "N 19 3"]]:
        """As `segments`, of rotations relative to the parents."""
        bones = self.axes.moved(rotmats, self.cores)
        palm = np.broadcast_to(self.palm[:, None], (2, len(bones), 4, 3))
        return tuple(np.concatenate([bones[:, :, k], palm[k]], 1) for k in range(2))

    def overlaps(self, angles: Float[np.ndarray, "N 15 3"]) -> Float[np.ndarray, "N P"]:
        """Penetration of each pair beyond its overlap at rest, metres; negative: a gap."""
        return self.overlaps_of_segments(*self.segments(angles))

    def overlaps_of_segments(
        self, starts: Float[np.ndarray, "N 19 3"], ends: Float[np.ndarray, "N 19 3"]
    ) -> Float[np.ndarray, "N P"]:
        """As `overlaps`, of the cores."""
        one, other = self.pairs.T
        gap = segment_distance(starts[:, one], ends[:, one], starts[:, other], ends[:, other])
        return self.radii[one] + self.radii[other] - gap - self.slack


def hand_capsules(model: SmplModel) -> HandCapsules:
    """The capsules of a right hand.

    The core of a bone is shifted to the middle of its skin; the radius is the median distance of
    the skin from it. The palm's capsules touch the palm from inside.

    Raises:
      ValueError: a left hand.
    """
    axes = hand_axes(model)
    template = np.asarray(model.template, np.float64).T
    owner, weights = model.weights.argmax(0), model.weights.max(0)
    radii, cores = np.zeros(19), np.zeros((15, 2, 3))
    last = {finger[2] for finger in FINGERS.values()}
    for bone in range(15):
        skin = template[(owner == bone + 1) & (weights > 0.6)]
        start, end = axes.joints[bone + 1], axes.ends[bone]
        share, aside = _beside(skin, start, end)
        middle = (share > 0.1) & (share < 0.9)
        shift = 0.5 * (aside[middle].max(0) + aside[middle].min(0))
        radii[bone] = np.median(np.linalg.norm(aside[middle] - shift, axis=-1))
        # The cap of a capsule reaches beyond its core: the last core ends before the tip.
        back = radii[bone] / np.linalg.norm(end - start) if bone + 1 in last else 0.0
        cores[bone] = shift + [start, end - back * (end - start)]
    palm = np.zeros((2, 4, 3))
    wrist = axes.joints[0]
    for i, name in enumerate(_LONG):
        base = axes.joints[FINGERS[name][0]]
        share, aside = _beside(template, wrist, base)
        depth = aside @ axes.palm
        across = np.linalg.norm(aside - depth[:, None] * axes.palm, axis=-1)
        skin = (owner == 0) & (share > 0.5) & (share < 0.95) & (across < 0.008) & (depth > 0)
        radii[15 + i] = _PALM_RADIUS
        shift = (np.median(depth[skin]) - _PALM_RADIUS) * axes.palm if skin.any() else 0.0
        palm[:, i] = shift + np.array([wrist + 0.3 * (base - wrist), wrist + 0.92 * (base - wrist)])
    pairs = np.array(_pairs())
    hand = HandCapsules(axes, radii, cores, palm, pairs, np.zeros(len(pairs)))
    slack = np.maximum(hand.overlaps(axes.rest[None])[0], 0.0)
    return replace(hand, slack=slack)


def _pairs() -> list[tuple[int, int]]:
    """The pairs of capsules that may touch."""
    bones = {name: [joint - 1 for joint in finger] for name, finger in FINGERS.items()}
    pairs = []
    for i, name in enumerate(_LONG):
        pairs += [(a, b) for a in bones["thumb"][1:] for b in bones[name]]
        for other in _LONG[i + 1 :]:
            joined = (bones[name][0], bones[other][0])
            pairs += [(a, b) for a in bones[name] for b in bones[other] if (a, b) != joined]
        pairs += [(bone, 15 + k) for bone in bones[name][1:] for k in range(4)]
    return pairs + [(bones["thumb"][2], 15 + k) for k in range(4)]


def penetration(
    hand: SmplModel | HandCapsules, poses: Float[np.ndarray, "N 15 3"]
) -> Float[np.ndarray, "N"]:
    """The deepest overlap of two parts of a hand that are not joined, metres; 0 without any.

    Args:
      hand: a right hand, or its capsules (which saves the time to make them).
      poses: axis-angle of the joints HAND_JOINTS[1:], radians.
    """
    capsules = hand if isinstance(hand, HandCapsules) else hand_capsules(hand)
    poses = np.asarray(poses, np.float64)
    rotmats = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 15, 3, 3)
    overlaps = capsules.overlaps_of_segments(*capsules.segments_of_rotmats(rotmats))
    return np.maximum(overlaps.max(-1), 0.0)


def segment_distance(
    p0: Float[np.ndarray, "*b 3"],
    p1: Float[np.ndarray, "*b 3"],
    q0: Float[np.ndarray, "*b 3"],
    q1: Float[np.ndarray, "*b 3"],
) -> Float[np.ndarray, "*b"]:
    """The least distance of two segments (Ericson, "Real-Time Collision Detection", 5.1.9)."""
    d1, d2, r = p1 - p0, q1 - q0, p0 - q0
    dot = lambda u, v: np.einsum("...i,...i->...", u, v)
    a, e, f = dot(d1, d1), dot(d2, d2), dot(d2, r)
    b, c = dot(d1, d2), dot(d1, r)
    a, e = np.maximum(a, 1e-12), np.maximum(e, 1e-12)
    s = np.clip((b * f - c * e) / np.maximum(a * e - b * b, 1e-18), 0.0, 1.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    gap = r + s[..., None] * d1 - t[..., None] * d2
    return np.sqrt(dot(gap, gap))


def _beside(
    points: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each point its share of the way from start to end, and its offset from that line."""
    along = end - start
    share = (points - start) @ along / np.dot(along, along)
    return share, points - start - share[:, None] * along
