"""The second search of the detector, on the sample photo turned upside down and cut."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genhmr_jax
from genhmr_jax.detect import detector, movenet, second_search
from genhmr_jax.detect.detector import detect, find_people
from genhmr_jax.detect.following import UNSEEN, ClipDetector
from genhmr_jax.detect.person import FoundPerson
from genhmr_jax.detect.second_search import NEAR_MISS
from genhmr_jax.geometry.keypoints import DETECTED

SAMPLE = Path(genhmr_jax.__file__).parent / "assets" / "sample" / "person.jpg"
PHOTO = np.asarray(Image.open(SAMPLE))
X0, X1 = 118, 492
UPPER, HALF = slice(196, 445), slice(113, 389)
"""Rows of the photo without the head and the legs, and without the legs."""

TORSO = [f"{side}_{name}" for side in ("left", "right") for name in ("hip", "shoulder")]


def part(rows, turns=0):
    """A part of the photo around the person, turned anticlockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(PHOTO[rows, X0:X1], turns))


def turned(points, size, turns):
    """Points of a picture of this width and height after its quarter turns."""
    points = points - np.array(size) / 2
    for _ in range(turns):
        points, size = np.stack([points[..., 1], -points[..., 0]], -1), size[::-1]
    return points + np.array(size) / 2


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_people_of_a_turned_picture_are_in_px_of_the_picture_itself(turns):
    size = PHOTO.shape[1::-1]
    boxes, scores, keypoints = movenet.find_people(PHOTO)
    picture = np.ascontiguousarray(np.rot90(PHOTO, -turns))
    own_boxes, own_scores, own_keypoints = movenet.find_turned(picture, turns)
    np.testing.assert_array_equal(own_scores, scores)
    back = turned(own_keypoints[..., :2], picture.shape[1::-1], turns)
    np.testing.assert_allclose(back, keypoints[..., :2], atol=1e-9)
    corners = turned(own_boxes.reshape(-1, 2, 2), picture.shape[1::-1], turns).reshape(-1, 4)
    np.testing.assert_allclose(np.sort(corners), np.sort(boxes), atol=1e-9)
    assert (own_boxes[:, 2:] > own_boxes[:, :2]).all() and size == (640, 720)


@pytest.fixture(scope="module")
def upright():
    """The person of the half photo as it is."""
    return detect(part(HALF))


def error(upright, keypoints, shift=0.0):
    """The median distance from the keypoints of the upright person, turned upside down.

    In parts of the person's size; `shift`: px by which the picture is moved in a frame.
    """
    size = part(HALF).shape[1::-1]
    expected = turned(upright.keypoints[0, :, :2], size, 2) + shift
    seen = upright.keypoints[0, :, 2] > 0.3
    gaps = np.linalg.norm(keypoints[:, :2] - expected, axis=-1)[seen]
    return np.median(gaps) / np.ptp(expected[seen], axis=0).max()


def test_a_person_upside_down_has_the_keypoints_of_the_upright_one(upright):
    picture = part(HALF, 2)
    found = detect(picture)
    assert len(upright) == len(found) == 1
    assert error(upright, found.keypoints[0]) < 0.03
    first, _ = find_people(picture, again=False)
    assert all(error(upright, person.pose.keypoints) > 0.1 for person in first)


def test_who_was_overlooked_is_found():
    picture = part(UPPER, 2)
    assert find_people(picture, again=False) == ([], 0)
    (person,), left_out = find_people(picture)
    heights = {name: person.pose.keypoints[DETECTED.index(name), 1] for name in TORSO}
    assert left_out == 0 and person.score > 0.2
    for side in ("left", "right"):
        assert heights[f"{side}_hip"] + 50 < heights[f"{side}_shoulder"]


def test_the_box_of_a_user_around_a_person_upside_down(upright):
    picture = part(HALF, 2)
    box = turned(upright.boxes[0].reshape(2, 2), picture.shape[1::-1], 2)[::-1].reshape(1, 4)
    found = detect(picture, box)
    np.testing.assert_allclose(found.boxes, box, rtol=1e-6)
    assert error(upright, found.keypoints[0]) < 0.05


def test_an_empty_box_of_a_user_does_not_get_the_person_beside_it():
    """Larger regions around the box show that person, whose estimate would be certain."""
    ((x0, y0, x1, y1),) = detect(PHOTO).boxes
    boxes = np.array([[max(2 * x0 - x1, 0), y0, x0, y1], [x1, y0, min(2 * x1 - x0, 720), y1]])
    found = detect(PHOTO, boxes)
    assert (found.certainty < 0.1).all() and (found.scores < 0.5).all()
    assert (found.keypoints[..., 2].mean(1) < 0.3).all()


def test_whom_only_this_search_finds_is_found_again_in_a_clip():
    """The searches in between lower the score until the person is lost."""
    picture, of_clip = part(UPPER, 2), ClipDetector(every=1)
    first = of_clip.detect(picture)
    assert len(first) == 1
    followed = of_clip.detect(picture, first)
    assert followed.scores == UNSEEN * first.scores
    followed.scores[:] = 0.5 * NEAR_MISS / UNSEEN
    again = of_clip.detect(picture, followed)
    np.testing.assert_allclose(again.scores, first.scores, rtol=1e-5)


def test_a_person_upside_down_stays_so_in_a_clip(upright):
    picture = part(HALF, 2)
    height, width = picture.shape[:2]
    # Each frame is searched; only in the first one the detector starts in other directions.
    of_clip, found = ClipDetector(every=1), None
    for n in range(3):
        frame = np.full((height + 20, width + 40, 3), 90, np.uint8)
        frame[10 : 10 + height, 4 * n : 4 * n + width] = picture
        found = of_clip.detect(frame, found)
        assert len(found) == 1 and error(upright, found.keypoints[0], [4.0 * n, 10.0]) < 0.03


def test_certain_people_are_kept_and_nothing_is_searched(monkeypatch):
    people, _ = find_people(PHOTO, again=False)
    assert len(people) == 1 and people[0].pose.uncertainty < 0.02
    monkeypatch.setattr(second_search, "estimate_in", None)
    monkeypatch.setattr(movenet, "find_turned", None)
    assert second_search.search_again(PHOTO, people, 0.2, "blazepose-full", True) is people


def test_the_most_certain_estimate_of_a_person_wins_and_sure_new_people_are_added():
    pose = find_people(PHOTO, again=False)[0][0].pose

    def person(box, uncertainty, score=0.5):
        """A person of whom only this counts."""
        estimate = dataclasses.replace(pose, uncertainty=uncertainty)
        return FoundPerson(np.array(box, float), score, estimate)

    merged = second_search.merged
    whole, left, right = [0, 0, 100, 100], [0, 0, 40, 100], [60, 0, 100, 100]
    # An uncertain person: the best estimate, with the higher score. A certain one is kept.
    first, best = person(left, 0.2, 0.9), person([5, 0, 40, 90], 0.02)
    assert merged([first], [person(left, 0.05), best]) == [FoundPerson(first.box, 0.9, best.pose)]
    certain = person(left, 0.03)
    assert merged([certain], [best]) == [certain]
    # A slightly better estimate does not count.
    doubtful = person(left, 0.06)
    assert merged([doubtful], [person(left, 0.055)]) == [doubtful]
    # Somebody else: only if the estimate is sure, and once.
    new = person(right, 0.02)
    assert merged([certain], [person(right, 0.04)]) == [certain]
    assert merged([certain], [person(right, 0.03), new]) == [certain, new]
    # Two uncertain people who embrace stay two.
    close = person([10, 0, 50, 100], 0.2)
    both = merged([first, close], [person([12, 0, 50, 100], 0.02), person([14, 0, 50, 100], 0.03)])
    assert both[0] is first and both[1].pose.uncertainty == 0.02 and len(both) == 2
    # An estimate that covers a certain person too replaces nobody.
    kept = [first, person(right, 0.01)]
    assert merged(kept, [person(whole, 0.02)]) == kept


def test_the_largest_people_are_kept_of_both_searches(monkeypatch):
    """A limit leaves out a small person of the first search for a large one of the second."""
    pose = find_people(PHOTO, again=False)[0][0].pose
    small = FoundPerson(np.array([0, 0, 20, 20.0]), 0.25, pose)
    large = FoundPerson(np.array([100, 0, 500, 600.0]), 0.9, pose)
    monkeypatch.setattr(detector, "_find_upright", lambda *_: ([small], 0))
    monkeypatch.setattr(detector, "search_again", lambda *_, alone: [small, large])
    assert find_people(PHOTO, 1) == ([large], 1)
    assert find_people(PHOTO, 2) == ([small, large], 0)
