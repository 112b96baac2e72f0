"""Rendered clips: motions of a corpus, labels that fit the pixels, and what stays over a clip."""

import dataclasses

import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation

from genhmr_jax.data.synthetic.appearance import Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.clips import ClipSpec, render_clip
from genhmr_jax.data.synthetic.motions import Sequence, load_sequences, walked
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_points
from genhmr_jax.geometry.metrics import silhouette_iou
from genhmr_jax.io.errors import InputError
from genhmr_jax.render.silhouette import silhouette

SPEC = ClipSpec(width=96, height=72, rate=10.0, occluder=0.0)
FRAMES = 6


def turning(times: np.ndarray) -> np.ndarray:
    """Poses of arms that go up at 1 rad/s, and of a body that turns at 2 rad/s."""
    poses = np.zeros((len(times), 24, 3))
    poses[:, 0, 1] = 2 * times
    poses[:, 16, 2], poses[:, 17, 2] = times - 1.2, 1.2 - times
    return poses


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.fixture(scope="module")
def clips(body):
    """A clip without and the same clip with an object in front of the person."""
    wardrobe, poses = Wardrobe.of(body), turning(np.arange(FRAMES) / SPEC.rate)
    render = lambda spec: render_clip(
        body, wardrobe, poses, np.random.default_rng(3), Backgrounds(), spec
    )
    return render(SPEC), render(dataclasses.replace(SPEC, occluder=1.0, passage_low=0.9))


def test_labels_fit_the_body_and_the_pixels(body, clips):
    clip, _ = clips
    height, width = clip.frames[0].shape[:2]
    assert (width, height) == (96, 72) and len(clip.frames) == FRAMES == len(clip.times)
    for i in range(FRAMES):
        pose = np.concatenate([clip.global_orient[i], clip.body_pose[i]]).reshape(24, 3)
        output = smpl_jax.forward(body, clip.betas, pose, clip.translation[i])
        np.testing.assert_allclose(output.joints, clip.joints[i], atol=1e-4)
        points = np.asarray(keypoint_points(body, output, DETECTED))
        pixels = points[:, :2] / points[:, 2:] * clip.focal + np.array([width, height]) / 2
        np.testing.assert_allclose(clip.keypoints[i, :, :2], pixels, atol=0.05)
        drawn = silhouette(
            np.asarray(output.vertices), np.asarray(body.faces), clip.focal, width, height
        )
        assert silhouette_iou(drawn, clip.masks[i]) > 0.75  # clothes are outside of the body


def test_the_camera_keeps_the_vertical_and_the_scene(clips):
    """The person turns about the vertical at 2 rad/s, and pixels beside the person differ only by
    noise."""
    clip, _ = clips
    roots = Rotation.from_rotvec(clip.global_orient)
    turns = (roots[1:] * roots[:-1].inv()).as_rotvec() * SPEC.rate
    np.testing.assert_allclose(np.linalg.norm(turns, axis=-1), 2.0, atol=1e-3)
    assert (turns[:, 1] / 2 < -0.9).all()  # y is down, the camera is tilted a little
    frames = np.stack(clip.frames).astype(float)
    beside = ~_grown(clip.masks.any(0))
    assert beside.sum() > 1000
    changes = np.abs(frames[1:] - frames[:-1])[:, beside]
    assert 0 < changes.mean() < 12 and abs((frames[1:] - frames[:-1])[:, beside].mean()) < 1


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its surroundings."""
    padded = np.pad(mask, 3)
    shifts = [(y, x) for y in range(7) for x in range(7)]
    height, width = mask.shape
    return np.any([padded[y : y + height, x : x + width] for y, x in shifts], 0)


def test_an_object_passes_in_front_and_changes_nothing_else(clips):
    without, with_object = clips
    assert with_object.occluded and not without.occluded
    np.testing.assert_array_equal(with_object.joints, without.joints)
    np.testing.assert_array_equal(with_object.keypoints[..., :2], without.keypoints[..., :2])
    hidden = without.masks & ~with_object.masks
    assert not (with_object.masks & ~without.masks).any()
    share = hidden.sum((1, 2)) / without.masks.sum((1, 2))
    assert share.max() > 0.1 and np.ptp(share) > 0.05  # it moves
    assert (with_object.keypoints[..., 2] <= without.keypoints[..., 2]).all()


def test_interpolation_of_irregular_poses():
    """A constant speed stays, at any intervals and across the two quaternions of a rotation; a rest
    is not overshot."""
    times = np.cumsum([0.02, 0.03, 0.1, 0.05, 0.2, 0.03] * 12) - 0.02
    moving = Sequence("a", "a", turning(times), times)
    found = moving.sampled(1.0, 40, 30.0)
    expected = turning(1.0 + np.arange(40) / 30)
    error = Rotation.from_rotvec(found.reshape(-1, 3)).inv() * Rotation.from_rotvec(
        expected.reshape(-1, 3)
    )
    assert error.magnitude().max() < 2e-3
    with pytest.raises(ValueError, match="is not within"):
        moving.sampled(times[-1] - 1.0, 40, 30.0)

    times = np.array([0.0, 0.05, 0.1, 0.15, 0.6, 0.65, 0.7, 0.8])
    poses = np.zeros((8, 24, 3))
    poses[:, 18, 1] = [0, 0.2, 0.4, 0.6, 0.6, 0.4, 0.2, 0]
    angle = Sequence("b", "b", poses, times).sampled(0.0, 24, 30.0)[:, 18, 1]
    assert angle.max() < 0.6 + 1e-6 and abs(angle[12] - 0.6) < 1e-3


def test_a_foot_on_the_ground_carries_the_body():
    """A point that goes back relative to the body at 1 m/s, 0.9 m below it: the body goes ahead."""
    rate, count = 60, 61
    points = np.zeros((count, 3, 3))
    points[:, 0] = [0, -0.9, 0]
    points[:, 0, 2] = -np.arange(count) / rate
    points[:, 1] = [0.2, -0.5, 0]  # a foot in the air, which moves otherwise
    points[:, 1, 0] += np.sin(np.arange(count))
    path = walked(points, 1 / rate)
    inner = slice(12, -12)  # beside the ends, where the Gaussian is cut
    np.testing.assert_allclose(
        np.diff(path[inner], axis=0) * rate, [[0, 0, 1]] * (count - 25), atol=1e-6
    )
    np.testing.assert_allclose(path[:, 1], 0.9, atol=1e-6)
    assert path[0, 0] == path[0, 2] == 0


def test_motions_of_a_corpus(tmp_path):
    """Long gaps, fast turns and clips end a motion; a recording under two names is taken once."""
    times = np.arange(0, 240, 3)
    one = turning(times / 60).reshape(-1, 72)
    other = one + 0.1
    other[40:, 5] += 1.0  # a jump of 1 rad in 0.05 s
    frames = times.copy()
    frames[60:] += 60
    arrays = {
        "poses": np.concatenate([one, other, one, one]).astype(np.float32),
        "frame": np.concatenate([times, times, times, frames]),
        "seq_id": np.repeat([0, 1, 2, 3], len(times)),
        "split": np.repeat([1, 1, 1, 0], len(times)),
        "seq_name": np.array(["a_1", "b_1", "a_2", "c_1"]),
        "seq_subject": np.array(["a", "b", "a", "c"]),
        "mocap_framerate": np.float32(60),
    }
    path = tmp_path / "corpus.npz"
    np.savez(path, **arrays)
    found = load_sequences(path, "val", 1.5)
    assert [(s.name, s.subject, len(s.poses)) for s in found] == [
        ("a_1", "a", 80), ("b_1", "b", 40), ("b_1", "b", 40)
    ]  # fmt: skip
    np.testing.assert_allclose(found[2].poses.reshape(-1, 72), other[40:], atol=1e-6)
    assert [len(s.poses) for s in load_sequences(path, "train", 1.5)] == [60]
    with pytest.raises(InputError, match="has no continuous motion of 9 s"):
        load_sequences(path, "val", 9.0)
    del arrays["frame"]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="keys missing: frame"):
        load_sequences(path, "val", 1.5)
    with pytest.raises(InputError, match="no such pose corpus"):
        load_sequences(tmp_path / "none.npz", "val", 1.5)
