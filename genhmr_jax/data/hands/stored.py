"""Stored rows of rendered hands: their labels, and what the hand detector found in the picture."""

import pathlib

import jax
import jax.numpy as jnp

from genhmr_jax.data.features import FeatureSet
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.camera import CropCamera

ENCODER = "hand_landmarks"
"""The name of the network whose maps the rows hold."""


def open_stored(folder: pathlib.Path, maps: bool) -> FeatureSet:
    """The rows of a split.

    Args:
      maps: whether the network's maps are read.

    Raises:
      InputError: there is no finished set, or it is not one of hands.
    """
    return FeatureSet(folder, ENCODER if maps else "none")


def batch_shapes(size: int, maps: list[tuple[int, int, int]]) -> Rows:
    """A batch of `size` rows as ShapeDtypeStructs, with maps (H, W, C) of these shapes."""
    shape = lambda *sizes, kind=jnp.float32: jax.ShapeDtypeStruct((size, *sizes), kind)
    return Rows(
        view=CropCamera(shape(3), shape(), shape(2)),
        rotmats=shape(16, 3, 3),
        betas=shape(10),
        joints=shape(16, 3),
        keypoints=shape(21, 3),
        keypoints3d=shape(21, 3),
        points2d=shape(21, 2),
        weak_camera=shape(3),
        number=shape(kind=jnp.uint32),
        maps=[shape(*sizes, kind=jnp.float16) for sizes in maps] or None,
    )
