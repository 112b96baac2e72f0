"""A stored row, mirrored and turned, is what a camera would have seen: labels and picture still
agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax

from genhmr_jax.data import turns, views
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import keypoint_model, project_keypoints

UNCHANGED = turns.TurnSpec(
    mirror=0.0, turn=0.0, jitter=0.0, jitter3d=0.0, drop=0.0, drop3d=0.0, crop_jitter=0.0
)


@pytest.fixture(scope="module")
def body():
    return keypoint_model(load_body("neutral"))


@pytest.fixture(scope="module")
def row(body):
    pose = 0.3 * jax.random.normal(jax.random.key(1), (72,))
    clean = views.ViewSpec(lift_unknown=0.0, drop=0.0, truncate=0.0, occlude=0.0)
    make = jax.jit(views.make_view, static_argnames="spec")
    return make(body, pose, jax.random.key(2), clean)


turn_row = jax.jit(turns.turn_row, static_argnames="spec")


@jax.jit
def project(body, row):
    """Joints, metres, and keypoints, px, of the body that a row's labels describe."""
    output = smpl_jax.forward(body, row.betas, row.rotmats)
    return output.joints, project_keypoints(body, output, row.weak_camera, row.view)


@pytest.mark.parametrize(
    "settings",
    [{}, {"turn": 0.7}, {"mirror": 1.0}, {"turn": 0.7, "mirror": 1.0, "crop_jitter": 0.1}],
)
def test_labels_agree_with_the_turned_picture(body, row, settings):
    turned = turn_row(row, jax.random.key(5), dataclasses.replace(UNCHANGED, **settings))
    joints, points = project(body, turned)
    side = float(turned.view.crop[2])
    # Mirroring takes the body to be the same left and right, which the free body is to a few
    # millimetres.
    limit = 0.012 if settings.get("mirror") else 1e-4
    assert np.abs(points - turned.points2d).max() / side < limit
    assert np.abs((joints - joints[0]) - (turned.joints - turned.joints[0])).max() < (
        0.02 if settings.get("mirror") else 1e-5
    )
    if settings:
        assert np.abs(turned.points2d - row.points2d).max() / side > 0.05


def test_detections_move_with_the_labels(row):
    turned = turn_row(row, jax.random.key(5), dataclasses.replace(UNCHANGED, turn=0.7, mirror=1.0))
    before = row.keypoints[:, :2] - row.points2d
    after = turned.keypoints[:, :2] - turned.points2d
    assert np.linalg.norm(after, axis=-1).sum() == pytest.approx(
        float(np.linalg.norm(before, axis=-1).sum()), rel=1e-4
    )
    distances = lambda p: np.sort(np.linalg.norm(p[:, None] - p[None], axis=-1).ravel())
    np.testing.assert_allclose(distances(turned.keypoints3d), distances(row.keypoints3d), atol=1e-5)


def test_what_is_dropped_is_zero(row):
    turned = turn_row(row, jax.random.key(6), dataclasses.replace(UNCHANGED, drop=0.5, drop3d=1.0))
    gone = turned.keypoints[:, 2] == 0
    assert (
        0 < gone.sum() < len(gone)
        and not turned.keypoints[gone].any()
        and not turned.keypoints3d.any()
    )
    unknown = turn_row(
        dataclasses.replace(row, keypoints3d=jnp.zeros_like(row.keypoints3d)),
        jax.random.key(6),
        turns.TurnSpec(drop3d=0.0),
    )
    assert not unknown.keypoints3d.any()
