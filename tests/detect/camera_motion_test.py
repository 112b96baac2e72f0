"""Moving and static cameras, on shifted parts of a made-up picture."""

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.detect.camera_motion import INTERVAL, CameraMotion, is_moving

WIDTH, HEIGHT, RATE = 512, 320, 10
NOBODY = np.zeros((0, 4), np.float32)


@pytest.fixture(scope="module")
def scene():
    """uint8 (400, 1600, 3): smooth random colours."""
    rough = np.random.default_rng(0).integers(0, 255, (40, 160, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((1600, 400), Image.Resampling.BICUBIC))


def watched(pictures, boxes=NOBODY, times=None):
    """The shifts of the frames; `boxes` of each frame or of all."""
    camera = CameraMotion()
    boxes = boxes if isinstance(boxes, list) else [boxes] * len(pictures)
    times = np.arange(len(pictures)) / RATE if times is None else times
    return np.array([camera.update(*each) for each in zip(times, pictures, boxes, strict=True)])


def view(scene, x=0, y=0):
    return scene[40 + y : 40 + y + HEIGHT, 100 + x : 100 + x + WIDTH]


PIXEL = 2 / np.hypot(WIDTH, HEIGHT)
"""A pixel of the reduced picture, which is half as wide; shifts are whole ones."""


@pytest.mark.parametrize(("x", "y"), [(4, 0), (0, -6), (-8, 6), (16, 0)])
def test_a_known_shift(scene, x, y):
    """px in INTERVAL."""
    times = [0.0, INTERVAL]
    first, second = watched([view(scene), view(scene, x, y)], times=times)
    assert np.isnan(first)
    assert second == pytest.approx(np.hypot(x, y) / np.hypot(WIDTH, HEIGHT), abs=1.1 * PIXEL)


def test_the_shift_is_in_a_fixed_time(scene):
    """Every frame is compared with the one INTERVAL before; frames may be further apart."""
    pan = [view(scene, 2 * i) for i in range(12)]  # 20 px a second
    wanted = 20 * INTERVAL / np.hypot(WIDTH, HEIGHT)
    found = watched(pan)
    assert np.isnan(found[:2]).all() and np.isfinite(found[4:]).all()
    np.testing.assert_allclose(found[5:], wanted, atol=1.1 * PIXEL)
    sparse = watched([view(scene), view(scene, 16), view(scene, 32)], times=[0, 0.8, 1.6])
    np.testing.assert_allclose(sparse[1:], wanted, atol=1.1 * PIXEL)


@pytest.mark.parametrize("speed", [3, 10, 40])
def test_a_pan_is_motion(scene, speed):
    """px a frame, up to most of the width in a second: then no block is found again."""
    assert is_moving(watched([view(scene, speed * i) for i in range(20)]))


@pytest.mark.parametrize("smooth", [1, 3])
def test_a_static_camera_with_noise(scene, smooth):
    """A smooth background has no high frequencies, so that only noise does."""
    rng = np.random.default_rng(1)
    part = Image.fromarray(scene[: 400 // smooth, : 1600 // smooth])
    scene = np.asarray(part.resize((1600, 400), Image.Resampling.BICUBIC))
    noisy = [
        np.clip(view(scene) + rng.normal(0, 8, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        for _ in range(8)
    ]
    found = watched(noisy)
    assert (found[5:] == 0).all() and not is_moving(found)


def test_people_do_not_count(scene):
    """A person before a plain wall: every block with texture is of the person."""
    pictures, boxes = [], []
    for i in range(12):
        x = 60 + 14 * i
        picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        picture[20:300, x : x + 200] = scene[20:300, 100:300]
        pictures.append(picture)
        boxes.append(np.array([[x, 20, x + 200, 300]], np.float32))
    assert is_moving(watched(pictures))
    found = watched(pictures, boxes)
    assert np.isnan(found).all() and not is_moving(found)
    # The same person before a scene that stays.
    for i, picture in enumerate(pictures):
        person = picture[20:300, 60 + 14 * i : 260 + 14 * i].copy()
        picture[:] = view(scene)
        picture[20:300, 60 + 14 * i : 260 + 14 * i] = person
    found = watched(pictures, boxes)
    assert (found[5:] == 0).all() and not is_moving(found)


def test_a_plain_picture_tells_nothing():
    found = watched([np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 8)
    assert np.isnan(found).all() and not is_moving(found)
    assert not is_moving(np.zeros(0))


def test_short_shakes_do_not_count():
    shifts = np.array([np.nan, 0, 0, 0.02, 0, 0, 0, 0, 0, 0, 0])
    assert not is_moving(shifts)
    shifts[4] = 0.02
    assert is_moving(shifts)
