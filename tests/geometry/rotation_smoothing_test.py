"""Smooth rotations: means, outliers, gaps, and uneven times."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from genhmr_jax.geometry.rotation_smoothing import smoothed

FRAMES = 40
TIMES = np.arange(FRAMES) / 30


def degrees(one, other):
    turns = [Rotation.from_rotvec(np.reshape(x, (-1, 3))) for x in (one, other)]
    return np.degrees((turns[0].inv() * turns[1]).magnitude()).reshape(np.shape(one)[:-1])


def constant(turn):
    return np.tile(np.float64(turn), (FRAMES, 1, 1))


def test_what_is_known_everywhere_is_kept():
    """A slow turn, also beyond pi, where axis-angle jumps."""
    ends = Rotation.from_rotvec([[0, 0, 3.0], [0, 0, 3.6]])
    turning = Slerp([0, TIMES[-1]], ends)(TIMES).as_rotvec()[:, None]
    assert np.abs(np.diff(turning, axis=0)).max() > 3, "the numbers jump"
    found, share = smoothed(turning, np.ones(FRAMES), turning, TIMES, 0.08, 1e-6)
    inner = slice(8, -8)
    assert degrees(found, turning)[inner].max() < 0.05 and np.allclose(share, 1, atol=1e-5)


def test_the_mean_is_that_of_scipy():
    rng = np.random.default_rng(0)
    turns, weights = rng.normal(0, 0.7, (FRAMES, 2, 3)), rng.uniform(0.2, 1, FRAMES)
    found, _ = smoothed(turns, weights, turns, TIMES, 0.05, 1e-9)
    frame = 20
    kernel = weights * np.exp(-0.5 * ((TIMES - TIMES[frame]) / 0.05) ** 2)
    kernel[np.abs(TIMES - TIMES[frame]) > 0.15] = 0
    for joint in range(2):
        wanted = Rotation.from_rotvec(turns[:, joint]).mean(kernel).as_rotvec()
        assert degrees(found[frame, joint], wanted) < 0.01


def test_a_wrong_frame_has_little_weight():
    turns = constant([[0.5, 0, 0]])
    turns[20] = [[-0.8, 0, 0]]
    found, _ = smoothed(turns, np.ones(FRAMES), constant([[0, 0, 0]]), TIMES, 0.08, 0.01)
    assert degrees(found, constant([[0.5, 0, 0]])).max() < 15, "75 degrees in one frame"


def test_a_gap_is_filled_and_its_end_fades_to_what_is_usual():
    turns, usual = constant([[1.0, 0, 0]]), constant([[0, 0, 0]])
    weights = np.zeros(FRAMES)
    weights[:15] = 1
    weights[6:8] = 0
    turns[weights == 0] = [[0, 2.0, 0]]  # has no meaning
    found, share = smoothed(turns, weights, usual, TIMES, 0.08, 0.05)
    assert degrees(found, constant([[1.0, 0, 0]]))[:11].max() < 8
    assert degrees(found, usual)[30:].max() < 1e-4 and not share[30:].any()
    assert (np.diff(share[12:]) <= 1e-12).all() and share[:11].min() > 0.7
    steps = degrees(found[1:], found[:-1])
    assert steps.max() < 20, "no jump, of 57 degrees"


def test_nothing_is_known():
    usual = constant([[0.3, 0.2, 0.1]])
    found, share = smoothed(constant([[9, 9, 9]]), np.zeros(FRAMES), usual, TIMES, 0.08, 0.1)
    np.testing.assert_allclose(found, usual, atol=1e-12)
    assert not share.any()


def test_uneven_times_and_a_single_frame():
    times = np.sort(np.random.default_rng(0).uniform(0, 1, FRAMES))
    turns = constant([[0.4, 0, 0]])
    found, _ = smoothed(turns, np.ones(FRAMES), constant([[0, 0, 0]]), times, 0.08, 1e-6)
    assert degrees(found, turns).max() < 0.01
    one = smoothed(turns[:1], np.ones(1), turns[:1] * 0, times[:1], 0.08, 0.25)
    assert one[1] == pytest.approx([0.8]) and 0 < degrees(one[0], turns[:1]).item() < 8
