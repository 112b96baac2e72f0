"""Exchanged sides, and the choice among them over the frames of a clip."""

import itertools

import numpy as np
import pytest
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.assignments import (
    ASSIGNMENTS,
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
    """What `best_sequence` minimises, term by term."""
    found = 0.0
    for t, a in enumerate(sequence):
        found += PENALTIES[a] * confidence[t] ** 2
        if t:
            now, last = joints[t, a], joints[t - 1, sequence[t - 1]]
            moved = (now - now[0]) - (last - last[0])
            found += np.mean([np.hypot(np.hypot(*d[:2]), d[2]) for d in moved])
            found += TURN * angle(last, now) / np.pi
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_sequences(seed):
    """Distances and penalties of the same size, so that each of them decides at times."""
    rng = np.random.default_rng(seed)
    frames, count = 6, len(ASSIGNMENTS)
    joints = rng.normal(0, 0.06, (frames, count, 24, 3)) + rng.normal(0, 0.3, (24, 3))
    confidence = rng.uniform(0.2, 1, frames)
    sequences = list(itertools.product(range(count), repeat=frames))
    values = [total(sequence, joints, confidence) for sequence in sequences]
    found = best_sequence(joints, confidence)
    assert tuple(found) == sequences[int(np.argmin(values))]
    assert len(set(found.tolist())) > 1


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
    found = best_sequence(joints, sure)
    assert np.flatnonzero(found == 1).tolist() == wrong and set(found.tolist()) == {0, 1}
    assert best_sequence(joints[:1], sure[:1]).tolist() == [0]


def test_keypoints_get_the_names_of_the_assignment(inputs):
    """As those from which the answers were made."""
    keypoints = inputs.keypoints
    wanted = (keypoints, exchanged(inputs).keypoints, legs_exchanged(inputs).keypoints)
    for answer, points in enumerate(wanted):
        np.testing.assert_array_equal(assigned(keypoints, np.full(2, answer)), points)
    both = assigned(keypoints, np.array([2, 0]))
    np.testing.assert_array_equal(both[0], wanted[2][0])
    np.testing.assert_array_equal(both[1], keypoints[1])
