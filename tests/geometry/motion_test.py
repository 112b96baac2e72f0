"""Motions with missing frames."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.motion import WORLD, Motion, nearest_frames


def motion(present, times=None, **fields):
    count = len(present)
    times = np.arange(count) / 25 if times is None else times
    rng = np.random.default_rng(0)
    made = dict(
        name="person 1",
        times=np.array(times, float),
        betas=np.zeros(10, np.float32),
        poses=rng.normal(0, 0.5, (count, 24, 3)).astype(np.float32),
        translation=rng.normal(size=(count, 3)).astype(np.float32),
        state=np.array(present, int),
        confidence=np.ones((count, 24), np.float32),
    )
    return Motion(**made | fields)


def test_missing_frames_are_interpolated():
    """At uneven times; about one axis, the shortest arc goes through angle pi."""
    times = np.array([0.0, 1.0, 1.4, 2.0, 3.0, 3.5])
    poses, translation = np.full((6, 24, 3), np.nan), np.full((6, 3), np.nan)
    poses[1], poses[4] = [0, 0, 3.0], [0, 0, -3.0]
    translation[1], translation[4] = [1, 2, 3], [3, 2, -1]
    known = [False, True, False, False, True, False]
    own = motion(known, times, poses=poses, translation=translation, axes=WORLD)
    found = own.continuous()
    assert len(found) == 4 and found.axes == WORLD and found.name == own.name
    np.testing.assert_array_equal(found.times, times[1:5])
    assert found.present.tolist() == [True, False, False, True]
    share = (times[1:5] - 1) / 2
    angle = 3.0 + share * (2 * np.pi - 6)
    turned = Rotation.from_rotvec(np.stack([0 * angle, 0 * angle, angle], -1))
    for joint in (0, 23):
        gap = Rotation.from_rotvec(found.poses[:, joint]) * turned.inv()
        np.testing.assert_allclose(gap.magnitude(), 0, atol=1e-6)
    np.testing.assert_allclose(
        found.translation, np.stack([1 + 2 * share, 2 + 0 * share, 3 - 4 * share], -1), rtol=1e-6
    )
    assert found.poses.dtype == found.translation.dtype == np.float32
    assert found.confidence.shape == (4, 24)


def test_known_frames_stay():
    own = motion([True] * 5)
    found = own.continuous()
    np.testing.assert_allclose(found.poses, own.poses, atol=1e-6)
    np.testing.assert_array_equal(found.translation, own.translation)
    single = motion([False, True, False]).continuous()
    assert len(single) == 1 and single.present.all()


def test_nobody():
    with pytest.raises(ValueError, match="person 1 is in no frame"):
        motion([False, False]).continuous()


def test_rate():
    assert motion([True] * 4).rate == pytest.approx(25)
    assert motion([True] * 4, [0, 0.1, 0.2, 9]).rate == pytest.approx(10)
    assert motion([True]).rate == 30.0


def test_the_nearest_frames():
    """Those of the plain rule, of which the earlier one is taken where two are equally near."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice([0.25, 0.5, 1.0], 40))
    at = np.concatenate([rng.uniform(-1, times[-1] + 1, 300), (times[1:] + times[:-1]) / 2, times])
    plain = np.abs(times[:, None] - at).argmin(0)
    np.testing.assert_array_equal(nearest_frames(times, at), plain)
    assert nearest_frames(times[:1], at[:3]).tolist() == [0, 0, 0]
