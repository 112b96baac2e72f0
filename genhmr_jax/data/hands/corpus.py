"""Writes a corpus of hand poses from the prior, in the form of data.poses.load_corpus."""

from pathlib import Path

import numpy as np

from genhmr_jax.data.hands.prior import HandPrior
from genhmr_jax.geometry.hand import load_hand
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

VALIDATION = 0.05
"""Validation poses for each training pose."""


def write_hand_corpus(out: str | Path, count: int, hand: str = "free", seed: int = 0) -> str:
    """Write `count` training poses, and VALIDATION as many validation poses.

    The npz has poses (N, 48) float32 axis-angle, the wrist first and zero; split (N,) 0 train / 1
    val; and seq_id (N,), a number for each pose, because poses are independent.

    Args:
      out: name of the npz.
      count: of training poses.
      hand: of geometry.hand.load_hand.
      seed: of the poses.

    Returns:
      a summary.

    Raises:
      InputError: `out` is not an .npz, or a count below 1.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(out, "is not an .npz", "give a name that ends in .npz")
    if count < 1:
        raise InputError("--count", f"is {count}", "give a number of poses above 0")
    prior, parts = HandPrior(load_hand(hand)), []
    counts = {"train": count, "val": max(round(VALIDATION * count), 1)}
    for split, number in counts.items():
        fingers = prior.sample(np.random.default_rng(seed), number, split)
        parts.append(np.concatenate([np.zeros((number, 1, 3), np.float32), fingers], 1))
    poses = np.concatenate(parts).reshape(-1, 48).astype(np.float32)
    with atomic_path(out) as path, path.open("wb") as file:
        split = np.repeat(np.int8([0, 1]), list(counts.values()))
        np.savez_compressed(file, poses=poses, split=split, seq_id=np.arange(len(poses)))
    return f"{out}: {counts['train']} training and {counts['val']} validation poses of hands"
