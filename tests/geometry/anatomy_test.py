"""The table of the anatomical skeleton."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.anatomy import (
    ANGLES,
    AXES,
    BODIES,
    COORDINATES,
    LIMITS,
    OWNER,
    PARENTS,
    ROOT,
    SEGMENTS,
    mirrored,
    rotation_about,
)


def test_the_tree_and_its_coordinates():
    assert len(BODIES) == 24 and len(ANGLES) == 44 and len(COORDINATES) == len(set(COORDINATES))
    assert set(COORDINATES) == {*ANGLES, *ROOT} and len(COORDINATES) == 47
    assert all(parent < body for body, parent in enumerate(PARENTS))
    np.testing.assert_allclose(np.linalg.norm(AXES, axis=1), 1, atol=1e-12)
    low, high = LIMITS.T
    assert (low < 0).all() and (high > 0).all()
    # The names of a full-body model of OpenSim (Rajagopal et al. 2016), as far as it has them.
    legs = "hip_flexion hip_adduction hip_rotation knee_angle ankle_angle subtalar_angle mtp_angle"
    arms = "arm_flex arm_add arm_rot elbow_flex pro_sup wrist_flex wrist_dev"
    names = {f"{name}_{side}" for name in f"{legs} {arms}".split() for side in "rl"}
    names |= {"pelvis_tilt", "pelvis_list", "pelvis_rotation", "pelvis_tx", "pelvis_ty"}
    assert names | {"lumbar_extension", "lumbar_bending", "lumbar_rotation"} <= set(COORDINATES)


@pytest.mark.parametrize(
    "name, moved, towards",
    [
        # A point of the body at zero angles (x forward, y up, z right), and where it goes.
        ("hip_flexion_r", (0, -1, 0), (1, 0, 0)),
        ("hip_adduction_r", (0, -1, 0), (0, 0, -1)),
        ("hip_adduction_l", (0, -1, 0), (0, 0, 1)),
        ("hip_rotation_r", (1, 0, 0), (0, 0, -1)),  # internal: the toes inwards
        ("knee_angle_l", (0, -1, 0), (-1, 0, 0)),
        ("ankle_angle_r", (1, 0, 0), (0, 1, 0)),
        ("lumbar_extension", (0, 1, 0), (-1, 0, 0)),
        ("lumbar_bending", (0, 1, 0), (0, 0, 1)),
        ("neck_flexion", (0, 1, 0), (1, 0, 0)),
        ("clavicle_elevation_r", (0, 0, 1), (0, 1, 0)),
        ("clavicle_protraction_l", (0, 0, -1), (1, 0, 0)),
        ("arm_flex_l", (0, -1, 0), (1, 0, 0)),
        ("arm_add_r", (0, -1, 0), (0, 0, -1)),
        ("elbow_flex_r", (0, -1, 0), (1, 0, 0)),
        ("pro_sup_r", (1, 0, 0), (0, 0, -1)),  # the palm, which looks forward, inwards
        ("wrist_flex_l", (0, -1, 0), (1, 0, 0)),
        ("wrist_dev_r", (0, -1, 0), (0, 0, -1)),  # the little finger's side is inside
    ],
)
def test_signs(name, moved, towards):
    turned = rotation_about(AXES[ANGLES.index(name)], np.pi / 2) @ moved
    np.testing.assert_allclose(turned, towards, atol=1e-12)


def test_inversion_turns_the_soles_to_each_other():
    for side, inwards in (("r", -1), ("l", 1)):
        axis = AXES[ANGLES.index(f"subtalar_angle_{side}")]
        sole = rotation_about(axis, 0.3) @ [0, -1, 0]
        assert np.sign(sole[2]) == inwards


def test_left_and_right_are_mirror_images():
    """A mirrored pose has the mirrored rotation of every joint."""
    values = np.random.default_rng(0).uniform(-1, 1, len(ANGLES))
    other, mirror = mirrored(values), np.diag([1, 1, -1])
    assert (mirrored(other) == values).all()

    def joint(angles, body):
        own = np.flatnonzero(body == OWNER)
        steps = [Rotation.from_rotvec(angles[i] * AXES[i]).as_matrix() for i in own]
        return np.linalg.multi_dot([np.eye(3), *steps, np.eye(3)])

    swap = {"_r": "_l", "_l": "_r"}
    for body, name in enumerate(BODIES):
        twin = BODIES.index(name[:-2] + swap[name[-2:]] if name[-2:] in swap else name)
        expected = mirror @ joint(values, twin) @ mirror
        np.testing.assert_allclose(joint(other, body), expected, atol=1e-12)
    for segment in SEGMENTS:
        if segment.name.endswith("_r"):
            left = SEGMENTS[BODIES.index(f"{segment.name[:-2]}_l")]
            same = [(c.low, c.high) for c in segment.coordinates]
            assert same == [(c.low, c.high) for c in left.coordinates]
