"""Wrist and forearm: signs and ranges of the angles, and shared twist that keeps hand and bone."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.wrist import NEUTRAL, SolvedWrist, WristAngles, solve_wrist, twist_about

AXES = {"left": np.array([1.0, 0, 0]), "right": np.array([-1.0, 0, 0])}
PALM, THUMB = np.array([0, -1.0, 0]), np.array([0, 0, 1.0])  # of both hands at rest


def turn(*rotvec):
    return Rotation.from_rotvec(np.radians(rotvec)).as_matrix()


def solved(side, hand, elbow=None, upper_arm=None) -> SolvedWrist:
    eye = np.eye(3)
    elbow, upper_arm = (eye if x is None else x for x in (elbow, upper_arm))
    return solve_wrist(elbow, upper_arm, hand, AXES[side], side == "right")


def towards(axis, direction, degrees):
    """The turn that moves the direction of an arm towards another one."""
    return turn(*(degrees * np.cross(axis, direction)))


@pytest.mark.parametrize("side", AXES)
def test_the_angles_have_anatomical_signs(side):
    axis = AXES[side]
    flexed = solved(side, towards(axis, PALM, 40)).angles
    np.testing.assert_allclose([flexed.flexion, flexed.radial], [40, 0], atol=1e-9)
    radial = solved(side, towards(axis, THUMB, 15)).angles
    np.testing.assert_allclose([radial.flexion, radial.radial], [0, 15], atol=1e-9)
    # With the elbow bent, so that the forearm points forward and the thumb up, a hand that
    # pronates turns its palm down.
    bend = towards(axis, THUMB, 90)
    palm_down = turn(60, 0, 0)
    pronated = solved(side, bend @ palm_down, elbow=bend)
    upper_arm_down = towards(axis, np.array([0, -1.0, 0]), 90)  # the upper arm hangs
    assert (upper_arm_down @ bend @ palm_down @ PALM)[1] < -0.8
    assert pronated.angles.pronation == pytest.approx(60 + NEUTRAL)


def test_twist_and_swing():
    rng = np.random.default_rng(0)
    for axis in (np.array([1.0, 0, 0]), np.array([-0.6, 0.8, 0])):
        rotation = Rotation.from_rotvec(rng.normal(0, 1, 3)).as_matrix()
        swing, twist = twist_about(rotation, axis)
        rebuilt = swing @ Rotation.from_rotvec(axis * twist).as_matrix()
        np.testing.assert_allclose(rebuilt, rotation, atol=1e-12)
        assert abs(Rotation.from_matrix(swing).as_rotvec() @ axis) < 1e-9  # the shortest swing


@pytest.mark.parametrize("side", AXES)
def test_elbow_and_wrist_share_the_twist(side):
    rng = np.random.default_rng(1)
    axis = AXES[side] + [0, 0.05, -0.04]
    axis /= np.linalg.norm(axis)
    for _ in range(20):
        elbow, upper_arm = (Rotation.from_rotvec(v).as_matrix() for v in rng.normal(0, 0.5, (2, 3)))
        hand = upper_arm @ elbow @ Rotation.from_rotvec(rng.normal(0, 0.6, 3)).as_matrix()
        found = solve_wrist(elbow, upper_arm, hand, axis, side == "right")
        # The hand has the wanted orientation, and the forearm its direction.
        np.testing.assert_allclose(upper_arm @ found.elbow @ found.wrist, hand, atol=1e-12)
        np.testing.assert_allclose(found.elbow @ axis, elbow @ axis, atol=1e-12)
        twists = [twist_about(part, axis)[1] for part in (found.elbow, found.wrist)]
        assert twists[0] == pytest.approx(twists[1], abs=1e-9)
        before = twist_about(elbow, axis)[1] + twist_about((upper_arm @ elbow).T @ hand, axis)[1]
        assert sum(twists) == pytest.approx(before, abs=1e-9)


def test_excess_over_the_ranges_of_motion():
    assert WristAngles(60, 70, -30).excess == 0
    assert WristAngles(-85, -70, 20).excess == 0
    assert WristAngles(100, 0, 0).excess == 30
    assert WristAngles(-95, 90, 0).excess == 15
    assert WristAngles(0, 0, 50).excess == 30
    assert WristAngles(0, -100, -40).excess == 30
