"""The pixels around a hand: the picture that a ViT gets, in the axes of the hand's region.

In it the knuckles are above the wrist, as in the region of the keypoints (hand_crop.py): the root
rotation that the network estimates is relative to these axes, so the picture must have them too.
All hands are right hands: a left one is cut from the mirror image of the photo.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genhmr_jax.geometry.crop import CROP_SIZE
from genhmr_jax.geometry.hand_crop import MARGIN
from genhmr_jax.geometry.warp import warp_image

EXTENT = 2.0
"""Side of the picture over the longer extent of the keypoints, as in HaMeR (`rescale_factor` of its
demo.py and of hamer/datasets/image_dataset.py). A ViT then gets the middle 192 of 256 columns, in
which the whole hand is."""


def pixel_matrix(
    region: Float[np.ndarray, "4"], right: bool, middle: float
) -> Float[np.ndarray, "2 3"]:
    """The matrix from px of the picture to px of the photo.

    Args:
      region: of `upright_region`, in the mirror image for a left hand.
      right: whether it is a right hand.
      middle: x of the vertical line about which the photo of a left hand is mirrored, px.
    """
    x, y, side, angle = (float(value) for value in region)
    scale = side * EXTENT / MARGIN / CROP_SIZE
    cos, sin = np.cos(angle), np.sin(angle)
    axes = scale * np.array([[cos, -sin], [sin, cos]])
    corner = np.array([x, y]) - axes @ np.full(2, CROP_SIZE / 2)
    matrix = np.column_stack([axes, corner])
    if not right:
        matrix[0] *= -1
        matrix[0, 2] += 2 * middle
    return matrix


def hand_pixels(
    image: UInt8[np.ndarray, "H W 3"],
    regions: Float[np.ndarray, "B 4"],
    right: Bool[np.ndarray, "B"],
    middle: float,
) -> UInt8[np.ndarray, "B 256 256 3"]:
    """The pixels around the hands of a photo; black outside it.

    Args:
      image: RGB.
      regions, right, middle: see `pixel_matrix`.
    """
    pixels = np.zeros((len(regions), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for row, (region, is_right) in enumerate(zip(regions, right, strict=True)):
        pixels[row] = warp_image(image, pixel_matrix(region, bool(is_right), middle), CROP_SIZE)
    return pixels
