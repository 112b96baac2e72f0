"""Inverse kinematics against known angles, and bodies that no skeleton has made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, flip_permutation

from genhmr_jax.geometry.anatomy import ANGLES, COORDINATES, GROUPS, LIMITS, mirrored
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.markers import MARKERS
from genhmr_jax.systems.biopose.ik import IkSpec, solve
from genhmr_jax.systems.biopose.kinematics import Pose, place
from genhmr_jax.systems.biopose.skeleton import marker_body, skeleton_of

BODY = load_body("neutral")
RNG = np.random.default_rng(0)
BETAS = RNG.normal(size=10).astype(np.float32)
SKELETON = skeleton_of(BODY, BETAS)
PLACE = jax.jit(lambda pose, scales: place(SKELETON, pose, scales).markers)
FRAMES = 64
INNER = [COORDINATES.index(name) for name in ANGLES[3:]]
NOT_ROOT = [COORDINATES.index(name) for name in ANGLES]


def smooth_values():
    """A motion in the middle of the ranges; the arms below the shoulders. Degrees and metres."""
    low, high = np.degrees(LIMITS).T
    middle, half = (low + high) / 2, (high - low) / 2
    for name, (least, most) in {
        "arm_flex": (-50, 90), "arm_add": (-70, 20), "arm_rot": (-50, 50),
    }.items():  # fmt: skip
        for index in (ANGLES.index(f"{name}_r"), ANGLES.index(f"{name}_l")):
            middle[index], half[index] = (least + most) / 2, (most - least) / 1.6
    phase, speed = RNG.uniform(0, 6, 44), RNG.uniform(1, 4, 44)
    wave = np.sin(phase + speed * np.linspace(0, 2, FRAMES)[:, None])
    values = np.zeros((FRAMES, 47))
    values[:, NOT_ROOT] = middle + 0.8 * half * wave
    values[:, :3] = 50 * wave[:, :3]
    values[:, 3:6] = wave[:, 3:6]
    return values


VALUES = smooth_values()


def markers_of(values, scales=None):
    turn = Rotation.from_euler("ZXY", values[:, :3], degrees=True).as_matrix()
    fields = turn, values[:, 3:6], np.radians(values[:, 6:])
    scales = np.ones(len(GROUPS)) if scales is None else scales
    pose = Pose(*(jnp.asarray(x, jnp.float32) for x in fields))
    return np.array(PLACE(pose, jnp.asarray(scales, jnp.float32)))


def test_exact_markers():
    found = solve(SKELETON, markers_of(VALUES))
    np.testing.assert_allclose(found.values, VALUES, atol=0.3)
    assert np.abs(found.values - VALUES).mean() < 0.01
    assert found.rmse.max() < 1e-3 and (found.scales == 1).all()


def test_noise_and_missing_markers():
    """10 mm in each coordinate: flexion angles within 3 degrees, as the levers allow."""
    markers = markers_of(VALUES)
    markers += RNG.normal(0, 0.01, markers.shape)
    for name in ("RTHI", "LELB", "STRN", "C7"):
        markers[10:20, MARKERS.index(name)] = np.nan
    found = solve(SKELETON, markers)
    error = dict(zip(COORDINATES, np.abs(found.values - VALUES).mean(0), strict=True))
    for name in ("hip_flexion_r", "knee_angle_l", "lumbar_extension", "elbow_flex_l"):
        assert error[name] < 3
    assert np.mean([error[name] for name in ANGLES]) < 4.5
    assert 0.012 < found.rmse.mean() < 0.0173  # sqrt(3) cm, less what the angles absorb


def test_scales_of_another_person():
    true = 1 + 0.08 * np.sin(np.arange(len(GROUPS)))
    found = solve(SKELETON, markers_of(VALUES, true), IkSpec(scale_rounds=4))
    np.testing.assert_allclose(found.scales, true, atol=0.015)
    assert found.rmse.max() < 2e-3
    assert np.abs(found.values - VALUES)[:, NOT_ROOT].mean() < 0.5


def posed(poses):
    forward = jax.jit(lambda p: smpl_jax.forward(marker_body(BODY), BETAS, p).vertices)
    return np.asarray(forward(poses.astype(np.float32)))


def body_poses():
    """Turns of about 11 degrees about each axis; knees and elbows bend about their own."""
    poses = RNG.normal(0, 0.2, (FRAMES, 24, 3))
    for joint in ("knee", "elbow", "foot", "wrist", "hand"):
        for side in ("left", "right"):
            poses[:, SMPL24.index(f"{side}_{joint}")] = 0
    for side, sign in (("left", -1), ("right", 1)):
        poses[:, SMPL24.index(f"{side}_knee"), 0] = RNG.uniform(0, 1.5, FRAMES)
        bend = RNG.uniform(0, 1.5, FRAMES)[:, None]
        poses[:, SMPL24.index(f"{side}_elbow")] = bend * [0, 0.92 * sign, -0.39 * sign]
        poses[:, SMPL24.index(f"{side}_shoulder"), 2] += 1.2 * sign
    return poses


def test_bodies_and_their_mirror_images():
    """Markers of skin: within 2 cm; and the angles of a mirrored body are the mirrored angles."""
    poses = body_poses()
    found = solve(SKELETON, posed(poses))
    assert np.sqrt((found.rmse**2).mean()) < 0.012 and found.rmse.max() < 0.02
    knees = np.degrees(poses[:, SMPL24.index("right_knee"), 0])
    bias = found.column("knee_angle_r") - knees
    assert np.abs(bias).mean() < 5 and np.corrcoef(found.column("knee_angle_r"), knees)[0, 1] > 0.99
    mirror = poses[:, list(flip_permutation(SMPL24))] * [1, -1, -1]
    other = solve(SKELETON, posed(mirror))
    gap = mirrored(found.values[:, NOT_ROOT]) - other.values[:, NOT_ROOT]
    gap = np.abs((gap + 180) % 360 - 180)[:, 3:]
    assert np.median(gap) < 0.5 and gap.mean() < 1.0
    assert (found.values[:, INNER] >= np.degrees(LIMITS[3:, 0]) - 1e-3).mean() > 0.99


def test_bad_input():
    with pytest.raises(ValueError, match="expected"):
        solve(SKELETON, np.zeros((2, 5, 3)))
    markers = markers_of(VALUES)
    markers[3, :65] = np.nan
    with pytest.raises(ValueError, match="frame 3"):
        solve(SKELETON, markers)
