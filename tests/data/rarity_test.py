"""Rare poses: the density of a corpus in positions of the joints, and draws that favour them."""

import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation

from genhmr_jax.data import poses, rarity
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError

RNG = np.random.default_rng(0)


def standing(count: int) -> np.ndarray:
    """Poses (count, 72) with small random joint rotations."""
    return RNG.normal(0, 0.03, (count, 72)).astype(np.float32)


def seated(count: int) -> np.ndarray:
    """Poses (count, 72) with hips and knees bent by a right angle."""
    found = standing(count)
    found[:, [3, 6]] -= np.pi / 2
    found[:, [12, 15]] += np.pi / 2
    return found


def test_features_are_the_joints_of_the_body_without_its_heading():
    some = RNG.normal(0, 0.4, (5, 72)).astype(np.float32)
    some[:, 1] = 0.0  # x and z alone: no turn about y
    body = load_body()
    found = rarity.joint_features(some).reshape(5, 24, 3)
    for pose, joints in zip(some, found, strict=True):
        expected = smpl_jax.forward(body, np.zeros(10, np.float32), pose.reshape(24, 3)).joints
        np.testing.assert_allclose(joints, expected - expected[0], atol=2e-4)
    turned = some.copy()
    turn = Rotation.from_euler("y", 2.1)
    turned[:, :3] = (turn * Rotation.from_rotvec(some[:, :3])).as_rotvec()
    np.testing.assert_allclose(
        rarity.joint_features(turned), rarity.joint_features(some), atol=1e-5
    )


def test_density_of_two_points_by_hand():
    """Of two joints one is sqrt(2) BANDWIDTH away: the mean square distance is BANDWIDTH^2."""
    references = np.zeros((1, 6))
    point = np.zeros((2, 6))
    point[1, 0] = np.sqrt(2) * rarity.BANDWIDTH
    np.testing.assert_allclose(rarity.density(point, references), [1, np.exp(-0.5)], atol=2e-6)


def test_the_rare_are_drawn_more_often_but_not_without_limit():
    """Of 400 poses 4 are seated and 4 upside down: 1 % each."""
    inverted = standing(4)
    inverted[:, 0] = np.pi
    everybody = np.concatenate([standing(392), seated(4), inverted])
    weights = np.full(400, 1 / 400)
    found = rarity.favour_rare(everybody, weights, 1.0)
    assert found.sum() == pytest.approx(1)
    for rare in (slice(392, 396), slice(396, 400)):
        assert 0.04 < found[rare].sum() <= 0.01 * rarity.MOST
    half = rarity.favour_rare(everybody, weights, 0.5)
    np.testing.assert_allclose(half, 0.5 * weights + 0.5 * found)
    assert rarity.favour_rare(everybody, weights, 0.0) is weights
    weights[392:396] = 0.0  # a corpus that never draws them
    assert not rarity.favour_rare(everybody, weights / weights.sum(), 1.0)[392:396].any()


def test_only_training_poses_are_weighted(corpus_file):
    plain, rare = (poses.load_corpus(corpus_file, "train", rare=share) for share in (0.0, 0.5))
    np.testing.assert_array_equal(plain.poses, rare.poses)
    assert rare.weights.sum() == pytest.approx(1) and np.abs(rare.weights - plain.weights).max() > 0
    validation = poses.load_corpus(corpus_file, "val", rare=0.5).weights
    np.testing.assert_array_equal(validation, poses.load_corpus(corpus_file, "val").weights)
    with pytest.raises(InputError, match="share of rare poses: is 1.5"):
        poses.load_corpus(corpus_file, "train", rare=1.5)
