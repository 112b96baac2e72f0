"""Identities of made-up people, whose motion is known."""

import numpy as np
import pytest

from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.tracker import (
    LOOK_SIZE,
    TORSO,
    Tracker,
    appearance,
    keypoint_similarity,
)
from genhmr_jax.geometry.keypoints import DETECTED

RATE = 25.0
# A standing person in a box of 1 x 3: x to the right, y down, in units of the box's width.
BODY = np.random.default_rng(0).uniform([0.1, 0.1], [0.9, 2.9], (len(DETECTED), 2))


def people(rows):
    """Detections of people: x and y of the box's upper left corner in px, and score; the width is
    40 px, or a fourth number."""
    rows = [(*row, 40.0)[:4] for row in rows]
    found = Detections.empty(len(rows))
    for i, (x, y, score, width) in enumerate(rows):
        found.boxes[i] = x, y, x + width, y + 3 * width
        found.scores[i] = score
        found.keypoints[i, :, :2] = BODY * width + [x, y]
        found.keypoints[i, :, 2] = 0.9
    return found


def follow(frames, rate=RATE, looks=None):
    """The identities in each frame; `frames`: rows of `people` for each."""
    tracker = Tracker()
    look = lambda n: None if looks is None else looks[n]
    return [
        tracker.update(n / rate, people(rows), look(n)).tolist() for n, rows in enumerate(frames)
    ]


def looks_like(*bins):
    """Appearances of one colour each."""
    return np.eye(LOOK_SIZE)[list(bins)]


def test_people_who_cross_keep_their_identities():
    frames = [[(100 + 6 * n, 50, 0.6), (400 - 6 * n, 56, 0.6)] for n in range(50)]
    assert follow(frames) == [[1, 2]] * 50


def test_crossing_while_one_hides_the_other():
    """The hidden one is missing for half a second around the meeting."""
    frames = [
        [(100 + 6 * n, 50, 0.6), *([(400 - 6 * n, 56, 0.6)] if abs(n - 25) > 6 else [])]
        for n in range(50)
    ]
    ids = follow(frames)
    assert all(found in ([1, 2], [1]) for found in ids) and ids[-1] == [1, 2]


def test_the_order_of_the_detections_does_not_matter():
    rng = np.random.default_rng(1)
    frames = [
        [(100 + 6 * n, 50, 0.6), (400 - 6 * n, 56, 0.6), (250, 300 - 5 * n, 0.6)] for n in range(50)
    ]
    expected = follow(frames)
    orders = [rng.permutation(3) for _ in frames]
    mixed = follow([[rows[i] for i in order] for rows, order in zip(frames, orders, strict=True)])
    for ids, found, order in zip(expected, mixed, orders, strict=True):
        assert found == [ids[i] for i in order]


def test_no_identity_twice_in_a_frame_and_none_without_need():
    """Twelve people on random smooth paths, missed in one of ten frames."""
    rng = np.random.default_rng(2)
    where, speed = rng.uniform(0, 900, (12, 2)), rng.normal(0, 2, (12, 2))
    tracker, owners = Tracker(), {}
    for n in range(100):
        speed += rng.normal(0, 0.2, speed.shape)
        where += speed
        seen = np.flatnonzero(rng.random(12) > 0.1)
        ids = tracker.update(n / RATE, people([(*where[i], 0.6) for i in seen]))
        assert len(set(ids)) == len(ids)
        for i, number in zip(seen, ids, strict=True):
            owners.setdefault(number, []).append(i)
    pure = [np.bincount(seen).max() / len(seen) for seen in owners.values()]
    assert len(owners) <= 14 and np.mean(pure) > 0.97


def test_low_scores_continue_a_track_and_start_none():
    frames = [[(100 + 3 * n, 50, 0.6 if n % 4 == 0 else 0.05)] for n in range(20)]
    assert follow(frames) == [[1]] * 20
    assert follow([[(100, 50, 0.05)]] * 5) == [[0]] * 5


@pytest.mark.parametrize("gap, same", [(1.0, True), (1.8, True), (2.3, False)])
def test_a_gap(gap, same):
    """A person who walks on behind something."""
    frames = [[(100 + 2 * n, 50, 0.6)] if not 20 <= n < 20 + gap * RATE else [] for n in range(100)]
    ids = [found[0] for found in follow(frames) if found]
    assert ids[:20] == [1] * 20
    assert set(ids[20:]) == ({1} if same else {2})


def test_an_irregular_frame_rate():
    """Velocities are in px a second: a fast person is found where a long interval moves him."""
    times = np.cumsum(np.random.default_rng(3).choice([0.02, 0.04, 0.25], 60))
    tracker = Tracker()
    ids = [tracker.update(t, people([(100 + 150 * t, 50, 0.6)])).tolist() for t in times]
    # Two people a box apart, one behind the other: after 0.25 s each is at the other's old place.
    assert ids == [[1]] * 60
    tracker = Tracker()
    ids = [
        tracker.update(t, people([(100 + 200 * t, 50, 0.6), (150 + 200 * t, 50, 0.6)])).tolist()
        for t in np.append(np.arange(10) * 0.02, 0.43)
    ]
    assert ids == [[1, 2]] * 11


def test_who_comes_back_is_told_by_the_clothes():
    """Two people vanish and come back, half a box from where they were, in exchanged places."""
    frames = [[(100, 50, 0.6), (130, 50, 0.6)]] * 10 + [[]] * 20 + [[(112, 50, 0.6)]] * 3
    for number in (0, 1):
        looks = [looks_like(3, 9)] * 10 + [looks_like()] * 20 + [looks_like((3, 9)[number])] * 3
        assert follow(frames, looks=looks)[-1] == [number + 1]
    stranger = [looks_like(3, 9)] * 10 + [looks_like()] * 20 + [looks_like(20)] * 3
    apart = [[(100, 50, 0.6), (130, 50, 0.6)]] * 10 + [[]] * 20 + [[(215, 50, 0.6)]] * 3
    assert follow(apart, looks=stranger)[-1] == [3]


def test_who_looks_smaller_before_vanishing_comes_back():
    """An object covers a person bit by bit: the box of what is seen shrinks, then there is none."""
    frames = [[(100, 50, 0.6)] for _ in range(20)]
    frames += [[(100 + n, 50, 0.4, 40 - 2 * n)] for n in range(1, 9)]
    frames += [[]] * 5 + [[(98, 50, 0.14, 44)]] * 20
    ids = follow(frames)
    assert [found for found in ids if found] == [[1]] * 48
    # The same size is another person's for a track that has been as small for longer.
    small = [[(100, 50, 0.4, 24)]] * 60 + [[]] * 5 + [[(98, 50, 0.14, 44)]] * 20
    assert follow(small)[-1] == [2]


def test_another_size_is_another_person():
    frames = [[(100, 50, 0.6)]] * 10 + [[]] * 10 + [[(90, 50, 0.6, 90)]]
    assert follow(frames)[-1] == [2]


def test_a_single_false_detection_takes_nobody_over():
    """It would be the nearest track for a person who appears there a second later."""
    frames = [[(100, 50, 0.6)]] + [[]] * 25 + [[(105, 50, 0.6)]]
    assert follow(frames)[-1] == [2]


def test_time_must_increase():
    tracker = Tracker()
    tracker.update(1.0, people([]))
    with pytest.raises(ValueError, match=r"a frame at 1\.0 s after one at 1\.0 s"):
        tracker.update(1.0, people([]))


def test_similarities_match_coco():
    """COCO's formula (cocodataset.org) by hand."""
    truth = np.zeros((1, len(DETECTED), 3))
    truth[..., 2] = 1
    moved = truth.copy()
    moved[0, 0, 0] = 30  # the nose, 30 px away; its constant is 0.026
    area = np.array([100.0 * 100])
    expected = (16 + np.exp(-(30**2) / (2 * 100**2 * (2 * 0.026) ** 2))) / 17
    assert keypoint_similarity(truth, moved, area, area)[0, 0] == pytest.approx(expected)
    moved[0, 11, 1] = 50  # the left hip: 0.107
    expected += (np.exp(-(50**2) / (2 * 100**2 * (2 * 0.107) ** 2)) - 1) / 17
    assert keypoint_similarity(truth, moved, area, area)[0, 0] == pytest.approx(expected)
    moved[..., 0, 2] = 0  # a keypoint that is not known does not count
    expected = (15 + np.exp(-(50**2) / (2 * 100**2 * (2 * 0.107) ** 2))) / 16
    assert keypoint_similarity(truth, moved, area, area)[0, 0] == pytest.approx(expected, abs=1e-5)


def test_appearance_is_of_the_clothes():
    """Shirt and trousers of one colour each, on a background of another one."""
    found = people([(20, 10, 0.6), (120, 10, 0.6), (220, 10, 0.6), (320, 10, 0.6)])
    names = [DETECTED.index(f"{side}_{part}") for part in ("shoulder", "hip", "knee")
             for side in ("left", "right")]  # fmt: skip
    assert names[:4] == TORSO
    joints = np.array([[30, 15], [10, 15], [28, 55], [12, 55], [28, 90], [12, 90]])
    pixels = np.full((150, 400, 3), 128, np.uint8)
    colours = ((200, 30, 30), (20, 20, 90)), ((30, 160, 60), (20, 20, 90))
    for person, x in enumerate((20, 120, 220, 320)):
        found.keypoints[person, names, :2] = joints + [x, 10]
        shirt, trousers = colours[person % 2]
        pixels[20:65, x + 5 : x + 36] = shirt
        pixels[65:110, x + 5 : x + 36] = trousers
    found.keypoints[3, TORSO[0], 2] = 0.25  # what covers it is seen there
    looks = appearance(pixels, found)
    assert looks.shape == (4, LOOK_SIZE) and looks[:3].sum(-1) == pytest.approx(1)
    alike = np.sqrt(looks[:, None] * looks[None]).sum(-1)
    assert alike[0, 2] > 0.95 and 0.4 < alike[0, 1] < 0.7
    assert not looks[3].any()


def test_a_frame_without_people():
    assert follow([[], [(100, 50, 0.6)], [], [(100, 50, 0.6)]]) == [[], [1], [], [1]]
    assert appearance(np.zeros((10, 10, 3), np.uint8), people([])).shape == (0, LOOK_SIZE)


@pytest.mark.parametrize("rate", [0.4, 1.0, 3.0])
def test_a_low_frame_rate(rate):
    """A frame is the next one, however long it takes; LOST counts beyond it."""
    tracker, ids = Tracker(1 / rate), []
    for n in range(6):
        ids.append(tracker.update(n / rate, people([(100 + 4 * n, 50, 0.6)])).tolist())
    assert ids == [[1]] * 6
