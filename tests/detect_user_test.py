"""People's own boxes and keypoints: every format, and clear errors for what is wrong."""

import json

import numpy as np
import pytest
from smpl_jax.keypoints import COCO17, OPENPOSE25

from genhmr_jax.body.keypoints import DETECTED
from genhmr_jax.detect import user
from genhmr_jax.errors import InputError


def write(folder, content, name="given.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def person(names, seed=0):
    """Flat x, y, confidence of a made-up person, and the same by name."""
    values = np.random.default_rng(seed).uniform(1, 50, (len(names), 3))
    values[:, 2] = np.linspace(0.1, 0.9, len(names))
    return values.ravel().tolist(), dict(zip(names, values, strict=True))


def check(keypoints, by_name):
    """Names that were given keep their values, the others have confidence 0."""
    assert keypoints.shape == (23, 3)
    for name, row in zip(DETECTED, keypoints, strict=True):
        np.testing.assert_allclose(row, by_name.get(name, np.zeros(3)), rtol=1e-6)


def test_boxes_in_our_format(tmp_path):
    path = write(tmp_path, {"a": [1, 2, 30, 40], "b": [[1, 2, 3, 4], [5, 6, 7, 9]], "c": {"boxes": [[0, 0, 9.5, 9]]}})
    boxes = user.read_boxes(path)
    wanted = {"a": [[1, 2, 30, 40]], "b": [[1, 2, 3, 4], [5, 6, 7, 9]], "c": [[0, 0, 9.5, 9]]}
    assert {stem: rows.tolist() for stem, rows in boxes.items()} == wanted
    np.testing.assert_array_equal(user.boxes_of_image(boxes, "photos/a.jpg", (20, 60)), [[1, 2, 20, 40]])


def test_coco_annotations_and_results(tmp_path):
    flat, by_name = person(COCO17)
    marked = {**by_name, "nose": by_name["nose"] * [1, 1, 0] + [0, 0, 1]}
    flat_marked = [*flat[:2], 2, *flat[3:]]
    annotations = [
        {"image_id": 7, "bbox": [10, 20, 30, 40], "keypoints": flat_marked, "category_id": 1},
        {"image_id": 7, "bbox": [1, 1, 5, 5], "keypoints": [0] * 51, "num_keypoints": 0, "category_id": 1},
        {"image_id": 7, "bbox": [1, 1, 5, 5], "category_id": 3},
    ]
    path = write(tmp_path, {"images": [{"id": 7, "file_name": "val/street.jpg"}], "annotations": annotations})
    assert user.read_boxes(path)["street"].tolist() == [[10, 20, 40, 60]]
    (keypoints,) = user.read_keypoints(path)["street"]
    check(keypoints, marked)
    results = write(tmp_path, [{"image_id": 139, "keypoints": flat, "score": 0.9}, {"file_name": "x.png", "keypoints": flat}])
    given = user.read_keypoints(results)
    check(user.keypoints_of_image(given, "000000000139.jpg", (60, 60))[0], by_name)
    check(given["x"][0], by_name)


@pytest.mark.parametrize("names", [OPENPOSE25, user.OPENPOSE_COCO18])
def test_openpose(tmp_path, names):
    flat, by_name = person(names)
    path = write(tmp_path, {"people": [{"pose_keypoints_2d": flat}, {"pose_keypoints_2d": flat}]}, "crowd_keypoints.json")
    given = user.read_keypoints(path)
    assert list(given) == ["crowd"] and len(given["crowd"]) == 2
    check(given["crowd"][1], by_name)


def test_keypoints_in_our_format_with_and_without_names(tmp_path):
    flat, by_name = person(DETECTED)
    rows = np.reshape(flat, (-1, 3)).tolist()
    some, some_by_name = person(("right_heel", "neck", "nose"), 1)
    both = {"keypoints": [some], "names": ["right_heel", "neck", "nose"], "boxes": [[0, 0, 1, 1]]}
    given = user.read_keypoints(write(tmp_path, {"a": [rows, rows], "b": rows, "c": both}))
    assert [len(given[stem]) for stem in "abc"] == [2, 1, 1]
    check(given["a"][1], by_name)
    check(given["b"][0], by_name)
    check(given["c"][0], some_by_name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{not json", "is no JSON"),
        ("3", "neither a list nor an object"),
        ('{"a": [1, 2, 3]}', "record 'a'"),
        ('{"a": [1, 2, NaN, 9]}', "NaN or infinite"),
        ('{"a": [1, 2, 1e999, 9]}', "NaN or infinite"),
        ('{"a": [9, 2, 3, 9]}', "no area"),
        ('{"a": [[1, 2, 3, 4], [1, 2]]}', "record 'a'"),
        ('{"a": "box"}', "record 'a'"),
        ('{"a": {"keypoints": [[1, 2, 3]]}}', "record 'a' has no box"),
        ('[{"bbox": [1, 2, 3, 4]}]', "record 0 has neither image_id nor file_name"),
        ('[{"image_id": 1, "bbox": [1, 2, 0, 4]}]', "record 0: a box has no area"),
        ("[5]", "record 0 is no object"),
    ],
)
def test_boxes_that_are_wrong(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        user.read_boxes(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"people": [{"pose_keypoints_2d": [1.0] * 74}]}, "person 0 has 74 numbers"),
        ({"people": [{"face": []}]}, "person 0 has no keypoints"),
        ({"a": [[[1, 2, 1]] * 22]}, "record 'a' has 22 keypoints"),
        ({"a": [[[float("nan"), 5, 1.0]] * 23]}, "NaN or infinite"),
        ({"a": {"keypoints": [[[1, 2, 3]]], "names": ["nose", "neck"]}}, "give 2 x 3"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "record 0 has no keypoints"),
    ],
)
def test_keypoints_that_are_wrong(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        user.read_keypoints(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="none.json: cannot be read"):
        user.read_boxes(tmp_path / "none.json")


def test_what_does_not_belong_to_the_photo():
    with pytest.raises(InputError, match="x.jpg: the box 500, 500, 600, 600 lies outside this photo of 60 x 40 px"):
        user.boxes_of_image({"x": np.array([[500.0, 500, 600, 600]])}, "x.jpg", (60, 40))
    with pytest.raises(InputError, match="y.jpg: no box given for 'y'.*the file has x"):
        user.boxes_of_image({"x": np.zeros((1, 4))}, "y.jpg", (60, 40))
    keypoints = np.full((1, 23, 3), [30.0, 20.0, 1.0])
    keypoints[0, 0, 0] = 61
    inside = user.keypoints_of_image({"x": keypoints}, "x.jpg", (60, 40))
    assert inside[0, 0, 2] == 0 and (inside[0, 1:, 2] == 1).all() and keypoints[0, 0, 2] == 1
    with pytest.raises(InputError, match="x.jpg: a person has no keypoint inside"):
        user.keypoints_of_image({"x": keypoints + 100}, "x.jpg", (60, 40))
