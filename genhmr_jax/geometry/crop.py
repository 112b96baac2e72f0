"""The square crop around a person: anti-aliased bilinear resampling in NumPy.

Pixel centres are at +0.5: the image spans [0, W] x [0, H], and the centre of crop pixel j is the
image point x = cx - side / 2 + (j + 0.5) * side / size.
"""

import math

import numpy as np
from jaxtyping import Float, UInt8

CROP_SIZE = 256  # px: side of the crops of all encoders


def crop_image(
    image: UInt8[np.ndarray, "H W 3"], crop: Float[np.ndarray, "3"], size: int = CROP_SIZE
) -> Float[np.ndarray, "S S 3"]:
    """Cut a square out of an image and scale it to `size` x `size`.

    Enlarging is bilinear interpolation. When the image shrinks by r, the bilinear surface is
    averaged over sqrt(r^2 - 1) pixels. Both are equal at r = 1 (a crop on the pixel grid is copied
    exactly), and linear ramps stay exact at every r.

    Args:
      image: uint8 RGB.
      crop: centre x, centre y, side, px. Outside the image the crop is black.
      size: side of the result, px.

    Returns:
      float32 (size, size, 3), 0..1.

    Raises:
      ValueError: the crop is not finite or its side is not positive.
    """
    centre_x, centre_y, side = checked(crop)
    rows, row_weights = _taps(centre_y, side, size, image.shape[0])
    columns, column_weights = _taps(centre_x, side, size, image.shape[1])
    # The first pass, down the rows, needs only these columns.
    left = int(columns.min())
    right = int(columns.max()) + 1
    strip = _weighted_sum(image[:, left:right], rows, row_weights)
    crop_columns_first = _weighted_sum(strip.transpose(1, 0, 2), columns - left, column_weights)
    return np.ascontiguousarray(crop_columns_first.transpose(1, 0, 2)) / np.float32(255)


def checked(crop: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
    """Centre x, centre y and side of a crop as floats.

    Raises:
      ValueError: the crop is not finite or its side is not positive.
    """
    centre_x, centre_y, side = (float(value) for value in crop)
    if not all(map(math.isfinite, (centre_x, centre_y, side))) or side <= 0:
        found = (centre_x, centre_y, side)
        raise ValueError(f"crop must be finite with a positive side, not {found}")
    return centre_x, centre_y, side


def _taps(centre: float, side: float, size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (size, taps) of the image pixels of each crop pixel on one axis, and their weights.

    Pixels outside the image have weight zero and an index inside it.
    """
    scale = side / size
    width = math.sqrt(max(scale * scale - 1.0, 0.0))
    position = centre - side / 2 + (np.arange(size) + 0.5) * scale
    first = np.floor(position - width / 2 - 0.5).astype(np.int64)
    indices = first[:, None] + np.arange(math.ceil(width) + 2)
    distance = position[:, None] - (indices + 0.5)
    if width < 1e-3:
        weights = np.maximum(1.0 - np.abs(distance), 0.0)
    else:
        weights = _hat_integral(distance + width / 2) - _hat_integral(distance - width / 2)
        weights /= width
    weights[(indices < 0) | (indices >= length)] = 0.0
    return np.clip(indices, 0, length - 1), weights.astype(np.float32)


def _hat_integral(t: np.ndarray) -> np.ndarray:
    """Integral from -infinity to t of the bilinear weight max(1 - |t|, 0)."""
    t = np.clip(t, -1.0, 1.0)
    return 0.5 + t - 0.5 * t * np.abs(t)


def _weighted_sum(array: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over taps of weights (size, taps) x array[indices]: (size, W, C) float32."""
    total = np.zeros((len(indices), *array.shape[1:]), np.float32)
    for tap in range(indices.shape[1]):
        total += weights[:, tap, None, None] * array[indices[:, tap]]
    return total
