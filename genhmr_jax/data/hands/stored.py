"""Stored rows of hands: labels, what the hand detector found, and the network's map or the pixels.

A set of rows holds one of two forms of the image (`encoder` in its done.json): the last map of the
landmark network, or the pixels around the hand for a ViT of any size (geometry/hand_pixels.py).
"""

import pathlib

import jax
import jax.numpy as jnp

from genhmr_jax.core import encoders
from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.rows import Rows
from genhmr_jax.detect import hands
from genhmr_jax.geometry.camera import CropCamera

PIXELS = "hand_pixels"
"""The form of rows that hold pixels."""


def form_of(encoder: str) -> str:
    """The form of the rows that train a model with this image encoder; "" without image."""
    return encoder if encoder in (hands.ENCODER, "") else PIXELS


def open_stored(folder: pathlib.Path, encoder: str) -> FeatureSet:
    """The rows of a split.

    Args:
      encoder: of systems/maskhand/spec.py; with "" no image is read.

    Raises:
      InputError: there is no finished set, or it is not one of hands in the form of the encoder.
    """
    return FeatureSet(folder, form_of(encoder) or "none")


def batch_shapes(size: int, encoder: str) -> Rows:
    """A batch of `size` rows for a model with this image encoder as ShapeDtypeStructs."""
    shape = lambda *sizes, kind=jnp.float32: jax.ShapeDtypeStruct((size, *sizes), kind)
    image = {}
    if form_of(encoder) == hands.ENCODER:
        image = {"maps": [shape(hands.GRID, hands.GRID, hands.CHANNELS, kind=jnp.float16)]}
    elif encoder:
        image = encoders.find(encoder).stored_shapes(size)
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
        **image,
    )
