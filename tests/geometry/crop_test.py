"""The crop warp: exact where it can be, anti-aliased where it shrinks, black outside the image."""

import numpy as np
import pytest

from genhmr_jax.geometry.crop import crop_image


def ramps(height: int = 240, width: int = 250) -> np.ndarray:
    """Channel 0 is the column, channel 1 the row, channel 2 constant 200: values tell where a pixel
    came from."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 200)], -1).astype(np.uint8)


@pytest.mark.parametrize("side", [256.0, 40.0, 63.7, 128.0, 200.0, 231.9])
@pytest.mark.parametrize("size", [32, 64, 256])
def test_every_crop_pixel_comes_from_where_the_convention_says(side, size):
    centre = np.array([124.3, 119.6])
    crop = crop_image(ramps(), np.array([*centre, side]), size) * 255
    expected = (
        centre[:, None] - side / 2 + (np.arange(size) + 0.5) * side / size
    )  # image px, centres at +0.5
    inside = (
        slice(size // 8, -(size // 8)) if side > 220 else slice(None)
    )  # away from the black border
    margin = 2 * side / size
    columns = [j for j in range(size)[inside] if margin < expected[0, j] < 250 - margin]
    rows = [i for i in range(size)[inside] if margin < expected[1, i] < 240 - margin]
    assert len(columns) > size // 2 and len(rows) > size // 2
    part = crop[np.ix_(rows, columns)]
    assert np.abs(part[..., 0] + 0.5 - expected[0, columns]).max() < 0.01
    assert np.abs(part[..., 1] + 0.5 - expected[1, rows][:, None]).max() < 0.01
    assert np.abs(part[..., 2] - 200).max() < 0.01


def test_a_crop_on_the_pixel_grid_is_a_copy():
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3)).astype(np.uint8)
    crop = crop_image(image, np.array([60.0, 50.0, 64.0]), 64)
    assert crop.dtype == np.float32
    assert np.array_equal(np.round(crop * 255).astype(np.uint8), image[18:82, 28:92])


def test_matches_a_plain_bilinear_loop_when_enlarging():
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    cx, cy, side, size = 14.2, 9.1, 12.6, 32
    padded = np.zeros((22, 32, 3))
    padded[1:-1, 1:-1] = image
    expected = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            x = (
                cx - side / 2 + (j + 0.5) * side / size + 0.5
            )  # +1 for the padding, -0.5 for pixel centres
            y = cy - side / 2 + (i + 0.5) * side / size + 0.5
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            fx, fy = x - x0, y - y0
            top = (1 - fx) * padded[y0, x0] + fx * padded[y0, x0 + 1]
            bottom = (1 - fx) * padded[y0 + 1, x0] + fx * padded[y0 + 1, x0 + 1]
            expected[i, j] = (1 - fy) * top + fy * bottom
    assert np.abs(crop_image(image, np.array([cx, cy, side]), size) * 255 - expected).max() < 1e-3


def test_shrinking_averages_a_checkerboard_to_grey():
    y, x = np.mgrid[:512, :512]
    checkerboard = np.repeat((255 * ((x + y) % 2))[..., None], 3, axis=2).astype(np.uint8)
    crop = crop_image(checkerboard, np.array([256.0, 256.0, 400.0]), 64)
    assert np.abs(crop - 0.5).max() < 0.02


def test_outside_is_black_and_a_crop_beyond_the_image_is_all_black():
    white = np.full((50, 50, 3), 255, np.uint8)
    crop = crop_image(white, np.array([0.0, 0.0, 40.0]), 40)
    assert crop[:19].max() == 0 and crop[:, :19].max() == 0 and crop[21:, 21:].min() == 1
    assert crop_image(white, np.array([500.0, -900.0, 40.0]), 40).max() == 0


def test_a_crop_that_is_no_square_is_refused():
    for crop in ([np.nan, 0, 10], [0, 0, 0], [0, 0, -5], [0, np.inf, 5]):
        with pytest.raises(ValueError, match="crop must be finite"):
            crop_image(ramps(), np.array(crop))
