"""The ground below resting feet, on made-up scenes in float64."""

import numpy as np
import pytest
from smpl_jax.keypoints import SMPL24

from genhmr_jax.geometry.ground import FEWEST, RESTING_SPEED, foot_contact, ground_of

FEET = [
    [SMPL24.index(f"{side}_{part}") for part in ("ankle", "foot")] for side in ("left", "right")
]
TOES = [pair[1] for pair in FEET]
SOLE = 0.03


def standing(feet):
    """(N, 24, 3) joints whose balls of the feet are at (N, 2, 3); no other joint counts."""
    joints = np.full((len(feet), 24, 3), np.nan)
    joints[:, TOES] = feet
    return joints


def tilted(pitch, roll, level):
    """A plane in camera coordinates: its upward normal, and its point below the camera."""
    up = np.array([np.sin(roll), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])
    return up / np.linalg.norm(up), np.array([0, level, 0.0])


def feet_on(up, origin, rng, count, spread):
    """(count, 2, 3) balls of feet that stand on the plane, spread over x and z."""
    feet = np.zeros((count, 2, 3))
    feet[..., [0, 2]] = rng.uniform(-spread, spread, (count, 2, 2)) + [0, 6]
    feet[..., 1] = -((feet - origin) @ up - SOLE) / up[1]
    return feet


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (0.15, 0.0), (-0.1, 0.06)])
def test_a_tilted_ground_with_steps_on_another_level(pitch, roll):
    """Feet over 10 m with an error of 1 cm; a fifth of them stand 40 cm higher."""
    rng = np.random.default_rng(0)
    up, origin = tilted(pitch, roll, 1.4)
    feet = feet_on(up, origin, rng, 300, 5.0)
    feet += rng.normal(0, 0.01, feet.shape)
    feet[::5] += 0.4 * up
    joints, contact = standing(feet), np.ones((300, 2))
    # Feet that do not rest have no influence.
    joints[1::5, TOES[0]], contact[1::5, 0] = [0, -3, 6], 0.2
    world = ground_of(joints, contact)
    tilt = np.degrees(np.arccos(np.clip(world.rotation[1] @ up, -1, 1)))
    assert tilt < 1.0
    height = joints[:, TOES] @ world.rotation.T.astype(float) + world.translation
    low = contact > 0.5
    low[::5] = False
    assert abs(np.median(height[low][:, 1]) - SOLE) < 0.01
    # The middle of the feet is at x = z = 0.
    assert np.abs(np.median(height[low][:, [0, 2]], 0)).max() < 0.5


def test_axes_of_the_world():
    up, origin = tilted(0.2, -0.1, 1.5)
    feet = feet_on(up, origin, np.random.default_rng(1), 50, 4.0)
    world = ground_of(standing(feet), np.ones((50, 2)))
    rotation = world.rotation.astype(float)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-6)
    to_world = lambda point: rotation @ np.array(point, float) + world.translation
    camera, below, right = to_world([0, 0, 0]), to_world([0, 1, 0]), to_world([1, 0, 0])
    assert below[1] < camera[1] - 0.9 and right[0] > camera[0] + 0.9
    # The camera is above the ground, and on the side to which z points.
    assert camera[1] == pytest.approx(1.5 * -up[1], abs=0.1) and 5 < camera[2] < 7


def test_feet_in_one_place_give_no_slope():
    """An error of 3 cm within 10 cm would tilt a plane by many degrees."""
    rng = np.random.default_rng(2)
    feet = np.zeros((40, 2, 3)) + [0.0, 1.2, 4.0]
    feet += rng.normal(0, [0.1, 0.03, 0.1], feet.shape)
    feet[..., 1] += 0.3 * feet[..., 2] - 1.2  # the heights follow the depths
    world = ground_of(standing(feet), np.ones((40, 2)))
    assert np.degrees(np.arccos(-world.rotation[1, 1])) < 1.5


def test_too_few_feet():
    feet = np.zeros((FEWEST // 2, 2, 3)) + [0, 1, 4.0]
    assert ground_of(standing(feet), np.ones((FEWEST // 2, 2))) is not None
    weight = np.ones((FEWEST // 2, 2))
    weight[0, 0] = 0.4
    assert ground_of(standing(feet), weight) is None
    assert ground_of(np.zeros((0, 24, 3)), np.zeros((0, 2))) is None


def test_resting_and_moving_feet_at_uneven_times():
    times = np.array([0.0, 0.04, 0.1, 0.14, 0.2])
    joints = np.zeros((5, 24, 3))
    joints[:, FEET[1][1], 2] = RESTING_SPEED * times  # the right toe moves at a constant speed
    joints[2:, FEET[0][0], 0] = 0.06  # the left ankle jumps by 6 cm in 0.06 s
    found = foot_contact(joints, times)
    assert found.shape == (5, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 1], np.exp(-1), rtol=1e-5)
    np.testing.assert_allclose(found[[0, 2, 3, 4], 0], 1)
    np.testing.assert_allclose(found[1, 0], np.exp(-((1 / RESTING_SPEED) ** 2)), rtol=1e-5)


def test_unknown_frames_have_no_contact():
    joints = np.zeros((4, 24, 3))
    joints[2] = np.nan
    np.testing.assert_array_equal(
        foot_contact(joints, np.arange(4) / 30), [[1, 1], [0, 0], [0, 0], [0, 0]]
    )
    assert foot_contact(joints[:1], np.zeros(1)).tolist() == [[0, 0]]
    assert foot_contact(joints[:0], np.zeros(0)).shape == (0, 2)


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_the_pull_of_slopes_is_that_of_one_fit(spread):
    """Slopes are multiplied by v / (v + 0.5^2) with the variance v of the feet. The search for
    outliers must not repeat this: the outermost feet would count as outliers."""
    rng = np.random.default_rng(0)
    up, origin = tilted(0.2, 0.0, 1.5)
    feet = feet_on(up, origin, rng, 200, spread)
    world = ground_of(standing(feet), np.ones((200, 2)))
    variance = feet[..., 2].var()
    slope = world.rotation[1, 2] / -world.rotation[1, 1]
    assert slope == pytest.approx(np.tan(-0.2) * variance / (variance + 0.25), rel=0.06)
