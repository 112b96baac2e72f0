"""The pose corpus's order and the simulated views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax.keypoints import flip_rotmats

from genhmr_jax.data import poses, views
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP, keypoint_model, keypoint_points
from genhmr_jax.io.errors import InputError


@pytest.fixture(scope="module")
def body():
    return keypoint_model(load_body("lite"))


def test_a_source_is_a_function_of_the_sample_number(corpus_file):
    source = poses.PoseSource(poses.load_corpus(corpus_file, "train"), 12, seed=3)
    whole, part = source.load(np.arange(36)), source.load(np.array([30, 7, 7]))
    np.testing.assert_array_equal(part.pose, whole.pose[[30, 7, 7]])
    np.testing.assert_array_equal(part.number, [30, 7, 7])
    assert len(np.unique(whole.pose, axis=0)) > 18  # drawn from all of the corpus


def test_weights_balance_clips(corpus_file):
    corpus = poses.load_corpus(corpus_file, "train", max_clip_share=1.0)
    assert len(corpus.poses) == 200
    np.testing.assert_allclose(
        corpus.weights[:50].sum() / corpus.weights[50:].sum(), np.sqrt(50 / 150)
    )
    drawn = corpus.draw(np.arange(20000), seed=0)
    np.testing.assert_allclose(np.mean(drawn < 50), corpus.weights[:50].sum(), atol=0.02)
    assert (corpus.draw(np.arange(50), 0) != corpus.draw(np.arange(50), 1)).any()


@pytest.mark.parametrize(
    "change, message",
    [({"poses": None}, "keys missing: poses"), ({"poses": np.zeros((300, 66))}, "shape")],
)
def test_bad_corpus(corpus_file, tmp_path, change, message):
    with np.load(corpus_file) as data:
        arrays = {k: v for k, v in (dict(data) | change).items() if v is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        poses.load_corpus(tmp_path / "bad.npz", "train")
    with pytest.raises(InputError, match="no such pose corpus"):
        poses.load_corpus(tmp_path / "none.npz", "train")


QUIET = views.ViewSpec(
    jitter_low=1e-7,
    jitter_high=2e-7,
    outlier=0.0,
    swap=0.0,
    drop=0.0,
    drop_face=0.0,
    occlude=0.0,
    truncate=0.0,
    crop_jitter=0.0,
    hide_feet_hands=0.0,
)


make_views = jax.jit(views.make_views, static_argnames="spec")
forward = jax.jit(smpl_jax.forward)


def test_labels_agree_with_each_other(body, corpus_file):
    batch = poses.load_corpus(corpus_file, "val").poses[:16]
    rows = make_views(body, batch, np.arange(16), jax.random.key(0), QUIET)
    output = forward(body, rows.betas, rows.rotmats)
    np.testing.assert_allclose(output.joints, rows.joints, atol=1e-5)
    translation = rows.view.translation(rows.weak_camera)
    points = rows.view.project(keypoint_points(body, output, DETECTED) + translation[:, None])
    np.testing.assert_allclose(points, rows.points2d, atol=0.1)
    np.testing.assert_allclose(rows.keypoints[..., :2], rows.points2d, atol=0.1)
    assert (translation[:, 2] > 0.3).all()
    inside = np.abs(rows.view.to_crop(rows.points2d))
    np.testing.assert_allclose(inside.max((1, 2)), 1 / 1.25, atol=1e-3)  # the crop's margin


def test_upright_people_stand_upright(body):
    """y points down in camera coordinates: a standing person's head has smaller y than the feet,
    and faces the camera at yaw 0."""
    spec = dataclasses.replace(
        QUIET, free_rotation=0.0, tilt_pitch=0.0, tilt_roll=0.0, pose_noise=0.0, mirror=0.0
    )
    views_of = lambda poses: views.make_views(
        body, poses, jnp.arange(len(poses)), jax.random.key(0), spec
    )
    joints = np.asarray(jax.jit(lambda poses: views_of(poses).joints)(np.zeros((8, 72))))
    assert (joints[:, 15, 1] < joints[:, 7, 1] - 1.0).all()


def test_a_sample_depends_on_its_number_alone(body, corpus_file):
    """Wherever it stands in a batch, and whatever the rest of the batch is."""
    batch, numbers = poses.load_corpus(corpus_file, "val").poses[:16], np.arange(16)
    of = lambda batch, numbers: make_views(
        body, batch, numbers, jax.random.key(5), views.ViewSpec()
    )
    whole, other = of(batch, numbers), of(batch, numbers + 100)
    order = np.roll(numbers, 3)
    moved = of(batch[order], np.where(order < 5, order, order + 50))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[:5], b[3:8], rtol=1e-4, atol=1e-4), whole, moved
    )
    assert np.abs(np.asarray(whole.rotmats) - np.asarray(other.rotmats)).max() > 0.1


def test_mirroring(body):
    pose = 0.4 * jax.random.normal(jax.random.key(0), (24, 3))
    rotmats = smpl_jax.rotations.axis_angle_to_matrix(pose)
    mirrored = flip_rotmats(rotmats)
    np.testing.assert_allclose(flip_rotmats(mirrored), rotmats, atol=1e-6)
    points = lambda r: np.asarray(keypoint_points(body, forward(body, jnp.zeros(10), r), DETECTED))
    np.testing.assert_allclose(
        points(mirrored) * [-1, 1, 1], points(rotmats)[list(DETECTED_FLIP)], atol=2e-3
    )


@pytest.mark.slow
def test_keypoints_in_3d_have_the_swaps_and_the_shifts_of_those_in_2d(body, corpus_file):
    """One network estimates both: where it swaps left and right, it does so in both."""
    poses_ = poses.load_corpus(corpus_file, "val").poses[:8]
    quiet = dataclasses.replace(QUIET, lift_noise=0.0, lift_turn=0.0, lift_unknown=0.0)
    of = lambda spec: make_views(body, poses_, np.arange(8), jax.random.key(1), spec)
    plain, swapped = of(quiet), of(dataclasses.replace(quiet, swap=1.0))
    flip = list(DETECTED_FLIP)
    np.testing.assert_allclose(swapped.keypoints3d, plain.keypoints3d[:, flip], atol=1e-3)
    points = np.asarray(swapped.points2d)[:, flip]
    np.testing.assert_allclose(swapped.keypoints[..., :2], points, atol=0.1)
    # A shift in px is one in metres at the depth of the person.
    spec = dataclasses.replace(quiet, jitter_low=0.02, jitter_high=0.021)
    moved = of(spec)
    depth = np.asarray(moved.view.translation(moved.weak_camera))[:, 2] / moved.view.focal
    shift = np.asarray(moved.keypoints[..., :2] - moved.points2d) * depth[:, None, None]
    hips = list(views.HIPS)
    wanted = shift - shift[:, hips].mean(1, keepdims=True)
    found = np.asarray(moved.keypoints3d - plain.keypoints3d)[..., :2]
    ratio = np.sum(found * wanted, (1, 2)) / np.sum(wanted**2, (1, 2))
    np.testing.assert_allclose(found, ratio[:, None, None] * wanted, atol=2e-3)
    assert (np.abs(np.log(ratio)) < 0.5).all()  # the error of the scale of a person


def test_detector_noise_has_the_asked_share_of_faults():
    points = jnp.stack([jnp.linspace(0, 100, 23), jnp.linspace(0, 200, 23)], -1)

    def noisy(spec, count):
        one = lambda key: views.detector_noise(points, jnp.asarray(250.0), key, spec)
        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count))

    dropped = noisy(dataclasses.replace(QUIET, drop=0.2), 2000)
    np.testing.assert_allclose(np.mean(dropped[..., 2] == 0), 0.2, atol=0.01)
    swapped = noisy(dataclasses.replace(QUIET, swap=1.0), 50)
    np.testing.assert_allclose(
        swapped[:, list(DETECTED_FLIP), :2], jnp.broadcast_to(points, (50, 23, 2)), atol=0.01
    )
