"""From detected hands to meshes: camera, mirror, padding and the files."""

import dataclasses

import numpy as np
import pytest
from smpl_jax.rotations import axis_angle_to_matrix

from genhmr_jax.core.inputs import upright
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.data.annotations.hands import GivenHand
from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry.hand import mirror_pixels, mirror_points
from genhmr_jax.geometry.hand_crop import upright_region
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover import photo as photos
from genhmr_jax.recover.hands import HandMeshes, load_hands
from genhmr_jax.recover.photo import RecoverOptions

CAMERA = PhotoCamera(900.0, (300.0, 210.0))
BLACK = np.zeros((480, 640, 3), np.uint8)
DEFAULTS = RecoverOptions()


def recovered(recoverer, hands, options=DEFAULTS):
    """The meshes of detected hands; this model does not read the pixels."""
    return recoverer.recover_prepared(recoverer.prepare(BLACK, hands, CAMERA), options)


def made_up_hands(count=3, seed=0, right=None):
    """Hands with random keypoints and features."""
    rng = np.random.default_rng(seed)
    keypoints = np.ones((count, 21, 3), np.float32)
    keypoints[..., :2] = rng.uniform(-60, 60, (count, 21, 2)) + rng.uniform(150, 350, (count, 1, 2))
    return dataclasses.replace(
        Hands.empty(count),
        boxes=np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], -1),
        scores=np.linspace(1, 0.5, count).astype(np.float32),
        keypoints=keypoints,
        keypoints3d=rng.normal(0, 0.05, (count, 21, 3)).astype(np.float32),
        right=np.float32([i % 2 == 0 for i in range(count)]) if right is None else right,
        features=rng.normal(0, 1, (count, 7, 7, 672)).astype(np.float32),
    )


def test_the_region_turns_with_the_hand():
    hands = made_up_hands()
    before = upright_region(hands.keypoints)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = hands.keypoints.copy()
    turned[..., :2] = turned[..., :2] @ turn.T
    after = upright_region(turned)
    np.testing.assert_allclose(after[:, :2], before[:, :2] @ turn.T, atol=1e-3)
    np.testing.assert_allclose(after[:, 2], before[:, 2], rtol=1e-5)
    gap = np.angle(np.exp(1j * (after[:, 3] - before[:, 3] - angle)))
    np.testing.assert_allclose(gap, 0, atol=1e-5)


def test_a_hand_is_upright_in_the_axes_of_the_network(hand_recoverer):
    hands = made_up_hands()
    _, own = upright(hand_recoverer.system.prepare(BLACK, hands, CAMERA, len(hands)))
    points = np.asarray(own.view.to_crop(own.keypoints[..., :2]))
    assert np.abs(points).max() <= 0.81, "the margin is a quarter"
    up = points[:, [5, 9, 13, 17]].mean(1) - points[:, 0]
    np.testing.assert_allclose(up[:, 0], 0, atol=1e-4)
    assert (up[:, 1] < 0).all()


def test_left_is_right_in_the_mirror(hand_recoverer):
    """The keypoints of a left hand are those of a right one, mirrored."""
    hands = made_up_hands(2, right=np.float32([1, 1]))
    mirrored = dataclasses.replace(
        hands,
        keypoints=mirror_pixels(hands.keypoints, CAMERA.principal_point[0]),
        keypoints3d=mirror_points(hands.keypoints3d),
        right=np.float32([0, 0]),
    )
    options = RecoverOptions(hypotheses=2, refine_steps=3)
    right, left = (recovered(hand_recoverer, h, options) for h in (hands, mirrored))
    assert right.right.all() and not left.right.any()
    for name in ("vertices", "joints", "translation", "hypothesis_joints"):
        wanted = mirror_points(getattr(right, name))
        np.testing.assert_allclose(getattr(left, name), wanted, rtol=2e-3, atol=1e-4)
    # As matrices: an axis-angle near half a turn amplifies rounding.
    matrices = lambda pose: axis_angle_to_matrix(pose.reshape(*pose.shape[:-1], 15, 3))
    for name in ("hand_pose", "hypothesis_hand_pose"):
        wanted = matrices(getattr(right, name) * np.tile([1, -1, -1], 15))
        np.testing.assert_allclose(matrices(getattr(left, name)), wanted, atol=2e-3)
    np.testing.assert_allclose(left.joints2d[..., 0], 600 - right.joints2d[..., 0], atol=0.02)
    np.testing.assert_array_equal(left.faces(0), right.faces(0)[:, ::-1])


def test_projections_are_of_the_meshes(hand_recoverer):
    found = recovered(hand_recoverer, made_up_hands())
    rays = found.joints[..., :2] / found.joints[..., 2:]
    pixels = rays * CAMERA.focal + np.array(CAMERA.principal_point)
    np.testing.assert_allclose(found.joints2d, pixels, atol=0.01)
    assert (found.refine_loss[:, -1] < found.refine_loss[:, 0]).all()
    assert ((found.joint_confidence >= 0) & (found.joint_confidence <= 1)).all()


def test_a_hand_does_not_depend_on_the_others(hand_recoverer):
    hands, options = made_up_hands(5), RecoverOptions(refine_steps=0)
    together = recovered(hand_recoverer, hands, options)
    alone = recovered(hand_recoverer, hands.only([0]), options)
    np.testing.assert_allclose(together.vertices[:1], alone.vertices, atol=1e-5)
    nobody = recovered(hand_recoverer, hands.only([]), options)
    assert len(nobody) == 0 and nobody.vertices.shape == (0, *alone.vertices.shape[1:])


def test_files_are_read_again(hand_recoverer, tmp_path):
    found = recovered(hand_recoverer, made_up_hands(), RecoverOptions(refine_steps=0))
    found.save(tmp_path / "a.npz")
    again = HandMeshes.load(tmp_path / "a.npz")
    for name, value in found.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_a_model_of_people_is_none_of_hands():
    with pytest.raises(InputError, match="is a 'genhmr' model, which does not recover hands"):
        load_hands(photos.default_checkpoint("genhmr"))


def test_given_hands_take_the_place_of_the_detectors(hand_recoverer):
    points = made_up_hands(1).keypoints[0]
    given = [GivenHand(False, points)]
    options = RecoverOptions(refine_steps=0)
    found = hand_recoverer.recover(BLACK, given=given, options=options)
    assert len(found) == 1 and not found.right[0]
    np.testing.assert_array_equal(found.keypoints2d[0], points)
    # A box in which there is no hand is left out.
    box = np.float64([100, 100, 200, 200])
    assert len(hand_recoverer.recover(BLACK, given=[GivenHand(None, box=box)])) == 0
