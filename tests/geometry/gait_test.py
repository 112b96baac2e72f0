"""Events and cycles of walking."""

import numpy as np
import pytest

from genhmr_jax.geometry.gait import gait_cycles

TIMES = np.arange(0, 6, 1 / 50)
STRIDE, SPEED = 1.1, 1.3


def walker(treadmill=False):
    """Feet that swing about the sacrum along x; heel and toe are farthest at known times."""
    phase = 2 * np.pi * TIMES / STRIDE
    sacrum = np.stack([SPEED * TIMES * (not treadmill), 0 * TIMES + 0.9, 0 * TIMES], -1)
    heels, toes = np.zeros((len(TIMES), 2, 3)), np.zeros((len(TIMES), 2, 3))
    for foot, late in enumerate((0.0, np.pi)):
        for points, after in ((heels, 0.0), (toes, 0.24 * np.pi)):
            swing = 0.35 * np.cos(phase - late - after)
            points[:, foot] = sacrum * [1, 0, 1] + np.stack([swing, 0 * swing, 0 * swing], -1)
    return heels, toes, sacrum, np.tile([1.0, 0.0, 0.0], (len(TIMES), 1))


@pytest.mark.parametrize("treadmill", [False, True])
def test_cycles(treadmill):
    cycles = gait_cycles(TIMES, *walker(treadmill))
    assert [c.side for c in cycles] == ["l", "r", "l", "r", "l", "r", "l", "r"][: len(cycles)]
    assert len(cycles) >= 7
    for cycle in cycles:
        # A heel strike is at a whole number of strides, for the left foot half a stride later;
        # a toe is farthest behind 0.5 + 0.12 strides after it.
        late = 0.5 if cycle.side == "l" else 0.0
        assert abs(((cycle.start / STRIDE - late + 0.5) % 1) - 0.5) < 0.02
        assert cycle.seconds == pytest.approx(STRIDE, abs=0.021)
        assert cycle.stance == pytest.approx(0.62, abs=0.02)
        assert cycle.cadence == pytest.approx(120 / STRIDE, rel=0.02)
        assert cycle.speed == pytest.approx(0 if treadmill else SPEED, abs=0.03)


def test_nobody_walks():
    heels, toes, sacrum, forward = walker()
    still = np.repeat(heels[:1], len(TIMES), 0)
    assert gait_cycles(TIMES, still, still, still[:, 0], forward) == []
    # Both feet together, as in jumps.
    heels[:, 1], toes[:, 1] = heels[:, 0], toes[:, 0]
    assert gait_cycles(TIMES, heels, toes, sacrum, forward) == []
    assert gait_cycles(TIMES[:2], heels[:2], toes[:2], sacrum[:2], forward[:2]) == []
