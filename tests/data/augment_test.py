"""Augmentation: the warp against float64, and one change of the camera that image and all labels
follow."""

import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter
from smpl_jax.keypoints import BODY44_FLIP, SMPL24_FLIP

from genhmr_jax.data.augment import Augmentation, AugmentSpec, crop_square, draw, occlude, view_of
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.crop import crop_image
from genhmr_jax.geometry.warp import warp_file, warp_image

INTRINSICS = np.array([[900.0, 0, 330], [0, 880, 230], [0, 0, 1]])  # not square, not centred
SIZE = np.array([640, 480])


def smooth(height: int, width: int, sigma: float = 6.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, (height, width, 3))
    image = gaussian_filter(noise, (sigma, sigma, 0))
    return np.round(128 + 100 * image / np.abs(image).max()).astype(np.uint8)


def ramps(height: int, width: int) -> np.ndarray:
    """Values tell where a pixel is: x / 4, y / 4, 200; of a point x they are (x - 0.5) / 4."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / 4, y / 4, np.full(x.shape, 200)], -1)


def bilinear(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """float64, black outside; points (..., 2) px."""
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    x, y = (np.clip(points[..., i] + 0.5, 0, image.shape[1 - i] + 0.999) for i in range(2))
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    padded = np.pad(padded, ((0, 1), (0, 1), (0, 0)))
    top = (1 - fx) * padded[y0, x0] + fx * padded[y0, x0 + 1]
    return (1 - fy) * top + fy * ((1 - fx) * padded[y0 + 1, x0] + fx * padded[y0 + 1, x0 + 1])


def crop_matrix(centre: np.ndarray, side: float, size: int, angle: float = 0.0) -> np.ndarray:
    """The matrix (2, 3) of a square crop of `side` image px, turned by `angle` in the image
    (radians, clockwise as seen)."""
    step = side / size
    turn = step * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    return np.concatenate([turn, (centre - turn @ np.full(2, size / 2))[:, None]], -1)


def grid(matrix: np.ndarray, size: int) -> np.ndarray:
    """Image points (size, size, 2) of the crop's pixels."""
    across, down = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    return np.stack([across, down], -1) @ matrix[:, :2].T + matrix[:, 2]


def test_a_crop_on_the_pixel_grid_is_a_copy():
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3)).astype(np.uint8)
    assert np.array_equal(
        warp_image(image, crop_matrix(np.array([60.0, 50.0]), 64, 64), 64), image[18:82, 28:92]
    )
    quarter = warp_image(image, crop_matrix(np.array([60.0, 50.0]), 64, 64, math.pi / 2), 64)
    assert np.array_equal(
        quarter, np.rot90(image[18:82, 28:92])
    )  # the square turns clockwise, so its content turns back


@pytest.mark.parametrize("shrink", [0.4, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.5])
def test_against_float64(shrink, angle):
    """Up to a shrinking by 2: the three-tap filter of variance (r^2 - 1) / 12 across and down, then
    bilinear; at the border too."""
    image, size = np.random.default_rng(1).integers(0, 256, (90, 110, 3)).astype(np.uint8), 48
    matrix = crop_matrix(np.array([40.2, 33.7]), shrink * size, size, angle)
    side = max(shrink**2 - 1, 0) / 24
    soft = image.astype(np.float64)
    for axis in (0, 1):
        soft = correlate1d(soft, [side, 1 - 2 * side, side], axis, mode="constant")
    gap = np.abs(warp_image(image, matrix, size) - bilinear(soft, grid(matrix, size)))
    assert (
        gap.max() <= 3 and gap.mean() < 0.5
    )  # three roundings to a level, weights and positions to 1/256


@pytest.mark.parametrize("shrink", [1.2, 1.7, 2.6, 3.9])
def test_blur_has_the_right_width(shrink):
    """A single bright pixel, over all its places in the grid of the crop: the variance of what it
    becomes, in image px."""
    size, found = 40, []
    for x in np.linspace(0, shrink, 9)[:-1]:
        image = np.zeros((160, 160, 3), np.uint8)
        image[76:84, 76:84] = 255
        crop = (
            warp_image(image, crop_matrix(np.array([80 + x, 80.0]), shrink * size, size), size)[
                ..., 0
            ]
            .astype(np.float64)
            .sum(0)
        )
        at = (np.arange(size) - (crop @ np.arange(size)) / crop.sum()) * shrink
        found.append(crop @ at**2 / crop.sum() - 63 / 12)  # less that of the bright square itself
    # The mean over a pixel of the crop has r^2 / 12, and bilinear interpolation between blocks adds
    # up to 1/6 of a block squared.
    assert (
        (shrink**2 - 1) / 12
        < np.mean(found)
        < (shrink**2 + 2 * math.ceil(shrink / 2) ** 2) / 12 + 0.1
    )


def natural(side: int) -> np.ndarray:
    """Noise with the spectrum of photographs: amplitude 1 / frequency."""
    noise = np.fft.fft2(np.random.default_rng(2).normal(0, 1, (side, side, 3)), axes=(0, 1))
    fx, fy = np.fft.fftfreq(side)[:, None, None], np.fft.fftfreq(side)[None, :, None]
    image = np.fft.ifft2(noise / np.maximum(np.hypot(fx, fy), 1 / side), axes=(0, 1)).real
    return (128 + 45 * image / image.std()).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shrink", [0.5, 1.2, 1.7, 2.6, 3.5, 7.3])
def test_near_the_true_mean_over_the_turned_square(shrink):
    """Against the mean of the bilinear surface over a square of sqrt(r^2 - 1) px by 24 x 24
    points."""
    image, size, angle = natural(400), 32, 0.5
    matrix = crop_matrix(np.array([201.3, 199.1]), shrink * size, size, angle)
    width = math.sqrt(max(shrink**2 - 1, 0)) / shrink
    steps = (np.arange(24) + 0.5) / 24 - 0.5
    points = grid(matrix, size)
    wanted = np.mean(
        [
            bilinear(image, points + width * matrix[:, :2] @ np.array([a, b]))
            for a in steps
            for b in steps
        ],
        0,
    )
    aliased = bilinear(image, points) - wanted
    gap = warp_image(image, matrix, size) - wanted
    rms = lambda x: float(np.sqrt(np.mean(x**2)))
    assert rms(gap) < max(0.13 * wanted.std(), 0.6)  # worst just above a shrinking by 2
    assert shrink < 2 or rms(gap) < 0.5 * rms(aliased)


@pytest.mark.parametrize("shrink", [0.3, 1.0, 1.4, 2.0, 2.9, 5.5])
@pytest.mark.parametrize("angle", [0.0, -0.4, 1.9])
def test_ramps_stay_exact(shrink, angle):
    size = 64
    matrix = crop_matrix(np.array([402.3, 398.8]), shrink * size, size, angle)
    crop = warp_image(np.round(ramps(800, 800)).astype(np.uint8), matrix, size)
    wanted = (grid(matrix, size) - 0.5) / 4
    assert np.abs(crop[..., :2] - wanted).max() < 1.3  # the ramp itself is rounded
    assert abs(np.mean(crop[..., :2] - wanted)) < 0.2  # halves are rounded up
    assert np.abs(crop[..., 2].astype(int) - 200).max() == 0


def test_meets_the_crop_of_the_detector_where_both_apply():
    image = smooth(300, 320)
    for side in (40.0, 64.0, 90.0, 200.0):
        crop = np.array([151.3, 148.2, side])
        gap = warp_image(image, crop_matrix(crop[:2], side, 64), 64) - 255 * crop_image(
            image, crop, 64
        )
        assert np.abs(gap).max() < 3


def test_turning_there_and_back():
    image, middle = smooth(256, 256, 10.0), np.full(2, 128.0)
    for angle in (0.2, -1.1, 3.0):
        there = warp_image(image, crop_matrix(middle, 256, 256, angle), 256)
        back = warp_image(there, crop_matrix(middle, 256, 256, -angle), 256)
        y, x = np.mgrid[:256, :256] + 0.5
        inside = np.hypot(x - 128, y - 128) < 120
        assert np.abs(back.astype(int) - image)[inside].max() <= 3


def test_shrinking_averages_a_checkerboard_and_outside_is_black():
    y, x = np.mgrid[:512, :512]
    board = np.repeat((255 * ((x + y) % 2))[..., None], 3, axis=2).astype(np.uint8)
    for angle in (0.0, 0.3):
        assert (
            np.abs(
                warp_image(board, crop_matrix(np.array([256.0, 256]), 330, 64, angle), 64).astype(
                    int
                )
                - 128
            ).max()
            < 12
        )
    white = np.full((50, 50, 3), 255, np.uint8)
    crop = warp_image(white, crop_matrix(np.zeros(2), 40, 40), 40)
    assert crop[:19].max() == 0 and crop[:, :19].max() == 0 and crop[21:, 21:].min() == 255
    assert warp_image(white, crop_matrix(np.array([500.0, -900.0]), 40, 40), 40).max() == 0
    assert warp_image(white, crop_matrix(np.array([25.0, 25]), 2000, 40), 40).max() > 0


def test_gains_are_cut_off():
    grey = np.full((20, 20, 3), 200, np.uint8)
    crop = warp_image(grey, crop_matrix(np.array([10.0, 10]), 10, 10), 10, (0.5, 1.0, 1.5))
    assert (
        crop.reshape(-1, 3).min(0).tolist()
        == crop.reshape(-1, 3).max(0).tolist()
        == [100, 200, 255]
    )


def encoded(image: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(
        stream, kind, **({"quality": 97, "subsampling": 0} if kind == "JPEG" else {})
    )
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("width,height", [(1003, 797), (640, 480)])
def test_files_give_what_their_pixels_give(kind, width, height):
    """Also where a JPEG is decoded at a fraction of its size, whose last row and column stand for
    fewer pixels."""
    image = smooth(height, width, 24.0)
    data = encoded(image, kind)
    for side, angle in ((100.0, 0.3), (300.0, 0.0), (600.0, 0.5), (3000.0, 0.1)):
        matrix = crop_matrix(np.array([width / 2 + 20, height / 2]), side, 64, angle)
        gap = np.abs(
            warp_file(data, matrix, 64, (width, height)).astype(int) - warp_image(image, matrix, 64)
        )
        margin = 2 * side / 64  # at a fraction of its size, the picture ends on a whole block
        inside = (
            (grid(matrix, 64) > margin) & (grid(matrix, 64) < np.array([width, height]) - margin)
        ).all(-1)
        assert inside.sum() > 40 and gap[inside].max() <= 6 and gap.mean() < 1
        assert gap[~inside].max(initial=0) < 80


def test_bad_files():
    data, matrix = encoded(smooth(100, 80), "JPEG"), crop_matrix(np.array([40.0, 50]), 60, 64)
    with pytest.raises(ValueError, match="80 x 100 px, its labels are for 100 x 80 px"):
        warp_file(data, matrix, 64, (100, 80))
    for broken in (data[: len(data) // 2], b"", b"\xff\xd8 no JPEG"):
        with pytest.raises(ValueError, match="cannot be decoded"):
            warp_file(broken, matrix, 64)


def test_draws_depend_on_seed_and_number_alone_and_keep_to_the_recipe():
    spec = AugmentSpec()
    assert draw(spec, 3, 7) == draw(spec, 3, 7)
    assert draw(spec, 3, 7) != draw(spec, 3, 8) and draw(spec, 3, 7) != draw(spec, 4, 7)
    drawn = [draw(spec, 0, n) for n in range(4000)]
    angle, scale = np.degrees([a.angle for a in drawn]), np.array([a.scale for a in drawn])
    colour, shift = np.array([a.colour for a in drawn]), np.array([a.shift for a in drawn])
    share = lambda flags: float(np.mean(flags))
    assert share(angle != 0) == pytest.approx(0.6, abs=0.03) and share(
        [a.flip for a in drawn]
    ) == pytest.approx(0.5, abs=0.03)
    assert np.abs(angle).max() == pytest.approx(60) and angle[angle != 0].std() == pytest.approx(
        28.7, abs=1.5
    )
    assert (scale.min(), scale.max()) == (pytest.approx(0.7), pytest.approx(1.3)) and share(
        scale == 1.3
    ) == pytest.approx(0.159, abs=0.02)
    assert (
        np.abs(shift).max() == pytest.approx(0.02)
        and (np.abs(colour - 1) <= 0.2).all()
        and colour.std() == pytest.approx(0.115, abs=0.005)
    )
    cut = [a.extreme for a in drawn if a.extreme is not None]
    assert len(cut) / 4000 == pytest.approx(0.1, abs=0.015)
    assert share([a.occluders > 0 for a in drawn]) == pytest.approx(0.1, abs=0.015)
    assert 0 <= min(cut) < 0.02 and 0.98 < max(cut) < 1
    assert np.mean(cut) == pytest.approx(0.5, abs=0.05)
    nothing = AugmentSpec(scale=0, rotate=0, shift=0, flip=0, colour=0, extreme_crop=0, occlude=0)
    assert dataclasses.replace(draw(nothing, 0, 1), seed=0) == Augmentation()


def labels(random: np.random.Generator) -> dict[str, np.ndarray]:
    """One of each kind of label."""
    from scipy.spatial.transform import Rotation

    keypoints, points = random.normal(300, 100, (44, 3)), random.normal(0, 1, (44, 4))
    keypoints[:, 2], points[:, 3] = random.integers(0, 2, 44), random.integers(0, 2, 44)
    joints = np.concatenate([random.normal(0, 1, (24, 3)), np.ones((24, 1))], -1)
    keypoints[keypoints[:, 2] == 0], points[points[:, 3] == 0] = 0, 0
    rotmats = Rotation.from_rotvec(random.normal(0, 1, (24, 3))).as_matrix()
    return {
        "keypoints": keypoints,
        "points": points,
        "joints": joints,
        "rotmats": rotmats,
        "translation": random.normal(0, 1, 3),
    }


def changed(view, given: dict[str, np.ndarray], pelvis: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "keypoints": view.labels(given["keypoints"], BODY44_FLIP),
        "points": view.labels(given["points"], BODY44_FLIP),
        "joints": view.labels(given["joints"], SMPL24_FLIP),
        "rotmats": view.rotmats(given["rotmats"]),
        "translation": view.translation(given["translation"], pelvis),
    }


@pytest.mark.parametrize(
    "there,back",
    [
        (Augmentation(flip=True), Augmentation(flip=True)),
        (Augmentation(angle=0.8), Augmentation(angle=-0.8)),
        (
            Augmentation(angle=0.8, flip=True),
            Augmentation(angle=0.8, flip=True),
        ),  # a reflection is its own inverse
    ],
)
def test_twice_is_nothing_for_every_label(there, back):
    pelvis, given = np.array([0.002, -0.22, 0.03]), labels(np.random.default_rng(0))
    once = changed(view_of(SIZE, None, there), given, pelvis)
    twice = changed(view_of(SIZE, None, back), once, pelvis)
    for name, value in given.items():
        np.testing.assert_allclose(twice[name], value, atol=1e-9, err_msg=name)
        assert np.abs(once[name] - value).max() > 0.01, name


def test_a_view_without_change_makes_pixels_square_and_centres_the_principal_point():
    view = view_of(SIZE, INTRINSICS, Augmentation())
    point = np.array([0.7, -0.4, 3.0])
    old = (INTRINSICS @ point)[:2] / 3.0
    np.testing.assert_allclose(view.pixels(old), view.focal * point[:2] / 3.0 + SIZE / 2)
    centred = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    np.testing.assert_allclose(
        view_of(SIZE, centred, Augmentation()).affine, np.eye(2, 3), atol=1e-12
    )


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0])
def test_points_in_space_project_to_where_the_pixels_go(flip, angle):
    view = view_of(SIZE, INTRINSICS, Augmentation(flip=flip, angle=angle))
    points = np.random.default_rng(0).normal(0, 0.5, (20, 3)) + [0, 0, 4]
    old = points @ INTRINSICS.T
    new = points @ view.turn.T
    np.testing.assert_allclose(
        view.pixels(old[:, :2] / old[:, 2:]),
        view.focal * new[:, :2] / new[:, 2:] + view.size / 2,
        atol=1e-9,
    )
    crop = view.crop(np.array([300.0, 200.0, 150.0]))
    matrix = view.crop_matrix(crop, 256)
    inside = (view.pixels(old[:, :2] / old[:, 2:]) - crop[:2] + crop[2] / 2) * 256 / crop[2]
    np.testing.assert_allclose(
        inside @ matrix[:, :2].T + matrix[:, 2], old[:, :2] / old[:, 2:], atol=1e-9
    )
    np.testing.assert_allclose(grid(matrix, 256).mean((0, 1)), [300.0, 200.0])


def test_turning_turns_clockwise():
    view = view_of(np.array([100, 100]), None, Augmentation(angle=math.pi / 2))
    np.testing.assert_allclose(
        view.pixels(np.array([50.0, 10.0])), [90.0, 50.0]
    )  # what was on top is on the right


def test_plain_crops():
    """A box grows to 3 : 4, then moves by shares of its side, then scales.

    The extreme ones are in hmr2_loader_test.py.
    """
    keypoints, box = np.zeros((44, 3)), np.array([90.0, 90, 410, 410])
    whole = crop_square(box, keypoints, Augmentation())
    np.testing.assert_allclose(whole, [250, 250, 320 * 4 / 3])
    assert camera.square_around(np.array([0.0, 0, 60, 100])).tolist() == [30, 50, 100]
    moved = crop_square(box, keypoints, Augmentation(scale=1.2, shift=(0.02, -0.01)))
    np.testing.assert_allclose(
        moved, [250 + 0.02 * whole[2], 250 - 0.01 * whole[2], 1.2 * whole[2]]
    )


def test_occluders_change_what_they_hide_and_nothing_else():
    image = smooth(256, 256)
    for seed in range(6):
        augmentation = Augmentation(occluders=3, seed=seed)
        found, hidden = occlude(image, augmentation)
        assert np.array_equal(found[~hidden], image[~hidden]) and 0.01 < hidden.mean() < 0.8
        assert (found[hidden] != image[hidden]).any(-1).mean() > 0.9
        again, _ = occlude(image, augmentation)
        assert np.array_equal(found, again)
    assert not np.array_equal(hidden, occlude(image, Augmentation(occluders=3, seed=99))[1])
