"""An affine crop (turned, mirrored, scaled) of a picture in a file, anti-aliased: what training on photos spends its time on.

Pixel centres lie at +0.5, as in transforms.py. A `matrix` (2, 3) maps points of the crop, [0, size] x [0, size], to points of the image.
"""

import io
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from genhmr_jax.images import MAX_PIXELS
from genhmr_jax.render.compiled import compiled

Gains = tuple[float, float, float]
UNCHANGED: Gains = (1.0, 1.0, 1.0)
_LARGEST_DRAFT = 8  # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: each 8 x 8 block gives 4 x 4, 2 x 2 or one pixel


def crop_matrix(centre: Float[np.ndarray, "2"], side: float, size: int, angle: float = 0.0) -> Float[np.ndarray, "2 3"]:
    """The matrix of a square crop.

    Args:
      centre: image px.
      side: image px.
      size: side of the crop, px.
      angle: radians by which the square is turned in the image (x towards y: clockwise as seen).
    """
    step = side / size
    turn = step * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.concatenate([turn, (centre - turn @ np.full(2, size / 2))[:, None]], -1)


def warp_file(
    data: bytes, matrix: Float[np.ndarray, "2 3"], size: int, wanted: tuple[int, int] | None = None, gains: Gains = UNCHANGED
) -> UInt8[np.ndarray, "S S 3"]:
    """`warp_image` of an encoded picture; a JPEG much larger than the crop is decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
      data: a JPEG or PNG.
      matrix: (2, 3), crop px to px of the picture at its full size.
      size: side of the crop, px.
      wanted: width and height that the picture must have, px. EXIF turns are not applied: no maker of these datasets did.
      gains: of red, green and blue.

    Raises:
      ValueError: damaged, no picture, too large, or of another size.
    """
    try:
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"the picture is {width} x {height} px, too large")
        if wanted is not None and (width, height) != tuple(wanted):
            raise ValueError(f"the picture is {width} x {height} px, its labels are for {wanted[0]} x {wanted[1]} px")
        shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
        if shrink >= 2:
            factor = min(1 << int(math.log2(shrink)), _LARGEST_DRAFT)
            drafted = image.draft("RGB", (max(width // factor, 1), 1))
            matrix = matrix * (drafted[1][2] / width if drafted else 1.0)  # None: no JPEG
        left, top, right, bottom = _bounds(matrix, size, image.size)
        image.load()
        pixels = np.asarray(image.crop((left, top, right, bottom)).convert("RGB"))
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, DecompressionBombError, ...
        raise ValueError(f"the picture cannot be decoded ({error})") from error
    return warp_image(pixels, matrix - np.array([[0, 0, left], [0, 0, top]]), size, gains)


def warp_image(
    image: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size: int, gains: Gains = UNCHANGED
) -> UInt8[np.ndarray, "S S 3"]:
    """The crop of an image; black outside it.

    Enlarging is bilinear interpolation. When shrinking by r > 2, blocks of ceil(r / 2) pixels a side are averaged first; what remains,
    1 < q <= 2, is the mean of the bilinear surface over a square of sqrt(q^2 - 1) block sides that is turned with the crop, by the
    2 x 2 Gauss rule. So the two meet at r = 1 (a crop on the pixel grid is a copy), and linear ramps stay exact at every r and angle.

    Args:
      image: RGB.
      matrix: (2, 3), crop px -> image px; may mirror.
      size: side of the crop, px.
      gains: red, green and blue are multiplied by these, and cut off at 255.
    """
    shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    block = max(math.ceil(shrink / 2), 1)
    matrix = np.asarray(matrix, np.float64) / block
    left, top, right, bottom = _bounds(matrix, size, (-(-image.shape[1] // block), -(-image.shape[0] // block)))
    lanes = _lanes(np.ascontiguousarray(image), block, left, top, right, bottom)
    rest = shrink / block
    taps = np.zeros((1, 2))
    if rest > 1:
        reach = math.sqrt(rest * rest - 1) / math.sqrt(12) / rest  # Gauss points of a square, in steps of the crop
        taps = reach * np.array([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]) @ matrix[:, :2].T
    levels = np.minimum(np.arange(256)[:, None] * np.asarray(gains) + 0.5, 255).astype(np.uint8)
    out = np.empty((size, size, 3), np.uint8)
    _sample(lanes, matrix - np.array([[0, 0, left], [0, 0, top]]), taps, levels, out)
    return out


def _bounds(matrix: np.ndarray, size: int, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the pixels that a crop touches, inside an image of width and height; never empty."""
    corners = matrix[:, :2] @ (size * np.array([[0, 1, 0, 1], [0, 0, 1, 1]])) + matrix[:, 2:]
    margin = 2.0  # bilinear neighbours, and the Gauss points of the last pixels
    low, high = np.floor(corners.min(1) - margin), np.ceil(corners.max(1) + margin)
    left, top = (int(np.clip(value, 0, side - 1)) for value, side in zip(low, image_size, strict=True))
    right, bottom = (int(np.clip(value, 1, side)) for value, side in zip(high, image_size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


@compiled
def _lanes(image, block, left, top, right, bottom):
    """Means of block x block pixels, rounded, of the columns and rows left..right, top..bottom of blocks; beyond the image is black.

    A pixel is one uint64 with red, green and blue in lanes of 16 bits: 255 times weights that add up to 256 still fits into a lane, so one
    multiplication weighs all three. That halves the time of `_sample` against floating point.
    """
    height, width = image.shape[:2]
    out = np.zeros((bottom - top, right - left), np.uint64)
    if block == 1:
        for y in range(top, bottom):
            for x in range(left, right):
                red, green, blue = image[y, x, 0], image[y, x, 1], image[y, x, 2]
                out[y - top, x - left] = np.uint64(red) | (np.uint64(green) << np.uint64(16)) | (np.uint64(blue) << np.uint64(32))
        return out
    area = block * block
    sums = np.empty((right - left, 3), np.int64)
    for row in range(top, bottom):
        sums[:] = area // 2
        for y in range(row * block, min(row * block + block, height)):
            for column in range(left, right):
                for x in range(column * block, min(column * block + block, width)):
                    sums[column - left, 0] += image[y, x, 0]
                    sums[column - left, 1] += image[y, x, 1]
                    sums[column - left, 2] += image[y, x, 2]
        for column in range(right - left):
            red, green, blue = sums[column, 0] // area, sums[column, 1] // area, sums[column, 2] // area
            out[row - top, column] = np.uint64(red) | (np.uint64(green) << np.uint64(16)) | (np.uint64(blue) << np.uint64(32))
    return out


@compiled
def _sample(lanes, matrix, taps, levels, out):
    """out[i, j] = levels[mean over one or four taps of the bilinear surface at matrix (j + 0.5, i + 0.5) + tap]; positions to 1/256 px."""
    height, width, size = lanes.shape[0], lanes.shape[1], out.shape[0]
    flat, stride = lanes.reshape(-1), np.uint64(width)
    whole, one, eight = np.uint64(256), np.uint64(1), np.uint64(8)
    several = len(taps) > 1
    start = np.uint64(0x0081_0081_0081) if several else np.uint64(0x0080_0080_0080)  # rounding, and what shifting by 2 loses
    for i in range(size):
        for j in range(size):
            centre_x = matrix[0, 0] * (j + 0.5) + matrix[0, 1] * (i + 0.5) + matrix[0, 2] - 0.5
            centre_y = matrix[1, 0] * (j + 0.5) + matrix[1, 1] * (i + 0.5) + matrix[1, 2] - 0.5
            total = start
            for tap in range(len(taps)):
                x, y = int(np.floor((centre_x + taps[tap, 0]) * 256 + 0.5)), int(np.floor((centre_y + taps[tap, 1]) * 256 + 0.5))
                left, top = x >> 8, y >> 8
                if left < -1 or top < -1 or left >= width or top >= height:
                    continue
                fx, fy = np.uint64(x & 255), np.uint64(y & 255)
                low_right = (fx * fy + np.uint64(128)) >> eight
                low_left, high_right = fy - low_right, fx - low_right
                high_left = whole - fx - low_left
                if left >= 0 and top >= 0 and left < width - 1 and top < height - 1:
                    high = np.uint64(top) * stride + np.uint64(left)
                    low = high + stride
                    value = high_left * flat[high] + high_right * flat[high + one] + low_left * flat[low] + low_right * flat[low + one]
                else:
                    value = np.uint64(0)
                    if top >= 0:
                        value += high_left * lanes[top, left] if left >= 0 else np.uint64(0)
                        value += high_right * lanes[top, left + 1] if left < width - 1 else np.uint64(0)
                    if top < height - 1:
                        value += low_left * lanes[top + 1, left] if left >= 0 else np.uint64(0)
                        value += low_right * lanes[top + 1, left + 1] if left < width - 1 else np.uint64(0)
                total += (value >> np.uint64(2)) & np.uint64(0x3FFF_3FFF_3FFF) if several else value
            out[i, j, 0] = levels[(total >> eight) & np.uint64(255), 0]
            out[i, j, 1] = levels[(total >> np.uint64(24)) & np.uint64(255), 1]
            out[i, j, 2] = levels[(total >> np.uint64(40)) & np.uint64(255), 2]
