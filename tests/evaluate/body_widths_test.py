"""The widths of the body's own errors, from made-up errors of known size."""

import re

import numpy as np
import pytest

from genhmr_jax.evaluate import body_widths
from genhmr_jax.evaluate.body_widths import half_widths, measure_widths
from genhmr_jax.evaluate.clip_split import DEVELOPMENT, TEST, ClipSplit
from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems.biopose.body_errors import BODY_HALF_WIDTH

RIGHT, LEFT = ANGLES.index("knee_angle_r"), ANGLES.index("knee_angle_l")
TURN = ANGLES.index("pelvis_rotation")


def clip(seed, size, frames=4000, own=0.0):
    """Uniform errors within +-size degrees; the band of the method has the half width `own`."""
    rng = np.random.default_rng(seed)
    error = rng.uniform(-1, 1, (frames, len(ANGLES))) * size
    band = np.tile(np.hypot(own, BODY_HALF_WIDTH), (frames, 1))
    return error, np.zeros_like(error), band


def test_the_width_holds_the_share():
    """80 % of uniform errors are within 0.8 of their largest size."""
    everything = [np.ones(4000, bool)]
    widths = half_widths([clip(0, 10.0)], everything)
    np.testing.assert_allclose(widths, 8.0, atol=0.4)
    assert widths[RIGHT] == widths[LEFT], "both sides together"
    # What the band of the method holds already is not held twice: 8^2 = 4^2 + w^2.
    widths = half_widths([clip(0, 10.0, own=4.0)], everything)
    np.testing.assert_allclose(widths, np.sqrt(64 - 16), atol=0.5)
    assert not half_widths([clip(0, 10.0, own=9.0)], everything).any()


def test_frames_that_are_back_to_front_do_not_count():
    one = clip(0, 10.0)
    facing = np.arange(4000) % 2 == 0
    one[0][~facing] = 90.0
    np.testing.assert_allclose(half_widths([one], [facing]), 8.0, atol=0.5)


def test_a_clip_is_covered_by_the_widths_of_the_others(monkeypatch):
    sizes = {"a": 10.0, "b": 10.0, "c": 20.0}
    clips = {name: clip(i, size) for i, (name, size) in enumerate(sizes.items())}
    clips["b"][0][:1000, TURN] = 170.0
    split = ClipSplit([*sizes, "nobody"], {})
    opened = []
    monkeypatch.setattr(body_widths, "open_clips", lambda *given: opened.append(given) or split)
    answer = lambda model, truth, options: (
        {"neurik": clips[truth], "ik": clips[truth]} if truth in clips else None
    )
    monkeypatch.setattr(body_widths, "compared_clip", answer)
    found = measure_widths(None, "data", "poses.npz", 4)
    assert opened == [("data", "poses.npz", 4, DEVELOPMENT)] and DEVELOPMENT != TEST
    assert found["clips"] == 3 and found["facing"] == pytest.approx(11 / 12)
    assert found["coverage"] == pytest.approx([0.97, 0.97, 0.4], abs=0.05)
    assert set(found["widths"]) == {re.sub("_[rl]$", "", name) for name in ANGLES}
    assert found["mae"]["neurik"] == found["mae"]["ik"] == pytest.approx(6.7, abs=0.5)
    monkeypatch.setattr(body_widths, "compared_clip", lambda *_: None)
    with pytest.raises(InputError, match="nobody is found in the clips"):
        measure_widths(None, "data", None)
