"""People of made-up clips: drawn figures that move, whose joints are known."""

import dataclasses

import numpy as np
import pytest

from genhmr_jax.detect import following
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import NEAR_MISS, detect
from genhmr_jax.detect.following import UNSEEN, ClipDetector, follow
from genhmr_jax.geometry.boxes import box_overlap
from genhmr_jax.geometry.keypoints import DETECTED
from support.detect_figure import ARMS, HEAD, LEGS, figure

FIGURE = figure(256)
BOX = np.array([0.25, 0.07, 0.77, 0.94]) * 256
# The figure faces us: its right is on the picture's left.
JOINTS = {"nose": HEAD}
for _side, _arm, _leg in zip(("right", "left"), ARMS, LEGS, strict=True):
    for _name, _point in zip(("shoulder", "elbow", "wrist"), _arm, strict=True):
        JOINTS[f"{_side}_{_name}"] = _point
    for _name, _point in zip(("hip", "knee", "ankle"), _leg, strict=True):
        JOINTS[f"{_side}_{_name}"] = _point


def scene(*places, width=400):
    """A picture, not a long one, with the figure at places x, y px."""
    picture = np.full((360 if width > 400 else 280, width, 3), FIGURE[0, 0], np.uint8)
    for x, y in places:
        picture[y : y + 256, x : x + 256] = FIGURE
    return picture


def error(found, person, place):
    """Mean distance of the known joints from where the figure at a place has them, px."""
    points = found.keypoints[person, [DETECTED.index(name) for name in JOINTS], :2]
    return np.linalg.norm(points - np.array(list(JOINTS.values())) * 256 - place, axis=-1).mean()


@pytest.fixture
def searches(monkeypatch):
    """The searches of the whole picture, one entry each."""
    made, search = [], following.find_people

    def counted(image, *args, again):
        made.append(again)
        return search(image, *args, again=False)

    monkeypatch.setattr(following, "find_people", counted)
    return made


@pytest.fixture(scope="module")
def standing():
    """What the detector finds of the figure at (60, 12)."""
    return detect(scene((60, 12)))


def test_a_moving_figure_is_followed(searches):
    detector, found = ClipDetector(every=4), None
    for n in range(6):
        place = 10 + 20 * n, 4 + 3 * n
        found = detector.detect(scene(place), found)
        assert len(found) == 1 and len(searches) == n // 4 + 1
        assert error(found, 0, place) < 0.04 * 256
        assert box_overlap(found.boxes[0], BOX + np.tile(place, 2)) > 0.75
        # The body model needs all of it.
        assert found.has_features.all() and found.masks.max() > 0.9
        assert np.abs(found.keypoints3d).max() > 0.3 and found.scores[0] > 0.2
        inside = found.regions[0, :2] - found.mask_frames[0] @ [0.5, 0.5, 1]
        assert np.abs(inside).max() < 0.01
    assert searches == [True, False], "a second search only where nothing is known"


def test_every_frame_searched_is_the_detector(standing):
    found = ClipDetector(every=1).detect(scene((60, 12)), standing)
    for field in dataclasses.fields(Detections):
        np.testing.assert_array_equal(
            getattr(found, field.name), getattr(standing, field.name), err_msg=field.name
        )


def test_following_agrees_with_the_detector(standing):
    """In the same picture, from keypoints that are 12 px off."""
    moved = standing.keypoints[0] + [12, -5, 0]
    pose = follow(scene((60, 12)), moved)
    gap = np.linalg.norm(pose.keypoints[:, :2] - standing.keypoints[0, :, :2], axis=-1)
    assert gap.mean() < 3 and pose.person > 0.9


def test_missing_keypoints_do_not_count(standing):
    """Where BlazePose did not confirm the person, toes, heels and finger tips are missing."""
    before = standing.keypoints[0].copy()
    before[17:] = 0
    pose = follow(scene((60, 12)), before)
    gap = np.linalg.norm(pose.keypoints[:, :2] - standing.keypoints[0, :, :2], axis=-1)
    assert gap.mean() < 3 and pose.person > 0.9


@pytest.fixture(scope="module")
def photographed(sample_image):
    """What the detector finds in the sample photo: a drawn figure far from where it was expected
    looks different to the networks in each version of JAX."""
    return detect(sample_image)


def test_a_large_jump_is_corrected_by_a_second_pass(photographed, sample_image, monkeypatch):
    runs, run = [], following.blazepose.landmarks
    monkeypatch.setattr(
        following.blazepose, "landmarks", lambda *args: runs.append(args) or run(*args)
    )
    near = follow(sample_image, photographed.keypoints[0])
    assert len(runs) == 2  # the region and its mirror image
    far = follow(sample_image, photographed.keypoints[0] + [100, 0, 0])
    assert len(runs) == 5
    assert np.linalg.norm(far.keypoints - near.keypoints, axis=-1).mean() < 8


def test_two_estimates_of_one_person_become_one(photographed, sample_image, searches):
    twins = photographed.only([0, 0])
    twins.scores[:] = 0.3, 0.5
    twins.keypoints[1, :, :2] += 10
    twins.boxes[1] += 1000  # boxes that overlap would be a reason to search
    detector = ClipDetector(every=4)
    detector.detect(sample_image)
    searches.clear()
    one = detector.detect(sample_image, twins)
    assert len(one) == 1 and one.scores[0] == 0.5 and not searches


def test_people_who_overlap_are_searched_for(standing, searches):
    pair = standing.only([0, 0])
    pair.boxes[1] += [20, 0, 20, 0]
    detector = ClipDetector(every=9)
    detector.detect(scene((60, 12)))
    searches.clear()
    detector.detect(scene((60, 12)), pair)
    assert len(searches) == 1
    pair.boxes[1] += 1000
    detector.detect(scene((60, 12)), pair)
    assert len(searches) == 1


def test_who_leaves_is_dropped_and_the_picture_is_searched(standing, searches):
    detector = ClipDetector(every=9)
    detector.detect(scene((60, 12)))
    gone = detector.detect(scene(), standing)
    # The second time with the second search, which may find who is hard to see.
    assert len(gone) == 0 and searches == [True, False, True]
    detector.detect(scene(), gone)
    assert searches[3:] == [False]


def test_a_newcomer_is_found_by_the_next_search():
    detector, found, counts = ClipDetector(every=3), None, []
    for places in ([(0, 12)], [(0, 12), (300, 12)], [(0, 12), (300, 12)], [(0, 12), (300, 12)]):
        found = detector.detect(scene(*places, width=556), found)
        counts.append(len(found))
    assert counts == [1, 1, 1, 2]
    for row, x in zip(np.argsort(found.boxes[:, 0]), (0, 300), strict=True):
        assert error(found, row, (x, 12)) < 0.03 * 256
    few = ClipDetector(every=3, max_people=1).detect(scene((0, 12), (300, 12), width=556))
    assert len(few) == 1 and few.left_out == 1


def test_whom_searches_overlook_is_followed_for_a_while(standing, monkeypatch):
    monkeypatch.setattr(following, "find_people", lambda *args, **kwargs: ([], 0))
    detector, found, scores = ClipDetector(every=1), standing, []
    while len(found):
        found = detector.detect(scene((60, 12)), found)
        scores += found.scores.tolist()
    expected = standing.scores[0] * UNSEEN ** np.arange(1, 9)
    assert scores == pytest.approx(expected[expected >= NEAR_MISS])


def test_wrong_arguments():
    with pytest.raises(ValueError, match="every=0"):
        ClipDetector(every=0)
    with pytest.raises(ValueError, match="uint8"):
        ClipDetector().detect(np.zeros((8, 8, 3)))


def test_nobody_takes_the_place_of_a_person_whom_a_search_misses(monkeypatch):
    """With a limit of the number of people; the next search finds both again."""
    picture, limit = scene((0, 12), (300, 12), width=556), {"every": 1, "max_people": 1}
    search, calls = following.find_people, []

    def missing(image, most, *args, again):
        """The search that overlooks the one on the left, in its second call."""
        calls.append(most)
        people, left_out = search(image, 2, *args, again=False)
        people = sorted(people, key=lambda person: person.box[0])
        return people[1:] if len(calls) == 2 else people[:most], left_out

    monkeypatch.setattr(following, "find_people", missing)
    detector, previous, places = ClipDetector(**limit), None, []
    for _ in range(3):
        previous = detector.detect(picture, previous)
        places.append(previous.boxes[0, 0])
    assert len(calls) == 3 and max(places) < 150
