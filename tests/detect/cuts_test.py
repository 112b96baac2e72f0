"""Cuts between shots, on parts of made-up pictures."""

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.detect.cuts import Changes, shots
from genhmr_jax.detect.dissolves import Dissolves, middles

WIDTH, HEIGHT, CUT = 320, 200, 9


def scene(seed: int) -> np.ndarray:
    """uint8 (240, 1600, 3): smooth random colours, about 40 px wide."""
    rough = np.random.default_rng(seed).integers(0, 255, (6, 40, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((1600, 240), Image.Resampling.BICUBIC))


FIRST, SECOND = scene(0), scene(1)


def view(pixels: np.ndarray, x: int = 0) -> np.ndarray:
    return pixels[20 : 20 + HEIGHT, x : x + WIDTH]


def shots_of(pictures) -> list[int]:
    changes = Changes()
    found = np.array([changes.update(each) for each in pictures])
    return shots(found, np.arange(len(found)) / 30).tolist()


@pytest.mark.parametrize("speed", [0, 2, 8])
def test_a_cut_is_found_with_any_camera(speed):
    """px a frame; 8 is 0.75 widths a second."""
    frames = [view(FIRST if i < CUT else SECOND, speed * i) for i in range(18)]
    assert shots_of(frames) == [0] * CUT + [1] * (18 - CUT)


def test_two_cuts():
    frames = [view(FIRST)] * 5 + [view(SECOND)] * 5 + [view(FIRST, 700)] * 5
    assert shots_of(frames) == [0] * 5 + [1] * 5 + [2] * 5


def test_a_moving_camera_noise_and_a_flash_are_no_cuts():
    rng = np.random.default_rng(2)
    pan = [view(FIRST, 8 * i) for i in range(20)]
    noise = [
        np.clip(view(FIRST) + rng.normal(0, 25, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        for _ in range(8)
    ]
    flash = [view(FIRST)] * 5 + [np.full((HEIGHT, WIDTH, 3), 255, np.uint8)] + [view(FIRST)] * 5
    for frames in (pan, noise, flash):
        assert not any(shots_of(frames))


def test_a_change_of_exposure_is_no_cut():
    """As when the sun appears behind somebody."""
    brighter = np.clip(view(FIRST) * 1.6 + 10, 0, 255).astype(np.uint8)
    assert not any(shots_of([view(FIRST)] * 5 + [brighter] * 5))


def test_the_change_is_that_of_hsv():
    """Saturated red and green differ by 60 of 180 hues; grey levels by their value alone.

    A checkerboard that moves by one square has lost its details.
    """
    squares = np.indices((96, 96)).sum(0)[..., None] % 2
    board = lambda first, second: np.where(squares, first, second).astype(np.uint8)
    changes = Changes()
    assert changes.update(board([255, 0, 0], [0, 255, 0])) == 0
    assert changes.update(board([0, 255, 0], [255, 0, 0])) == pytest.approx(60 / 3, abs=0.5)
    changes = Changes()
    changes.update(board([40, 40, 40], [100, 100, 100]))
    assert changes.update(board([100, 100, 100], [40, 40, 40])) == pytest.approx(60 / 3, abs=0.01)


def test_short_clips():
    assert shots(np.zeros(0), np.zeros(0)).tolist() == [] and shots_of([view(FIRST)]) == [0]
    assert shots_of([view(FIRST), view(SECOND)]) == [0, 1]


def mixed(start, length, count, speed=0):
    """FIRST dissolves into SECOND from frame `start` on, within `length` frames."""
    shares = np.clip((np.arange(count) - start) / length, 0, 1)
    mix = lambda i, share: (1 - share) * view(FIRST, speed * i) + share * view(SECOND, speed * i)
    return [mix(i, share).astype(np.uint8) for i, share in enumerate(shares)]


def dissolves_of(pictures, rate=30) -> list[float]:
    dissolves = Dissolves()
    found = [dissolves.update(i / rate, each) for i, each in enumerate(pictures)]
    return middles(np.array(found))


@pytest.mark.parametrize(("length", "speed"), [(10, 0), (15, 1), (30, 0), (60, 0)])
def test_a_dissolve_is_found_in_its_middle(length, speed):
    (middle,) = dissolves_of(mixed(40, length, 160, speed))
    assert middle == pytest.approx((40 + length / 2) / 30, abs=0.15)


def test_a_dissolve_of_few_frames_a_second():
    (middle,) = dissolves_of(mixed(15, 10, 50), rate=10)
    assert middle == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("speed", [1, 4, 8])
def test_a_moving_camera_is_no_dissolve(speed):
    assert not dissolves_of([view(FIRST, speed * i) for i in range(150)])


def test_cuts_noise_exposure_and_fades_are_no_dissolves():
    rng = np.random.default_rng(2)
    noise = [
        np.clip(view(FIRST) + rng.normal(0, 25, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        for _ in range(60)
    ]
    gains = 1 + 0.6 * np.clip((np.arange(90) - 30) / 20, 0, 1)
    brighter = [np.clip(view(FIRST) * gain, 0, 255).astype(np.uint8) for gain in gains]
    dark = [(view(FIRST) * max(1 - i / 40, 0)).astype(np.uint8) for i in range(80)]
    cut = [view(FIRST if i < 45 else SECOND) for i in range(100)]
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 100
    for frames in (noise, brighter, dark, cut, black):
        assert not dissolves_of(frames)


def test_a_dissolve_begins_a_shot_unless_a_cut_is_near():
    changes, times = np.zeros(60), np.arange(60) / 30
    assert shots(changes, times, [1.0]).tolist() == [0] * 30 + [1] * 30
    changes[32] = 50.0
    assert shots(changes, times, [1.0]).tolist() == [0] * 32 + [1] * 28
    assert shots(changes, times, [5.0]).max() == 2
