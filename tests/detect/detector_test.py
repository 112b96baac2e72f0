"""The detector on drawn figures, whose joints are known, and on the sample photo."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genhmr_jax
from genhmr_jax.core import silhouette_term
from genhmr_jax.detect import blazepose, movenet
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import detect
from genhmr_jax.geometry.boxes import box_overlap
from genhmr_jax.geometry.keypoints import DETECTED
from support.detect_figure import ARMS, HEAD, LEGS, figure

SAMPLE = Path(genhmr_jax.__file__).parent / "assets" / "sample" / "person.jpg"
# The figure faces us: its right is on the picture's left.
TRUTH = {
    **dict(
        zip(
            (
                "right_shoulder",
                "right_elbow",
                "right_wrist",
                "left_shoulder",
                "left_elbow",
                "left_wrist",
            ),
            sum(ARMS, ()),
            strict=True,
        )
    ),
    **dict(
        zip(
            ("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
            sum(LEGS, ()),
            strict=True,
        )
    ),
    "nose": HEAD,
}


def errors(found, person, scale=1.0, offset=(0.0, 0.0), size=256):
    """Distance of each known joint from where the figure has it, as a share of the figure's
    picture."""
    names = list(TRUTH)
    points = found.keypoints[person, [DETECTED.index(name) for name in names], :2]
    truth = np.array([TRUTH[name] for name in names]) * size * scale + offset
    return np.linalg.norm(points - truth, axis=-1) / (size * scale)


def test_a_photo_is_certain():
    found = detect(np.asarray(Image.open(SAMPLE)))
    assert len(found) == 1 and found.keypoints[0, :, 2].mean() > 0.85 and found.certainty[0] > 0.9


def test_a_figure_is_found_with_left_and_right():
    found = detect(figure(256))
    assert len(found) == 1 and found.keypoints.shape == (1, len(DETECTED), 3)
    assert box_overlap(found.boxes[0], np.array([0.25, 0.07, 0.77, 0.94]) * 256) > 0.8
    assert errors(found, 0).max() < 0.06 and errors(found, 0).mean() < 0.03
    # A drawing is unlike all training images: the estimates of both mirror images agree less than
    # for a photo (`test_a_photo_is_certain`).
    assert 0.4 < found.keypoints[0, :, 2].mean() <= found.keypoints[..., 2].max() <= 1
    by_name = dict(zip(DETECTED, found.keypoints[0], strict=True))
    assert (
        by_name["left_index"][0] > by_name["left_wrist"][0]
        and by_name["right_index"][0] < by_name["right_wrist"][0]
    )
    assert by_name["left_big_toe"][1] > by_name["left_ankle"][1]


def test_two_figures_in_a_long_picture_the_larger_first():
    small = np.asarray(Image.fromarray(figure(256)).resize((128, 128), Image.Resampling.BOX))
    picture = np.full((256, 700, 3), figure(256)[0, 0], np.uint8)
    picture[64:192, 40:168], picture[:, 400:656] = small, figure(256)
    found = detect(picture)
    assert len(found) == 2 and found.boxes[0, 0] > 400 and found.boxes[1, 2] < 168
    assert errors(found, 0, 1.0, (400, 0)).mean() < 0.03
    assert errors(found, 1, 0.5, (40, 64)).mean() < 0.03
    assert len(detect(picture, max_people=1)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (40, 500)])
def test_nobody(shape):
    found = detect(np.full((*shape, 3), 120, np.uint8))
    assert len(found) == 0
    assert (found.boxes.shape, found.scores.shape, found.keypoints.shape) == (
        (0, 4),
        (0,),
        (0, 23, 3),
    )


def test_a_tiny_picture_and_one_whose_edge_cuts_the_person():
    tiny = np.asarray(Image.fromarray(figure(256)).resize((48, 48), Image.Resampling.BOX))
    assert errors(detect(tiny), 0, size=48).mean() < 0.04
    upper = detect(np.ascontiguousarray(figure(256)[:150]))
    below = upper.keypoints[0, :, 1] > 150
    assert below[[DETECTED.index(f"{side}_ankle") for side in ("left", "right")]].all()
    assert (upper.keypoints[0, below, 2] == 0).all(), (
        "a keypoint outside the image has no confidence"
    )
    assert upper.keypoints[0, DETECTED.index("left_shoulder"), 2] > 0.5


def test_keypoints_in_boxes_of_the_user():
    picture = np.full((300, 600, 3), figure(256)[0, 0], np.uint8)
    picture[20:276, 30:286], picture[20:276, 320:576] = figure(256), figure(256)[:, ::-1]
    boxes = np.array([[384.0, 38, 512, 261], [94, 38, 227, 261]])
    found = detect(picture, boxes)
    np.testing.assert_array_equal(found.boxes, boxes)
    assert found.given.tolist() == [0, 1]
    assert (found.scores > 0.5).all()
    assert errors(found, 1, 1.0, (30, 20)).mean() < 0.03
    assert (found.keypoints[0, :, 0] > 320).all()
    assert len(detect(picture, np.zeros((0, 4)))) == 0


@pytest.mark.parametrize(
    "box", [[1.0, 2, 3], [1.0, 2, np.nan, 9], [90.0, 90, 120, 120], [5.0, 5, 5, 9]]
)
def test_boxes_that_cannot_be(box):
    with pytest.raises(ValueError, match="box"):
        detect(np.zeros((80, 80, 3), np.uint8), np.array([box]))


NOT_IMAGES = [
    np.zeros((8, 8)),
    np.zeros((8, 8, 3)),
    np.zeros((8, 8, 4), np.uint8),
    np.zeros((0, 8, 3), np.uint8),
    "a.jpg",
]


@pytest.mark.parametrize("image", NOT_IMAGES)
def test_images_that_cannot_be(image):
    with pytest.raises(ValueError, match="uint8"):
        detect(image)


def test_no_size_of_a_photo_is_another_program():
    programs = lambda: [f.jitted._cache_size() for f in (movenet._people, blazepose._landmarks)]
    counts = []
    for size in ((90, 71), (60, 200)):
        detect(np.full((*size, 3), 90, np.uint8))
        detect(np.full((*size, 3), 90, np.uint8), boxes=np.float32([[5, 5, 50, 60]]))
        counts.append(programs())
    assert counts[0] == counts[1] and min(counts[0]) > 0


def test_the_sample_photo():
    image = np.asarray(Image.open(SAMPLE).convert("RGB"))
    found = detect(image)
    assert len(found) == 1 and box_overlap(found.boxes[0], np.array([129.0, 118, 484, 664])) > 0.9
    named = dict(zip(DETECTED, found.keypoints[0], strict=True))
    assert (
        named["nose"][1]
        < named["left_shoulder"][1]
        < named["left_hip"][1]
        < named["left_knee"][1]
        < named["left_ankle"][1]
    )
    assert named["right_hip"][0] < named["left_hip"][0]
    assert found.keypoints[0, :, 2].mean() > 0.8


def test_a_region_maps_to_the_image_and_its_crop_is_upright():
    region = blazepose.Region(100.0, 60.0, 80.0, math.radians(90))
    corners = np.array([[128.0, 128], [128, 0], [256, 128]])
    np.testing.assert_allclose(
        region.to_image(corners), [[100, 60], [140, 60], [100, 100]], atol=1e-9
    )
    image = np.zeros((120, 200, 3), np.uint8)
    image[40:80, 130:150] = (
        255  # to the right of the centre in the image, hence above it in the region
    )
    crop = region.crop(image)
    assert crop[2:30, 68:188].min() > 0.9 and crop[36:].max() == 0
    upright = blazepose.region_around(np.array([10.0, 20]), np.array([0.0, -5]), 8)
    assert (upright.x, upright.y, upright.side, upright.angle) == (10, 20, 20, 0)
    assert blazepose.region_around(np.zeros(2), np.array([3.0, 0]), 1).angle == pytest.approx(
        math.pi / 2
    )


def test_people_who_stand_together_are_not_one():
    a = np.concatenate(
        [np.array([TRUTH["nose"]] * 17) * 100 + np.arange(17)[:, None], np.ones((17, 1))], -1
    )
    box = np.array([0.0, 0, 100, 100])
    assert movenet.same_person(box, a, box + 5, a + [2, 2, 0])
    assert not movenet.same_person(box, a, box + [40, 0, 40, 0], a + [40, 0, 0])
    assert not movenet.same_person(box, a, box + 200, a + [2, 2, 0])


def test_the_mask_of_the_sample_photo_holds_its_keypoints_and_not_the_background():
    image = np.asarray(Image.open(SAMPLE).convert("RGB"))
    found = detect(image)
    height, width = image.shape[:2]
    crop = np.array([[width / 2, height / 2, max(width, height)]])
    targets = silhouette_term.targets(found, crop, width, height)
    assert len(found.masks) == 1 and targets.trust == 1
    outline, (x0, y0, x1, y1) = targets.outline[0], found.boxes[0]
    margin = 0.1 * max(x1 - x0, y1 - y0)
    assert (outline > [x0 - margin, y0 - margin]).all() and (
        outline < [x1 + margin, y1 + margin]
    ).all()
    assert np.ptp(outline[:, 1]) > 0.85 * (y1 - y0)
    assert (targets.outside > 0.2).any()


def test_people_are_padded_chosen_and_moved():
    """Every array keeps a row a person; an offset of the image moves every location in px, and
    nothing else."""
    two = detect(np.concatenate([figure(256), figure(256)[:, ::-1]], 1))
    assert len(two) == 2 and two.has_features.all()
    four = two.padded(4)
    assert len(four) == 4 and four.has_features.tolist() == [True, True, False, False]
    for name in (field.name for field in dataclasses.fields(Detections)):
        ours, padded = getattr(two, name), getattr(four, name)
        chosen, empty = (getattr(four.only(rows), name) for rows in ([1, 0], slice(2, None)))
        if name == "left_out":
            assert ours == padded == chosen == empty == 0
            continue
        np.testing.assert_array_equal(padded[:2], ours)
        np.testing.assert_array_equal(chosen, ours[::-1])
        np.testing.assert_array_equal(empty, getattr(Detections.empty(2), name))
    moved, offset = two.moved(7, -5), np.array([7, -5])
    shifts = {
        name: getattr(moved, name) - getattr(two, name)
        for name in ("boxes", "keypoints", "regions", "mask_frames")
    }
    expected = {
        "boxes": [*offset, *offset],
        "keypoints": [*offset, 0],
        "regions": [*offset, 0, 0],
        "mask_frames": np.pad(offset[:, None], ((0, 0), (2, 0))),
    }
    for name, shift in shifts.items():
        wanted = np.broadcast_to(expected[name], shift.shape)
        np.testing.assert_allclose(shift, wanted, atol=1e-4, err_msg=name)
    for name in ("scores", "keypoints3d", "masks", "features", "certainty", "given"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(two, name))
