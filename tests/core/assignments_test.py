"""Exchanged sides, and the choice among them over the frames of a clip."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core import assignments
from genhmr_jax.core.assignments import (
    ASSIGNMENTS,
    OUTLIER,
    PENALTIES,
    TURN,
    assigned,
    best_sequence,
    exchanged,
    legs_exchanged,
)
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED

AT = {name: i for i, name in enumerate(DETECTED)}
TRUNK = ("hip", "shoulder")
BELOW_HIPS = ("knee", "ankle", "big_toe", "heel")


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    view = CropCamera(np.ones((2, 3), np.float32), np.ones(2, np.float32), np.zeros((2, 2)))
    return Inputs(
        view=view,
        keypoints=rng.normal(size=(2, 23, 3)).astype(np.float32),
        keypoints3d=rng.normal(size=(2, 23, 3)).astype(np.float32),
        image_weight=np.ones(2, np.float32),
    )


def test_sides_are_exchanged_and_reflected_in_depth(inputs):
    found = exchanged(inputs)
    for name, other in (("left_knee", "right_knee"), ("right_ear", "left_ear"), ("nose", "nose")):
        np.testing.assert_array_equal(found.keypoints[:, AT[name]], inputs.keypoints[:, AT[other]])
        np.testing.assert_array_equal(
            found.keypoints3d[:, AT[name]], inputs.keypoints3d[:, AT[other]] * [1, 1, -1]
        )
    assert not np.asarray(found.image_weight).any()
    assert found.view is inputs.view
    again = exchanged(found)
    np.testing.assert_array_equal(again.keypoints, inputs.keypoints)
    np.testing.assert_array_equal(again.keypoints3d, inputs.keypoints3d)


def test_legs_are_exchanged_and_keep_their_depths(inputs):
    found = legs_exchanged(inputs)
    for name in DETECTED:
        side, _, part = name.partition("_")
        other = name
        if part in BELOW_HIPS:
            other = ("right_" if side == "left" else "left_") + part
        own, source = AT[name], AT[other]
        np.testing.assert_array_equal(found.keypoints[:, own], inputs.keypoints[:, source])
        np.testing.assert_array_equal(
            found.keypoints3d[:, own, :2], inputs.keypoints3d[:, source, :2]
        )
        np.testing.assert_array_equal(found.keypoints3d[:, own, 2], inputs.keypoints3d[:, own, 2])
    np.testing.assert_array_equal(found.image_weight, inputs.image_weight)
    again = legs_exchanged(found)
    np.testing.assert_array_equal(again.keypoints, inputs.keypoints)
    np.testing.assert_array_equal(again.keypoints3d, inputs.keypoints3d)


def test_fields_that_a_system_lacks(inputs):
    only = Inputs(view=inputs.view, keypoints=inputs.keypoints)
    for change in (exchanged, legs_exchanged):
        found = change(only)
        assert found.keypoints3d is None and found.image_weight is None
        np.testing.assert_array_equal(found.keypoints, change(inputs).keypoints)


def angle(first, second):
    """By which hips and shoulders turn, radians."""
    facing = [
        sum(x[SMPL24.index(f"left_{part}")] - x[SMPL24.index(f"right_{part}")] for part in TRUNK)
        for x in (first, second)
    ]
    (a, b), dot = map(np.linalg.norm, facing), np.dot(*facing)
    return np.arccos(dot / a / b)


def total(sequence, joints, confidence):
    """What `best_sequence` minimises, term by term; None: the frame is left out."""
    found, before = 0.0, None
    kept = [t for t, a in enumerate(sequence) if a is not None]
    if not kept or max(np.diff([-1, *kept, len(sequence)])) > assignments.SPAN:
        return np.inf
    for t, a in enumerate(sequence):
        if a is None:
            found += OUTLIER * confidence[t] ** 2
            continue
        found += PENALTIES[a] * confidence[t] ** 2
        now = joints[t, a]
        if before is not None:
            last = joints[before, sequence[before]]
            moved = (now - now[0]) - (last - last[0])
            found += np.mean([np.hypot(np.hypot(*d[:2]), d[2]) for d in moved])
            found += TURN * angle(last, now) / np.pi
        before = t
    return found


@pytest.mark.parametrize("span", (2, 8))
@pytest.mark.parametrize("seed", (0, 2, 3))
def test_the_best_of_all_sequences(seed, span, monkeypatch):
    """Distances and penalties of the same size, so that each of them decides at times."""
    monkeypatch.setattr(assignments, "SPAN", span)
    rng = np.random.default_rng(seed)
    frames, count = 5, len(ASSIGNMENTS)
    joints = rng.normal(0, 0.06, (frames, count, 24, 3)) + rng.normal(0, 0.3, (24, 3))
    joints[2] += rng.normal(0, 0.3, (24, 3))
    confidence = rng.uniform(0.2, 1, frames)
    sequences = list(itertools.product((*range(count), None), repeat=frames))
    values = [total(sequence, joints, confidence) for sequence in sequences]
    answer, fits = best_sequence(joints, confidence, 1 / 60)
    best = sequences[int(np.argmin(values))]
    assert [int(a) if fit else None for a, fit in zip(answer, fits, strict=True)] == list(best)
    assert len(set(answer.tolist())) > 1
    assert not fits.all()


def test_a_frame_without_a_right_answer_does_not_change_the_others():
    """In one frame every answer is that of another person; after it the motion goes on as before.
    Its own answer is the one most like the frames around it."""
    rng = np.random.default_rng(0)
    motion = np.tile(rng.normal(0, 0.3, (24, 3)), (30, 1, 1))
    turned = motion * [1, 1, -1]
    joints = np.stack([motion, turned, motion + 0.05], 1)
    joints[8] = turned[8] * [-1, 1, 1] + rng.normal(0, 0.1, (3, 24, 3))
    joints[8, 1] = motion[8] + rng.normal(0, 0.2, (24, 3))
    joints[20:23] = rng.normal(0, 0.5, (3, 3, 24, 3))
    answer, fits = best_sequence(joints, np.full(30, 0.8), 1 / 30)
    assert np.flatnonzero(~fits).tolist() == [8, 20, 21, 22]
    assert answer[8] == 1 and not answer[fits].any()


@pytest.mark.parametrize("rate", (3, 5, 10, 30))
def test_fast_motion_is_not_left_out(rate):
    """Someone who runs and turns, to the end of the clip, at any frame rate."""
    t = np.arange(2 * rate) / rate
    rng = np.random.default_rng(0)
    body = rng.normal(0, 0.3, (24, 3))
    swing = 0.06 * np.sin(2 * np.pi * 1.3 * t)[:, None, None] * rng.normal(0, 1, (24, 3))
    turn = Rotation.from_euler("y", 180 * t[:, None], degrees=True)
    motion = np.stack([r.apply(pose) for r, pose in zip(turn, body + swing, strict=True)])
    joints = np.stack([motion, motion * [1, 1, -1], motion * [1, 1, -1]], 1)
    answer, fits = best_sequence(joints, np.full(len(t), 0.7), 1 / rate)
    assert fits.all() and (rate < 5 or not answer.any())


def test_frames_with_exchanged_sides_are_repaired():
    """A detector that exchanges the sides in a few frames: there the answer of another assignment
    continues the motion. A person in one frame only has the answer for the photo."""
    rng = np.random.default_rng(0)
    frames = 20
    motion = np.cumsum(rng.normal(0, 0.01, (frames, 24, 3)), 0) + rng.normal(0, 0.3, (24, 3))
    turned = motion * [1, 1, -1]
    joints = np.stack([motion, turned, motion + rng.normal(0, 0.2, (24, 3))], 1)
    wrong = [4, 11, 12]
    joints[wrong, 0], joints[wrong, 1] = joints[wrong, 1].copy(), joints[wrong, 0].copy()
    # Where the person is does not count.
    joints += rng.normal(0, 1.0, (frames, 3, 1, 3))
    sure = np.full(frames, 0.9)
    found, fits = best_sequence(joints, sure, 1 / 30)
    assert fits.all()
    assert np.flatnonzero(found == 1).tolist() == wrong and set(found.tolist()) == {0, 1}
    only = best_sequence(joints[:1], sure[:1], 0.0)
    assert [part.tolist() for part in only] == [[0], [True]]


def test_keypoints_get_the_names_of_the_assignment(inputs):
    """As those from which the answers were made."""
    keypoints = inputs.keypoints
    wanted = (keypoints, exchanged(inputs).keypoints, legs_exchanged(inputs).keypoints)
    for answer, points in enumerate(wanted):
        np.testing.assert_array_equal(assigned(keypoints, np.full(2, answer)), points)
    both = assigned(keypoints, np.array([2, 0]))
    np.testing.assert_array_equal(both[0], wanted[2][0])
    np.testing.assert_array_equal(both[1], keypoints[1])
