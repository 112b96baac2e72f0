"""The pose corpus: an npz of SMPL poses with a train/validation split, and draws from it.

A draw is a pure function of (seed, global sample number): it is the same for any number of
processes, and a run resumes from its step alone.
"""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt

from genhmr_jax.data.rarity import favour_rare
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.npz_files import read_own_npz

RARE = 0.5
"""The share of draws by rarity of rendered people."""


@dataclasses.dataclass(frozen=True)
class PoseCorpus:
    """Poses (N, 3 J) float32 axis-angle radians, y up, and weights (N,) that sum to 1."""

    poses: np.ndarray
    weights: np.ndarray

    @functools.cached_property
    def _upper_ends(self) -> np.ndarray:
        """(N,): a number in [0, 1) draws the first pose whose entry is above it."""
        return np.cumsum(self.weights)

    def draw(self, numbers: np.ndarray, seed: int) -> np.ndarray:
        """Corpus indices of the samples with these global numbers (integers, any shape)."""
        chosen = np.searchsorted(self._upper_ends, sample_hash(numbers, seed), side="right")
        return np.minimum(chosen, len(self.poses) - 1)


def sample_hash(numbers: np.ndarray, seed: int) -> np.ndarray:
    """A hash of each number to [0, 1): splitmix64 (Steele, Lea, Flood 2014), vectorised."""
    with np.errstate(over="ignore"):
        x = (
            np.asarray(numbers, np.uint64)
            + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
            + np.uint64(0x9E3779B97F4A7C15)
        )
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def load_corpus(
    path: str | pathlib.Path,
    split: str,
    *,
    max_clip_share: float = 0.02,
    rare: float = 0.0,
    joints: int = 24,
) -> PoseCorpus:
    """Loads one split of a pose corpus.

    Args:
      path: "made-up" (see `made_up_poses`), or an npz (docs/training.md) with ``poses`` (N, 72)
        axis-angle, ``split`` (N,) 0 train / 1 val, ``seq_id`` (N,), and optionally ``weight`` (N,),
        the probabilities of the training poses, as `genhmr data poses` writes them.
      split: "train" or "val".
      max_clip_share: the largest weight of a motion clip, where the file has no ``weight``; else
        long clips (dances, climbing) would dominate. All validation poses have equal weight.
      rare: the share of the draws of training poses that favour rare poses (rarity.favour_rare),
        of bodies.
      joints: J of the poses (N, 3 J): 24 of bodies, 16 of hands (data/hands/corpus.py).

    Raises:
      InputError: `rare` is not in 0..1, no such file, a missing key, poses that are not (N, 3 J)
        finite numbers, or a negative weight.
    """
    if not 0 <= rare <= 1:
        raise InputError("the share of rare poses", f"is {rare}", "give a number in 0..1")
    poses, weights = _read_corpus(path, split, max_clip_share, 3 * joints)
    return PoseCorpus(poses, favour_rare(poses, weights, rare if split == "train" else 0.0))


def _read_corpus(
    path: str | pathlib.Path, split: str, max_clip_share: float, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The poses of `load_corpus`, and their weights before rare ones are favoured."""
    if str(path) == "made-up":
        poses = made_up_poses(split, width=width)
        return poses, np.full(len(poses), 1.0 / len(poses))
    remedy = "give the npz of docs/training.md with --config.data.poses=FILE"
    data = read_own_npz(path, "pose corpus", remedy, ("poses", "split", "seq_id"), ("weight",))
    keep = data["split"] == ("train", "val").index(split)
    poses, clips = np.asarray(data["poses"][keep], np.float32), data["seq_id"][keep]
    weight = np.asarray(data["weight"][keep], np.float64) if "weight" in data else None
    if poses.ndim != 2 or poses.shape[1] != width or not len(poses) or not np.isfinite(poses).all():
        problem = f"poses of split {split!r} have shape {poses.shape} or are not finite"
        raise InputError(path, problem, f"poses are (N, {width}) axis-angle in radians")
    if split == "val":
        return poses, np.full(len(poses), 1.0 / len(poses))
    if weight is not None:
        if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
            problem = "weight has numbers that are not probabilities"
            raise InputError(path, problem, "write it again with `genhmr data poses`")
        return poses, weight / weight.sum()
    _, clip, count = np.unique(clips, return_inverse=True, return_counts=True)
    # The weight of a clip is the square root of its length (capped), divided among its poses.
    share = np.sqrt(count)
    share = np.minimum(share / share.sum(), max_clip_share)
    weights = (share / count)[clip]
    return poses, weights / weights.sum()


def made_up_poses(split: str, count: int = 1000, width: int = 72) -> np.ndarray:
    """Random poses (count, width), upright, rotations of about 0.3 rad, to try out training."""
    poses = np.random.default_rng(("train", "val").index(split)).normal(0, 0.3, (count, width))
    poses[:, :3] *= 0.2
    return poses.astype(np.float32)


class PoseRows(NamedTuple):
    """B poses.

    Attributes:
      pose: (B, 3 J) axis-angle, radians, y up.
      number: (B,) uint32, the global sample number, from which random keys follow.
    """

    pose: Float[Array, "B W"]
    number: UInt[Array, "B"]


@dataclasses.dataclass(frozen=True)
class PoseSource:
    """Poses drawn from a corpus; a data.pipeline.Source."""

    corpus: PoseCorpus
    size: int
    seed: int

    def load(self, numbers: np.ndarray) -> PoseRows:
        """The samples with these global numbers (b,)."""
        chosen = self.corpus.draw(numbers, self.seed)
        return PoseRows(self.corpus.poses[chosen], np.asarray(numbers).astype(np.uint32))

    def shapes(self) -> PoseRows:
        """Shapes of one sample."""
        return batch_shapes(joints=self.corpus.poses.shape[1] // 3)


def batch_shapes(*rows: int, joints: int = 24) -> PoseRows:
    """Shapes of a batch of `rows` of a PoseSource; without an argument, of one sample."""
    shape = jax.ShapeDtypeStruct
    return PoseRows(shape((*rows, 3 * joints), np.float32), shape(rows, np.uint32))
