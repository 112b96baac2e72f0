"""Who of the people that files give for a photo can be recovered: scores, crowds, sizes, units, and
people of whom too little is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.data.annotations import selection, user
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile
from genhmr_jax.io.images import read_image

PHOTO, SIZE = ImageFile(Path("x.jpg"), "x"), (600, 400)


def given(tmp_path, content, read=user.read_boxes):
    (tmp_path / "given.json").write_text(json.dumps(content))
    return read(tmp_path / "given.json")


def boxes_of(tmp_path, content, **how) -> selection.UserAnnotations:
    return selection.people_of_image(given(tmp_path, content), None, PHOTO, SIZE, **how)


def keypoints_of(tmp_path, content, size=SIZE, **how) -> selection.UserAnnotations:
    return selection.people_of_image(
        None, given(tmp_path, content, user.read_keypoints), PHOTO, size, **how
    )


def standing(x: float, known: int = 23) -> np.ndarray:
    """Keypoints of somebody at x, of which the first `known` are known."""
    rows = np.random.default_rng(int(x)).uniform([x, 50, 0.9], [x + 80, 350, 0.9], (23, 3))
    rows[known:] = 0
    return rows


def test_what_does_not_belong_to_the_photo(tmp_path):
    out = boxes_of(tmp_path, {"x": [[500, 500, 900, 600], [10, 20, 100, 300]]})
    assert out.index.tolist() == [1] and out.total == 2
    assert out.left_out == (
        "person 1 of 2 given: the box 500, 500, 900, 600 lies outside this photo of 600 x 400 px",
    )
    with pytest.raises(InputError, match="y.jpg: no box given for 'y'.*the file has x"):
        selection.people_of_image(given(tmp_path, {"x": [0, 0, 50, 50]}), None, "y.jpg", SIZE)
    points = standing(100)
    points[0, 0] = 601
    inside = keypoints_of(tmp_path, {"x": points.tolist()}).keypoints[0]
    assert inside[0, 2] == 0 and (inside[1:, 2] > 0).all()


def test_boxes_that_are_too_small_speak_of_the_box(tmp_path):
    out = boxes_of(tmp_path, {"x": [[100, 100, 101.5, 101.5]]})
    assert out.left_out == (
        "person 1 of 1 given: the box 100, 100, 101.5, 101.5 is only 1.5 x 1.5 px, too small "
        "for a person",
    )
    huge = boxes_of(tmp_path, {"x": [[-1e7, -1e7, 1e7, 1e7]]})
    assert huge.boxes.tolist() == [[0, 0, 600, 400]]


@pytest.mark.parametrize(("known", "kept"), [(0, False), (3, False), (4, True)])
def test_a_person_with_too_few_keypoints_does_not_cost_the_others(tmp_path, known, kept):
    people = [standing(50), standing(200, known), standing(400)]
    out = keypoints_of(tmp_path, {"x": [p.tolist() for p in people]})
    assert out.index.tolist() == ([0, 1, 2] if kept else [0, 2]) and out.total == 3
    if not kept:
        assert out.left_out == (
            f"person 2 of 3 given: {known} keypoints are known inside the photo, 4 are needed",
        )
    blank = keypoints_of(tmp_path, {"x": [standing(50, 0).tolist(), people[2].tolist()] * 2})
    assert blank.index.tolist() == [1, 3] and blank.left_out == (
        "people 1, 3 of 4 given: 0 keypoints are known inside the photo, 4 are needed",
    )
    boxed = selection.people_of_image(  # a box is enough to look for the person
        given(tmp_path, {"x": [[50, 50, 130, 350], [200, 50, 280, 350], [400, 50, 480, 350]]}),
        given(tmp_path, {"x": [p.tolist() for p in people]}, user.read_keypoints),
        PHOTO,
        SIZE,
    )
    assert boxed.index.tolist() == [0, 1, 2]


def test_scores_and_the_most_people(tmp_path):
    rows = [(10, 100, 0.9), (150, 30, 0.95), (250, 100, 0.1), (400, 100, 0.5), (520, 70, None)]
    records = [
        {"image_id": "x", "bbox": [x, 50, side, side]} | ({"score": s} if s else {})
        for x, side, s in rows
    ]
    everybody = boxes_of(tmp_path, records)
    assert (
        everybody.index.tolist() == [0, 1, 3, 4]
        and everybody.low_scores == 1
        and not everybody.left_out
    )
    assert boxes_of(tmp_path, records, min_score=0.0).index.tolist() == [0, 1, 2, 3, 4]
    two = boxes_of(
        tmp_path, records, max_people=2
    )  # the largest score times side; without a score it counts as 1
    assert two.index.tolist() == [0, 4] and two.left_out == (
        "2 of 5 given people beyond --max-people 2",
    )


def test_crowd_regions_are_no_people(tmp_path):
    annotations = [
        {"image_id": 1, "bbox": [5, 5, 50, 90], "category_id": 1, "iscrowd": i} for i in (0, 1)
    ]
    out = boxes_of(
        tmp_path, {"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": annotations}
    )
    assert out.total == 1 and out.index.tolist() == [0]


@pytest.mark.parametrize("empty", [[], None, {"boxes": [], "keypoints": []}])
def test_nobody_is_not_an_error_of_the_file(tmp_path, empty):
    for out in (
        boxes_of(tmp_path, {"x": empty, "y": [1, 2, 90, 90]}),
        keypoints_of(tmp_path, {"x": empty}),
    ):
        assert out.total == 0 and len(out.index) == 0 and not out.left_out


@pytest.mark.parametrize("span", [(0, 1), (-1, 1), (0, 1.4)])
def test_fractions_of_the_photo_are_no_px(tmp_path, span):
    unit = standing(100)
    unit[:, :2] = span[0] + (span[1] - span[0]) * unit[:, :2] / SIZE
    with pytest.raises(
        InputError,
        match="x.jpg: the keypoints are not in px: all numbers lie within .* photo of 600 x 400",
    ):
        keypoints_of(tmp_path, {"x": unit.tolist()})
    with pytest.raises(InputError, match="x.jpg: the boxes are not in px"):
        boxes_of(tmp_path, {"x": [*unit[:, :2].min(0), *unit[:, :2].max(0)]})
    small = standing(100)
    small[:, :2] = 200 + unit[:, :2]  # somewhere in the photo, but a person of one pixel
    assert keypoints_of(tmp_path, {"x": small.tolist()}).left_out == (
        "person 1 of 1 given: all keypoints lie within 2 px",
    )


def test_percent_of_the_photo_is_no_px(tmp_path):
    """The detector decides: it sees the sample person at the place in percent and nobody at the
    same numbers in px."""
    photo, pixels = ImageFile(main.SAMPLE_PHOTO, "person"), read_image(main.SAMPLE_PHOTO)
    size = pixels.shape[1], pixels.shape[0]
    box = np.array([130.0, 110, 480, 670])

    def check(given):
        selection.refuse_percent(selection.people_of_image(given, None, photo, size), photo, pixels)

    with pytest.raises(
        InputError, match="person.jpg: the boxes are not in px: they look like percent of the photo"
    ):
        check(given(tmp_path, {"person": (100 * box / np.tile(size, 2)).tolist()}))
    check(given(tmp_path, {"person": box.tolist()}))
    check(given(tmp_path, {"person": [2, 2, 10, 30]}))  # nobody is seen at either place: px are px


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((400, 600), "as its EXIF orientation turns it; annotate the upright"),
        ((1200, 800), "scale"),
    ],
)
def test_annotations_of_a_photo_of_another_size_are_refused(tmp_path, size, said):
    images = [{"id": 1, "file_name": "x.jpg", "width": size[0], "height": size[1]}]
    annotations = [
        {"image_id": 1, "bbox": [5, 5, 50, 90], "keypoints": standing(100)[:17].ravel().tolist()}
    ]
    content = {"images": images, "annotations": annotations}
    for of, name in ((boxes_of, "boxes"), (keypoints_of, "keypoints")):
        with pytest.raises(
            InputError,
            match=(
                f"x.jpg: the file of {name} is for a photo of {size[0]} x {size[1]} px, "
                f"this.*{said}"
            ),
        ):
            of(tmp_path, content)
    images[0] |= {"width": 600, "height": 400}
    assert boxes_of(tmp_path, content).total == 1


def test_two_files_of_different_numbers_of_people(tmp_path):
    boxes = given(tmp_path, {"x": [[0, 0, 50, 50], [50, 0, 99, 50]]})
    keypoints = given(tmp_path, {"x": [standing(100).tolist()]}, user.read_keypoints)
    with pytest.raises(InputError, match="x.jpg: 2 boxes but keypoints of 1 people were given"):
        selection.people_of_image(boxes, keypoints, PHOTO, SIZE)


def test_keypoints_keep_their_order(tmp_path):
    points = standing(300)
    np.testing.assert_allclose(
        keypoints_of(tmp_path, {"x": points.tolist()}).keypoints[0], points, rtol=1e-6
    )
    assert len(DETECTED) == 23
