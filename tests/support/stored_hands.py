"""A made-up set of stored rows of hands with pixels: consistent labels, and pixels of noise."""

import dataclasses
import pathlib

import jax
import numpy as np

from genhmr_jax.data import feature_set
from genhmr_jax.data.hands import views
from genhmr_jax.data.hands.stored import PIXELS
from genhmr_jax.data.poses import load_corpus
from genhmr_jax.data.rows import to_arrays
from genhmr_jax.geometry.hand import hand_keypoint_model, load_hand


def write(folder: pathlib.Path, count: int = 8) -> pathlib.Path:
    """The splits train and val of such a set."""
    hand = hand_keypoint_model(load_hand())
    make = jax.jit(views.make_hand_views, static_argnames="spec")
    for seed, split in enumerate(("train", "val")):
        poses = load_corpus("made-up", split, joints=16).poses[:count]
        of = poses, np.arange(len(poses), dtype=np.uint32), jax.random.key(seed)
        rows = jax.tree.map(np.asarray, make(hand, *of, spec=views.HandViewSpec()))
        pixels = np.random.default_rng(seed).integers(0, 255, (len(poses), 256, 256, 3), np.uint8)
        rows = dataclasses.replace(rows, images=pixels)
        (folder / split / "parts").mkdir(parents=True)
        part = folder / split / "parts" / "0.npz"
        np.savez(part, encoder=np.array(PIXELS), **to_arrays(rows))
        feature_set.join_parts([part], folder / split, PIXELS)
    return folder
