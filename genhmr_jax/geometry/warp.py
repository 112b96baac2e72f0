"""An anti-aliased affine crop (rotated, mirrored, scaled) of a picture in a file.

This is the most expensive step of reading photos for training. Pixel centres are at +0.5, as in
crop.py. A `matrix` (2, 3) maps points of the crop, [0, size] x [0, size], to points of the image.
"""

import math

import numpy as np
from jaxtyping import Float, UInt8

from genhmr_jax.io.compiled import compiled
from genhmr_jax.io.images import MAX_PIXELS, open_bytes

Gains = tuple[float, float, float]
UNCHANGED: Gains = (1.0, 1.0, 1.0)
_FIXED = 1 << 20  # positions are integers in the kernel: 2^-20 px
# A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: each block of 8 x 8 pixels gives 4 x 4,
# 2 x 2 or 1.
_LARGEST_DRAFT = 8


def warp_file(
    data: bytes,
    matrix: Float[np.ndarray, "2 3"],
    size: int,
    wanted: tuple[int, int] | None = None,
    gains: Gains = UNCHANGED,
) -> UInt8[np.ndarray, "S S 3"]:
    """Decode a picture and crop it with `warp_image`.

    A JPEG much larger than the crop is decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
      data: a JPEG or PNG.
      matrix: (2, 3), crop px to px of the picture at its full size.
      size: side of the crop, px.
      wanted: width and height that the picture must have, px. EXIF's orientation is not applied:
        the authors of these datasets did not apply it.
      gains: of red, green and blue.

    Raises:
      ValueError: damaged, no picture, too large, or of another size.
    """
    try:
        # 1. Check the size.
        image = open_bytes(data)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"the picture is {width} x {height} px, too large")
        if wanted is not None and (width, height) != tuple(wanted):
            labelled = f"its labels are for {wanted[0]} x {wanted[1]} px"
            raise ValueError(f"the picture is {width} x {height} px, {labelled}")
        # 2. Decode it at a smaller size if that is possible.
        shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
        if shrink >= 2:
            factor = min(1 << int(math.log2(shrink)), _LARGEST_DRAFT)
            drafted = image.draft("RGB", (max(width // factor, 1), 1))
            matrix = matrix * (drafted[1][2] / width if drafted else 1.0)  # None: no JPEG
        # 3. Convert only the pixels that the crop needs.
        left, top, right, bottom = _bounds(matrix, size, image.size)
        image.load()
        pixels = np.asarray(image.crop((left, top, right, bottom)).convert("RGB"))
    except ValueError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, struct.error, DecompressionBombError, ...
    except Exception as error:
        raise ValueError(f"the picture cannot be decoded ({error})") from error
    return warp_image(pixels, matrix - np.array([[0, 0, left], [0, 0, top]]), size, gains)


def warp_image(
    image: UInt8[np.ndarray, "H W 3"],
    matrix: Float[np.ndarray, "2 3"],
    size: int,
    gains: Gains = UNCHANGED,
) -> UInt8[np.ndarray, "S S 3"]:
    """The crop of an image; black outside the image.

    Enlarging is bilinear interpolation. When the image shrinks by r > 2, blocks of ceil(r / 2)
    pixels a side are averaged first. The remaining factor, 1 < q <= 2, requires the mean of the
    bilinear surface over a square of sqrt(q^2 - 1) px, whose variance is (q^2 - 1) / 12. A
    three-tap filter of that variance is applied to the image instead; its effect does not depend
    on the rotation of the crop. At r = 1 a crop on the pixel grid is a copy, and linear ramps stay
    linear at every r and angle. Colours are computed in steps of 1/255, positions of 1/256 px.

    Args:
      image: RGB.
      matrix: (2, 3), crop px -> image px; may mirror.
      size: side of the crop, px.
      gains: factors of red, green and blue; the products are clipped at 255.
    """
    # 1. Average blocks.
    shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    block = max(math.ceil(shrink / 2), 1)
    matrix = np.asarray(matrix, np.float64) / block
    blocks = (-(-image.shape[1] // block), -(-image.shape[0] // block))
    left, top, right, bottom = _bounds(matrix, size, blocks)
    if block == 1:
        image = np.ascontiguousarray(image[top:bottom, left:right])
    else:
        image = _block_means(np.ascontiguousarray(image), block, left, top, right, bottom)
    # 2. Filter for the remaining factor.
    rest = max(shrink / block, 1.0)
    lanes = _smoothed_lanes(image, round(256 * (rest * rest - 1) / 24))
    # 3. Sample. Pixel centres are at whole numbers from here on.
    matrix[:, 2] += matrix[:, :2] @ np.full(2, 0.5) - 0.5 - (left, top)
    levels = np.minimum(np.asarray(gains)[:, None] * np.arange(256) + 0.5, 255).astype(np.uint8)
    out = np.empty((size, size, 3), np.uint8)
    _sample(lanes, np.round(matrix * _FIXED).astype(np.int64), levels, out)
    return out


def _bounds(
    matrix: np.ndarray, size: int, image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the pixels that a crop needs; never empty.

    They are inside the image, whose size is (width, height).
    """
    corners = matrix[:, :2] @ (size * np.array([[0, 1, 0, 1], [0, 0, 1, 1]])) + matrix[:, 2:]
    margin = 2.0  # for the bilinear neighbours and the filter
    low, high = np.floor(corners.min(1) - margin), np.ceil(corners.max(1) + margin)
    left, top = (int(np.clip(n, 0, side - 1)) for n, side in zip(low, image_size, strict=True))
    right, bottom = (int(np.clip(n, 1, side)) for n, side in zip(high, image_size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


@compiled
def _block_means(image, block, left, top, right, bottom):
    """Rounded means of the blocks in columns left..right and rows top..bottom.

    A block has block x block pixels. Pixels beyond the image are black.
    """
    height, width = image.shape[:2]
    out = np.empty((bottom - top, right - left, 3), np.uint8)
    area = block * block
    sums = np.empty((right - left, 3), np.int64)
    for row in range(top, bottom):
        sums[:] = area // 2
        for y in range(row * block, min(row * block + block, height)):
            for column in range(left, right):
                for x in range(column * block, min(column * block + block, width)):
                    for c in range(3):
                        sums[column - left, c] += image[y, x, c]
        for column in range(right - left):
            for c in range(3):
                out[row - top, column, c] = sums[column, c] // area
    return out


@compiled
def _smoothed_lanes(image, side):
    """The image after the filter (side, 256 - 2 side, side) / 256 along both axes, packed.

    Pixels beyond the image are black. A packed pixel is one uint64 with red, green and blue in
    lanes of 16 bits. 255 times weights that add up to 256 fits into a lane, so that one
    multiplication weights all three channels.
    """
    height, width = image.shape[:2]
    rows, line = image.reshape(height, 3 * width), np.empty(3 * width, np.uint8)
    out, packed = np.empty((height, width), np.uint64), np.zeros(width + 2, np.uint64)
    black = np.zeros(3 * width, np.uint8)
    outer, inner = np.uint16(side), np.uint16(256 - 2 * side)
    outer64, inner64, half = np.uint64(side), np.uint64(256 - 2 * side), np.uint64(0x0080_0080_0080)
    for y in range(height):
        # 1. Filter down the column.
        if side:
            above = rows[y - 1] if y > 0 else black
            here = rows[y]
            below = rows[y + 1] if y < height - 1 else black
            for i in range(3 * width):
                total = np.uint16(
                    outer * (np.uint16(above[i]) + np.uint16(below[i]))
                    + inner * np.uint16(here[i])
                    + np.uint16(128)
                )
                line[i] = np.uint8(total >> np.uint16(8))
        else:
            line[:] = rows[y]
        # 2. Pack.
        for x in range(width):
            red = np.uint64(line[3 * x])
            green = np.uint64(line[3 * x + 1])
            blue = np.uint64(line[3 * x + 2])
            packed[x + 1] = red | (green << np.uint64(16)) | (blue << np.uint64(32))
        # 3. Filter across the row.
        for x in range(width):
            total = outer64 * (packed[x] + packed[x + 2]) + inner64 * packed[x + 1] + half
            out[y, x] = (total >> np.uint64(8)) & np.uint64(0x00FF_00FF_00FF)
    return out


@compiled
def _pixel(lanes, y, x):
    """A packed pixel; black beyond the image."""
    return lanes[y, x] if 0 <= y < lanes.shape[0] and 0 <= x < lanes.shape[1] else np.uint64(0)


@compiled
def _sample(lanes, matrix, levels, out):
    """Set out[i, j] = levels[bilinear surface at matrix (j, i)].

    The matrix is in 1 / 2^20 px. Positions are rounded to 1/256 px.
    """
    height, width, size = lanes.shape[0], lanes.shape[1], out.shape[0]
    flat, flat_out = lanes.reshape(-1), out.reshape(-1)
    red, green, blue = levels[0], levels[1], levels[2]
    one, below, eight, low_byte = np.uint64(1), np.uint64(width), np.uint64(8), np.uint64(255)
    for i in range(size):
        x, y = matrix[0, 1] * i + matrix[0, 2] + 2048, matrix[1, 1] * i + matrix[1, 2] + 2048
        end_x, end_y = x + matrix[0, 0] * (size - 1), y + matrix[1, 0] * (size - 1)
        inside = (
            min(x, end_x) >= 0
            and max(x, end_x) >> 20 < width - 1
            and min(y, end_y) >= 0
            and max(y, end_y) >> 20 < height - 1
        )
        for j in range(size):
            left, top = x >> 20, y >> 20
            fx, fy = np.uint64((x >> 12) & 255), np.uint64((y >> 12) & 255)
            low_right = (fx * fy + np.uint64(128)) >> eight
            low_left, high_right = fy - low_right, fx - low_right
            high_left = np.uint64(256) - fx - low_left
            # `inside` is constant in a row: the compiler makes one loop without bounds checks.
            if inside:
                at = np.uint64(top * np.int64(width) + left)
                total = high_left * flat[at] + high_right * flat[at + one]
                total += low_left * flat[at + below] + low_right * flat[at + below + one]
            else:
                total = high_left * _pixel(lanes, top, left)
                total += high_right * _pixel(lanes, top, left + 1)
                total += low_left * _pixel(lanes, top + 1, left)
                total += low_right * _pixel(lanes, top + 1, left + 1)
            total += np.uint64(0x0080_0080_0080)
            first = 3 * (i * size + j)
            flat_out[first] = red[(total >> eight) & low_byte]
            flat_out[first + 1] = green[(total >> np.uint64(24)) & low_byte]
            flat_out[first + 2] = blue[(total >> np.uint64(40)) & low_byte]
            x += matrix[0, 0]
            y += matrix[1, 0]
