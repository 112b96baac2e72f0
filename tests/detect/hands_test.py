"""Hands: the networks against TensorFlow Lite, regions, and the detection on a part of a photo."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.detect import graph_runner, hand_landmarks, hand_lifter, hands, palms
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.hands import HAND21, Hands, detect_hands
from genhmr_jax.geometry.keypoints import DETECTED
from support.hand_images import FINGERS, WRIST, hand, network_inputs
from support.paths import SUPPORT

REFERENCE = np.load(SUPPORT / "hands_reference.npz")
# An open right hand, its palm towards us; its wrist, and a point of the forearm, in px.
PHOTO = np.asarray(Image.open(SUPPORT / "hand.png"))
PHOTO_WRIST, PHOTO_ELBOW = (97.0, 93.0), (118.0, 128.0)
GREY = 120


@pytest.fixture(scope="module")
def found() -> Hands:
    return detect_hands(PHOTO)


def estimate_of(points, presence) -> hand_landmarks.HandEstimate:
    """An estimate with these points (21, 2), px."""
    region, none = hand_landmarks.next_region(points), np.zeros((21, 3))
    return hand_landmarks.HandEstimate(points, none, none, presence, 0.9, np.zeros(()), region)


def body(wrist, elbow, side="right") -> Detections:
    """One person of whom only an arm is known."""
    people = Detections.empty(1)
    for joint, point in (("wrist", wrist), ("elbow", elbow)):
        people.keypoints[0, DETECTED.index(f"{side}_{joint}")] = *point, 0.9
    return people


def test_palm_detector_equals_tensorflow_lite():
    graph, weights = graph_runner.load(palms.NETWORK)
    for i, image in enumerate(network_inputs(palms.SIZE)):
        boxes, scores = palms._boxes(weights, image[None], graph)
        reference = REFERENCE["palmdetection.boxes"][i]
        np.testing.assert_allclose(boxes[0, ::16], reference, atol=1e-3)  # px
        np.testing.assert_allclose(scores[0], REFERENCE["palmdetection.scores"][i], atol=2e-4)


def test_landmark_network_equals_tensorflow_lite():
    graph, weights = graph_runner.load(hand_landmarks.NETWORK)
    for i, image in enumerate(network_inputs(hand_landmarks.SIZE)):
        *ours, early = hand_landmarks._landmarks(weights, image[None], graph)
        tolerances = {"landmarks": 1e-3, "world": 2e-6, "presence": 1e-5, "handedness": 1e-5}
        for value, (name, tolerance) in zip(ours, tolerances.items(), strict=True):
            reference = REFERENCE[f"handlandmark.{name}"][i]
            np.testing.assert_allclose(value[0], reference, atol=tolerance)
        assert early.shape == (1, *hand_landmarks.EARLY_SHAPE)
    assert REFERENCE["handlandmark.presence"][0] > 0.9, "the first image shows a hand"


def test_estimates_do_not_depend_on_the_batch():
    region = Region(112.0, 112.0, 224.0, 0.0)
    crops = [np.asarray(crop) for crop in network_inputs(hand_landmarks.SIZE)]
    seen = hand_landmarks.estimates_of_crops(crops * 2 + crops[:1], [region] * 5)
    rows = hand_lifter.lifted(seen)
    assert len(seen) == len(rows) == 5
    for i in range(5):
        (alone,) = hand_landmarks.estimates_of_crops(crops[i % 2 : i % 2 + 1], [region])
        np.testing.assert_allclose(seen[i].early, alone.early, atol=1e-4)
        (row,) = hand_lifter.lifted([alone])
        np.testing.assert_allclose(rows[i].features, row.features, atol=1e-4)
        np.testing.assert_allclose(rows[i].points, row.points, atol=1e-3)  # px
        np.testing.assert_allclose(rows[i].points3d, row.points3d, atol=1e-5)


def test_anchors():
    anchors = palms.anchors()
    assert anchors.shape == (2016, 2)
    np.testing.assert_array_equal(anchors[[0, 1, 2]], [[4, 4], [4, 4], [12, 4]])
    np.testing.assert_array_equal(anchors[[1152, 1157, 1158]], [[8, 8], [8, 8], [24, 8]])
    np.testing.assert_array_equal(anchors[-1], [184, 184])


def test_boxes_of_the_same_palm_become_their_mean():
    centres = np.array([[10.0, 10], [11, 10], [50, 50]])
    sides, points = np.full((3, 2), 10.0), np.repeat(centres[:, None], 7, 1)
    one, other = palms._merged(centres, sides, points, np.array([0.6, 0.9, 0.7]))
    np.testing.assert_allclose(one.centre, [(0.6 * 10 + 0.9 * 11) / 1.5, 10])
    np.testing.assert_allclose(one.points, np.tile(one.centre, (7, 1)))
    assert (one.score, other.score) == (0.9, 0.7)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.5])
def test_regions_turn_with_the_hand(angle):
    points = np.array([WRIST, *(joint for finger in FINGERS for joint in finger)]) * 100.0
    turn = Region(0, 0, 1, angle).axes()
    upright, turned = (
        hand_landmarks.next_region(points),
        hand_landmarks.next_region(points @ turn.T),
    )
    assert abs(upright.angle) < 0.1, "a hand that points up"
    np.testing.assert_allclose(turned.angle - upright.angle, angle, atol=1e-9)
    np.testing.assert_allclose(turned.side, upright.side)
    centre = turn @ [upright.x, upright.y]
    np.testing.assert_allclose([turned.x, turned.y], centre, atol=1e-9)
    # The palm's region: half a box above its centre, and 2.6 times as large.
    palm = palms.Palm(np.zeros(2), np.array([8.0, 10]), points[[0, 5, 9, 13, 17, 1, 2]] @ turn.T, 1)
    region = palm.region()
    np.testing.assert_allclose([region.x, region.y], turn @ [0, -5], atol=1e-6)
    assert region.side == 26


def test_a_hand_of_a_photo(found):
    assert len(found) == 1 and found.scores[0] > 0.9 and found.right[0] > 0.8
    assert found.person.tolist() == [-1]
    by_name = dict(zip(HAND21, found.keypoints[0], strict=True))
    # Where they are in the picture, read off by eye.
    for name, point in {"wrist": (94, 104), "thumb_tip": (127, 90), "middle_tip": (88, 45)}.items():
        assert np.linalg.norm(by_name[name][:2] - point) < 12, name
    sure = found.keypoints[0, :, 2]
    assert (sure <= found.scores[0]).all() and sure.mean() > 0.6
    # An open hand is as long as a hand, and its 3D keypoints lie like those of the picture.
    points, world = found.keypoints[0, :, :2], found.keypoints3d[0]
    np.testing.assert_array_equal(world[0], 0)
    assert 0.12 < np.linalg.norm(world[HAND21.index("middle_tip")] - world[0]) < 0.22
    flat = (world - world.mean(0))[:, :2].ravel()
    agreement = np.corrcoef((points - points.mean(0)).ravel(), flat)[0, 1]
    assert agreement > 0.95


def test_a_turned_picture(found):
    """A quarter turn to the left: x becomes the distance from the right edge, measured down."""
    turned = detect_hands(np.ascontiguousarray(np.rot90(PHOTO)))
    width = PHOTO.shape[1]
    assert len(turned) == 1 and turned.right[0] > 0.7
    x, y = np.moveaxis(found.keypoints[0, :, :2], -1, 0)
    distance = np.linalg.norm(turned.keypoints[0, :, :2] - np.stack([y, width - x], -1), axis=-1)
    assert distance.mean() < 3 and distance.max() < 6  # px; the hand has 70
    expected = found.keypoints3d[0][:, [1, 0, 2]] * [1, -1, 1]
    assert np.linalg.norm(turned.keypoints3d[0] - expected, axis=-1).mean() < 0.016  # metres


def test_a_mirrored_picture_shows_the_other_hand(found):
    other = detect_hands(np.ascontiguousarray(PHOTO[:, ::-1]))
    assert len(other) == 1 and other.right[0] < 0.3
    mirrored = other.keypoints[0, :, :2] * [-1, 1] + [PHOTO.shape[1], 0]
    assert np.linalg.norm(mirrored - found.keypoints[0, :, :2], axis=-1).mean() < 3


def test_a_hand_at_a_wrist_belongs_to_the_person(found):
    both = detect_hands(PHOTO, body(PHOTO_WRIST, PHOTO_ELBOW))
    assert len(both) == 1 and both.person.tolist() == [0] and both.right[0] > 0.9
    left = detect_hands(PHOTO, body(PHOTO_WRIST, PHOTO_ELBOW, "left"))
    assert left.right[0] < 0.2, "the side of the body decides"
    far = detect_hands(PHOTO, body((20.0, 20), (20, 40)))
    assert len(far) == 1 and far.person.tolist() == [-1]


def test_a_hand_that_fills_the_picture_is_found(found):
    """In a larger square around the picture: in the picture alone no palm is found."""
    left, top, right, bottom = 57, 31, 131, 105
    picture = np.ascontiguousarray(PHOTO[top:bottom, left:right])
    close = detect_hands(picture)
    assert len(close) == 1 and close.right[0] > 0.7
    gap = close.keypoints[0, :, :2] + [left, top] - found.keypoints[0, :, :2]
    assert np.linalg.norm(gap, axis=-1).mean() < 5  # px; the hand has 70
    square = Region(37, 37, 74, 0)
    assert not palms.find(picture, square)


def test_a_small_hand_is_found_at_a_wrist_only():
    small = np.asarray(Image.fromarray(PHOTO).resize((70, 70), Image.Resampling.BOX))
    picture = np.full((640, 720, 3), GREY, np.uint8)
    picture[500:570, 600:670] = small
    assert len(detect_hands(picture)) == 0
    at = lambda point: (600 + point[0] / 2, 500 + point[1] / 2)
    people = body(at(PHOTO_WRIST), at(PHOTO_ELBOW))
    found = detect_hands(picture, people)
    assert len(found) == 1 and found.person.tolist() == [0]
    assert np.linalg.norm(found.keypoints[0, 0, :2] - at(PHOTO_WRIST)) < 10


def test_two_hands_and_their_limit():
    picture = np.full((300, 280, 3), GREY, np.uint8)
    picture[:140, :140], picture[150:290, 140:] = hand(140), hand(140)
    both = detect_hands(picture)
    assert len(both) == 2 and (np.diff(both.scores) <= 0).all()
    one = detect_hands(picture, max_hands=1)
    assert len(one) == 1
    chosen = both.only([1])
    assert len(chosen) == 1 and chosen.features.shape == (1, 7, 7, 672)
    np.testing.assert_array_equal(chosen.boxes, both.boxes[1:])


def test_the_same_hand_counts_once():
    points = np.array([WRIST, *(joint for finger in FINGERS for joint in finger)]) * 100.0
    rows = [(points, 0.7), (points + 3, 0.9), (points + 60, 0.8)]
    given = [estimate_of(p, presence) for p, presence in rows]
    assert [hand.presence for hand in hands._distinct(given)] == [0.9, 0.8]


def test_keypoints_outside_the_image_have_no_confidence():
    points = np.array([WRIST, *(joint for finger in FINGERS for joint in finger)]) * 100.0
    empty = np.zeros((7, 7, hand_landmarks.CHANNELS))
    own = hand_lifter.LiftedHand(points, np.zeros((21, 3)), np.zeros(21), empty)
    rows = hands.rows_of([estimate_of(points, 0.8)], [own], (100, 50))
    right_of_it = points[:, 0] > 50
    assert right_of_it.any() and (rows.keypoints[0, right_of_it, 2] == 0).all()
    np.testing.assert_allclose(rows.keypoints[0, ~right_of_it, 2], 0.8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (40, 500), (120, 90)])
def test_no_hands(shape):
    people = body((shape[1] / 2, shape[0] / 2), (shape[1] / 2, shape[0] / 2))
    for given in (None, people, Detections.empty(0)):
        none = detect_hands(np.full((*shape, 3), GREY, np.uint8), given)
        assert len(none) == 0 and none.keypoints.shape == (0, 21, 3)


def test_a_missing_network_names_its_tool():
    with pytest.raises(FileNotFoundError, match="build_hands.py --models handlandmark-huge"):
        graph_runner.load("handlandmark-huge")


def test_what_is_no_image():
    for image in (PHOTO / 255.0, PHOTO[..., 0], None):
        with pytest.raises(ValueError, match="RGB"):
            detect_hands(image)


def test_two_looks_become_their_mean_by_variance(monkeypatch):
    """The second look at a mirrored region is mirrored too; one that shows no hand is ignored."""
    points = np.array([WRIST, *(joint for finger in FINGERS for joint in finger)]) * 100.0
    one = estimate_of(points, 0.9)
    one = dataclasses.replace(one, mirrored=True)
    asked = []

    def estimates(image, regions, mirrored):
        asked.append((regions[0], mirrored))
        return [estimate_of(points + 3, presence)]

    def lifted(given):
        spread = 0.01 if given[0] is one else 0.02
        solid = np.full((21, 3), 1.0 if given[0] is one else 2.0)
        return [hand_lifter.LiftedHand(given[0].points, solid, np.full(21, spread), np.zeros(()))]

    monkeypatch.setattr(hand_landmarks, "estimates", estimates)
    monkeypatch.setattr(hand_lifter, "lifted", lifted)
    presence = 0.9
    (both,) = hands.two_looks(PHOTO, [one], lifted([one]))
    np.testing.assert_allclose(both.points, points + 0.2 * 3)
    np.testing.assert_allclose(both.points3d, 1.2)
    np.testing.assert_allclose(both.spread, 0.012)
    region, mirrored = asked[0]
    assert mirrored == [True] and region.side == 1.1 * one.region.side
    assert region.angle == one.region.angle + 0.2 and region.x == one.region.x
    presence = 0.1
    (first,) = hands.two_looks(PHOTO, [one], lifted([one]))
    np.testing.assert_array_equal(first.points, points)


def test_left_or_right_follows_from_both_looks():
    points = np.array([WRIST, *(joint for finger in FINGERS for joint in finger)]) * 100.0
    seen = lambda right: dataclasses.replace(estimate_of(points, 0.9), right=right)
    known = lambda spread: hand_lifter.LiftedHand(
        points, np.zeros((21, 3)), np.full(21, spread), np.zeros(())
    )
    side = lambda *rights, spreads: hands._right(*map(seen, rights), *map(known, spreads))
    assert side(0.8, 0.8, spreads=(0.02, 0.02)) == pytest.approx(0.8)
    assert side(0.8, 0.2, spreads=(0.02, 0.02)) == pytest.approx(0.5)
    assert side(0.4, 0.4, spreads=(0.02, 0.03)) > 0.5, "it expects smaller errors as a right hand"
    assert side(0.6, 0.6, spreads=(0.03, 0.02)) < 0.5
    assert 0 < side(0.0, 1.0, spreads=(0.01, 0.01)) < 1
