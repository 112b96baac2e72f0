import json

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.hands import looks, pictures, write
from genhmr_jax.data.hands.objects import held_object
from genhmr_jax.data.hands.prior import HandPrior
from genhmr_jax.data.hands.render import HandPictureSpec, draw_sample, render_hand
from genhmr_jax.data.hands.stored import PIXELS, open_stored
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.detect import hand_landmarks, hand_lifter
from genhmr_jax.detect import hands as detector
from genhmr_jax.geometry.hand import load_hand
from genhmr_jax.io.errors import InputError


@pytest.fixture(scope="module")
def hand():
    return load_hand()


@pytest.fixture(scope="module")
def poses(hand):
    fingers = HandPrior(hand).sample(np.random.default_rng(3), 24)
    return np.concatenate([np.zeros((24, 1, 3)), fingers], 1).reshape(24, 48).astype(np.float32)


@pytest.fixture
def quick(monkeypatch, poses):
    """A stand-in of the landmark network that depends on the picture and the region alone."""

    def estimates(image, regions, mirrored=None):
        found = []
        for region in regions:
            grid = np.linspace(0, hand_landmarks.SIZE, 42).reshape(21, 2)
            crop = region.crop(image, 14).astype(np.float32)
            found.append(
                hand_landmarks.HandEstimate(
                    points=region.to_image(grid, hand_landmarks.SIZE),
                    landmarks=np.pad(grid, ((0, 0), (0, 1))),
                    world=np.repeat(crop.mean((0, 1))[None], 21, 0).astype(np.float64),
                    presence=0.4 if crop.mean() > 0.6 else 0.9,
                    right=1.0,
                    early=np.repeat(crop[..., :1], 64, -1),
                    region=region,
                )
            )
        return found

    def lifted(hands):
        features = lambda hand: np.repeat(hand.early[::2, ::2, :1], 672, -1)
        return [
            hand_lifter.LiftedHand(hand.points, hand.world, np.full(21, 0.01), features(hand))
            for hand in hands
        ]

    monkeypatch.setattr(hand_landmarks, "estimates", estimates)
    monkeypatch.setattr(hand_lifter, "lifted", lifted)
    monkeypatch.setattr(pictures, "PART", 3)


def drawn(hand, pose, seed, **more):
    spec = HandPictureSpec(**more)
    return draw_sample(hand, pose, np.random.default_rng(seed), Backgrounds(), spec)


def test_picture_is_a_function_of_its_seed(hand, poses):
    one, same, other = (drawn(hand, poses[0], seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.points2d, same.points2d)
    assert one.image.dtype == np.uint8 and one.image.shape == (one.camera.size,) * 2 + (3,)
    assert one.image.shape != other.image.shape or np.any(one.image != other.image)


def test_render_hand_depends_on_the_appearance(hand, poses):
    sample = drawn(hand, poses[1], 4)
    ground = np.full((*sample.mask.shape, 3), 0.5, np.float32), None
    looks_ = [
        looks.draw_appearance(looks.surface_of(hand), np.random.default_rng(seed))
        for seed in (0, 1)
    ]
    shape = (sample.pose, sample.betas, sample.camera)
    first, again, second = (
        render_hand(hand, *shape, look, ground) for look in (looks_[0], looks_[0], looks_[1])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - second)[sample.mask].mean() > 3


def test_keypoints_are_on_the_hand(hand, poses):
    """Inside the silhouette or within 3 px, as far as nothing covers the hand."""
    off = []
    for i, pose in enumerate(poses[:12]):
        sample = drawn(hand, pose, 10 + i, patch=0.0, cut=0.0, small=0.0)
        points = sample.points2d
        size = sample.camera.size
        assert np.all((points > 0) & (points < size))
        away = distance_transform_edt(~sample.mask)
        off.append(away[points[:, 1].astype(int), points[:, 0].astype(int)])
        extent = np.ptp(np.stack(np.nonzero(sample.mask)), axis=1).max() / size
        assert 0.1 < extent < 0.9
        np.testing.assert_allclose(sample.camera.project(sample.keypoints), points)
    # Held objects and the sleeve hide some.
    assert np.mean(np.concatenate(off) <= 3) > 0.93
    assert np.median(off) == 0


def test_surface(hand):
    surface = looks.surface_of(hand)
    assert looks.surface_of(hand) is surface
    rest, y = surface.rest, surface.rest[:, 1]
    # The free hand's back is up; nails are on the back of the finger tips.
    assert surface.palmar[y > 0.012].mean() < -0.5
    assert np.all(surface.palmar[surface.nails > 0.5] < 0)
    assert 20 < np.sum(surface.nails > 0.5) < 0.08 * len(rest)
    # The forearm continues the hand without a hole, and its normals point outwards.
    edges = np.sort(surface.coarse[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert np.sum(count == 1) == len(surface.border) and count.max() == 2
    arm = rest[:, 0] > 0.1
    middle = rest[arm, 1:].mean(0)
    faces = surface.faces[np.all(arm[surface.faces], 1)]
    a, b, c = np.moveaxis(rest[faces], 1, 0)
    outward = np.sum(np.cross(b - a, c - a)[:, 1:] * (a[:, 1:] - middle), -1)
    assert np.mean(outward > 0) > 0.99


def test_held_object_is_in_a_fist_and_not_in_a_flat_hand(hand):
    finger = np.array([[0, 0, 0], [0.04, 0.0, 0], [0.05, -0.03, 0], [0.03, -0.05, 0]])
    curled = np.concatenate([[[-0.09, 0, 0.03]], *(finger + [0, 0, 0.02 * i] for i in range(5))])
    for kind in ("sphere", "cylinder", "box"):
        points, faces, normals, colours = held_object(curled, kind, 0)
        assert faces.max() < len(points) == len(normals) == len(colours)
        assert np.linalg.norm(points.mean(0)[:2] - [0.02, -0.025]) < 0.02
    flat = curled * [1, 0.01, 1]
    assert held_object(flat, "sphere", 0) is None


def test_an_interrupted_run_continues(tmp_path, quick, monkeypatch):
    whole = write.write_rows(tmp_path / "whole", 8, "made-up", "train", seed=5)
    calls, render = [], pictures.draw_sample

    def stop_after_four(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(pictures, "draw_sample", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        write.write_rows(tmp_path / "part", 8, "made-up", "train", seed=5)
    assert not (tmp_path / "part" / "done.json").exists()
    monkeypatch.setattr(pictures, "draw_sample", render)
    assert write.write_rows(tmp_path / "part", 8, "made-up", "train", seed=5) == whole
    sets = [open_stored(tmp_path / name, detector.ENCODER) for name in ("whole", "part")]
    assert sets[0].size == whole and sets[0].encoder == detector.ENCODER
    for name, array in sets[0].arrays.items():
        np.testing.assert_array_equal(array, sets[1].arrays[name])
    rows = FeatureSet(tmp_path / "whole").rows(np.arange(whole))
    assert rows.maps[0].shape == (whole, 7, 7, 672) and rows.maps[0].dtype == np.float16
    assert rows.rotmats.shape == (whole, 16, 3, 3) and rows.keypoints.dtype == np.float32
    np.testing.assert_array_equal(rows.keypoints3d[:, 0], 0.0)
    # The labels agree: the camera projects the joints of the wrist onto the true keypoint.
    moved = rows.joints + rows.view.translation(rows.weak_camera)[:, None]
    np.testing.assert_allclose(rows.view.project(moved)[:, 0], rows.points2d[:, 0], atol=0.01)
    region = np.load(tmp_path / "whole" / "region.npy")
    assert region.shape == (whole, 4)
    assert "region" not in json.loads((tmp_path / "whole" / "done.json").read_text())["arrays"]


def test_rows_with_pixels(tmp_path, quick):
    """The same rows, with the pixels around the detected keypoints in place of maps."""
    plain, pixels = tmp_path / "plain", tmp_path / "pixels"
    count = write.write_rows(plain, 3, "made-up", "train")
    assert write.write_rows(pixels, 3, "made-up", "train", pixels=True) == count
    rows = open_stored(pixels, "vit_b").rows(np.arange(count))
    assert rows.images.shape == (count, 256, 256, 3) and rows.images.dtype == np.uint8
    assert rows.maps is None and rows.images.std() > 10
    others = open_stored(plain, "").rows(np.arange(count))
    np.testing.assert_array_equal(rows.keypoints, others.keypoints)
    with pytest.raises(InputError, match=f"holds the output of {PIXELS}"):
        open_stored(pixels, detector.ENCODER)
    with pytest.raises(InputError, match="other settings"):
        write.write_rows(pixels, 3, "made-up", "train")


def test_other_settings_need_another_folder(tmp_path, quick):
    write.write_rows(tmp_path, 2, "made-up", "val")
    with pytest.raises(InputError, match="other settings"):
        write.write_rows(tmp_path, 2, "made-up", "val", seed=1)


def test_the_network_finds_rendered_hands(hand, poses):
    """With the real network: most hands are found, close to their true keypoints."""
    found, error = [], []
    for i, pose in enumerate(poses[:6]):
        rng = np.random.default_rng([1, i])
        sample = draw_sample(hand, pose, rng, Backgrounds())
        hands = write.in_true_region(sample, rng)
        row = write.row_of(sample, hands)
        found.append(hands.scores[0] >= write.MIN_PRESENCE)
        distance = np.linalg.norm(hands.keypoints[0, :, :2] - sample.points2d, axis=-1)
        error.append(np.median(distance) / row.view.crop[2])
    assert np.mean(found) >= 0.6
    assert np.median(error) < 0.12
