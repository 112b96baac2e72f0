"""The crop of HMR2.0 and TokenHMR, as in their public code, for imported weights.

It differs from the package's own crop (geometry/crop.py) in two ways. First, it maps pixel indices,
not pixel centres: crop pixel j is image pixel cx + (j - 128) side / 256 (`gen_trans_from_patch_cv`,
hmr2/datasets/utils.py, L107 of 4D-Humans), a shift of 0.5 - 0.5 side / 256 px of the photo.
Second, a crop that shrinks is sampled, not averaged; the photo is blurred first only if the crop is
larger than 563 px (hmr2/datasets/vitdet_dataset.py, L61). TokenHMR has the same functions in
tokenhmr/lib/datasets.
"""

import numpy as np
from jaxtyping import Float, UInt8

from genhmr_jax.geometry.crop import CROP_SIZE, checked

_STEPS = 32  # OpenCV interpolates at multiples of 1/32 px (INTER_BITS = 5) ...
_FINE = 1024  # ... of positions that were rounded to 1/1024 px (AB_BITS = 10)
_TRUNCATE = 4.0  # standard deviations after which scikit-image's gaussian ends


def crop_image(
    image: UInt8[np.ndarray, "H W 3"],
    crop: Float[np.ndarray, "3"],
    size: int = CROP_SIZE,
    blur: bool = True,
) -> Float[np.ndarray, "S S 3"]:
    """Cut a square out of an image and scale it to `size` x `size`.

    Args:
      image: uint8 RGB.
      crop: centre x, centre y, side, px. Outside the image the crop is black.
      size: side of the result, px.
      blur: blur the photo before a crop that shrinks it by more than 2.2, as their demo does
        (`ViTDetDataset`). Their evaluation does not: `get_example` (hmr2/datasets/utils.py, L617)
        has an option for it, USE_SKIMAGE_ANTIALIAS, which no public configuration sets.

    Returns:
      float32 (size, size, 3), 0..1.

    Raises:
      ValueError: the crop is not finite or its side is not positive.
    """
    centre_x, centre_y, side = checked(crop)
    # 1. The part of the image that the crop needs.
    rows, columns = _positions(centre_y, side, size), _positions(centre_x, side, size)
    factor = side / size / 2.0
    sigma = (factor - 1.0) / 2.0 if blur and factor > 1.1 else 0.0
    margin = int(_TRUNCATE * sigma + 0.5)
    top, bottom = _reach(rows, margin, image.shape[0])
    left, right = _reach(columns, margin, image.shape[1])
    if top >= bottom or left >= right:
        return np.zeros((size, size, 3), np.float32)
    part = image[top:bottom, left:right]
    # 2. Blur it. It ends `margin` px beyond the samples, or at the edge of the image, where
    # scikit-image repeats the last pixel ("nearest").
    if sigma:
        from scipy.ndimage import gaussian_filter  # its import takes longer than a crop

        part = gaussian_filter(
            part, (sigma, sigma, 0), output=np.float32, mode="nearest", truncate=_TRUNCATE
        )
    # 3. Interpolate down the rows, then across the columns.
    strip = _interpolated(part, rows - top * _STEPS)
    cut = _interpolated(strip.swapaxes(0, 1), columns - left * _STEPS).swapaxes(0, 1)
    unit = _STEPS * _STEPS
    pixels = cut / unit if sigma else (cut + unit // 2) // unit  # 8 bits: rounded, halves up
    return np.ascontiguousarray(pixels, np.float32) / np.float32(255)


def _positions(centre: float, side: float, size: int) -> np.ndarray:
    """Positions of the crop's pixels on one axis: (size,) image indices in 1/32 px, integers.

    Their map is defined by the centre and the middle of a side, both rounded to float32. Its
    inverse is rounded as in `warpAffine` of OpenCV 4 (modules/imgproc/src/imgwarp.cpp,
    `WarpAffineInvoker`). OpenCV solves for the map and inverts it in float64, so that a tie between
    two positions (in one of a hundred crops) may be resolved differently here. OpenCV 5 does not
    round positions for images of 8 bits: its crops differ by 0.06 of 255 on average.
    """
    low, high = np.float32(centre), np.float32(centre + np.float32(side * 0.5))
    scale = (float(high) - float(low)) / (size / 2)
    start = float(low) - scale * (size / 2)
    fine = np.rint(scale * np.arange(size) * _FINE) + np.rint(start * _FINE)
    return (fine.astype(np.int64) + _FINE // _STEPS // 2) // (_FINE // _STEPS)


def _reach(positions: np.ndarray, margin: int, length: int) -> tuple[int, int]:
    """First pixel and last + 1 that the positions need with a margin, within the image."""
    low, high = int(positions[0]) // _STEPS - margin, int(positions[-1]) // _STEPS + 2 + margin
    return max(low, 0), min(high, length)


def _interpolated(array: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """32 times the linear interpolation of (n, ...) along its first axis; 0 beyond its ends."""
    first, share = np.divmod(positions, _STEPS)
    kind = np.float32 if array.dtype == np.float32 else np.int32
    total = np.zeros((len(positions), *array.shape[1:]), kind)
    for index, weight in ((first, _STEPS - share), (first + 1, share)):
        weight = np.where((index >= 0) & (index < len(array)), weight, 0).astype(kind)
        weight = weight.reshape(-1, *[1] * (array.ndim - 1))
        total += weight * array[np.clip(index, 0, len(array) - 1)]
    return total
