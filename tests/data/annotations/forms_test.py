"""The user's own boxes and keypoints: every form, what each photo gets of them, and clear errors
for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from smpl_jax.keypoints import COCO17, OPENPOSE25

from genhmr_jax.data.annotations import selection, user
from genhmr_jax.data.annotations.values import COCO_FEET, HALPE26, OPENPOSE_COCO18
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile, name_outputs

SIZE = (60, 60)


def write(folder, content, name="given.json"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def values(annotations, photo="a.jpg") -> np.ndarray:
    """What a file gives for a photo, as it stands there."""
    return np.array(annotations.of(ImageFile(Path(photo), Path(photo).stem)).values)


def keypoints_of(annotations, photo) -> np.ndarray:
    """The keypoints (23, 3) of the only person of a photo."""
    (keypoints,) = selection.people_of_image(None, annotations, photo, SIZE).keypoints
    return keypoints


def person(names, seed=0):
    """Flat x, y, confidence of a made-up person, and the same by name."""
    rows = np.random.default_rng(seed).uniform(1, 50, (len(names), 3))
    rows[:, 2] = np.linspace(0.1, 0.9, len(names))
    return rows.ravel().tolist(), dict(zip(names, rows, strict=True))


def check(keypoints, by_name):
    """Names that were given keep their values, the others have confidence 0."""
    assert keypoints.shape == (23, 3)
    for name, row in zip(DETECTED, keypoints, strict=True):
        np.testing.assert_allclose(row, by_name.get(name, np.zeros(3)), rtol=1e-6)


def test_boxes_in_our_form(tmp_path):
    path = write(
        tmp_path,
        {
            "a": [1, 2, 30, 40],
            "b": [[1, 2, 3, 14], [5, 6, 7, 19]],
            "c": {"boxes": [[0, 0, 9.5, 9]]},
        },
    )
    boxes = user.read_boxes(path)
    wanted = {"a": [[1, 2, 30, 40]], "b": [[1, 2, 3, 14], [5, 6, 7, 19]], "c": [[0, 0, 9.5, 9]]}
    assert {
        stem: values(boxes, f"{stem}.jpg").tolist() for stem in "abc"
    } == wanted and boxes.names() == ["a", "b", "c"]
    clipped = selection.people_of_image(boxes, None, "photos/a.jpg", (20, 60)).boxes
    assert clipped.tolist() == [[1, 2, 20, 40]]


def test_coco_annotations_and_results(tmp_path):
    flat, by_name = person(COCO17)
    marked = {**by_name, "nose": by_name["nose"] * [1, 1, 0] + [0, 0, 1]}
    flat_marked = [*flat[:2], 2, *flat[3:]]
    annotations = [
        {"image_id": 7, "bbox": [10, 20, 30, 40], "keypoints": flat_marked, "category_id": 1},
        {
            "image_id": 7,
            "bbox": [1, 1, 5, 5],
            "keypoints": [0] * 51,
            "num_keypoints": 0,
            "category_id": 1,
        },
        {"image_id": 7, "bbox": [1, 1, 5, 5], "category_id": 3},
        {
            "image_id": 7,
            "bbox": [1, 1, 50, 50],
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": {"counts": [1], "size": [1, 1]},
        },
    ]
    images = [
        {"id": 7, "file_name": "val/street.jpg"},
        {"id": 8, "file_name": "val/empty.jpg", "width": 0, "height": 0},
    ]
    path = write(tmp_path, {"images": images, "annotations": annotations})
    boxes = values(user.read_boxes(path), "street.jpg")
    assert boxes.tolist() == [[10, 20, 40, 60], [1, 1, 6, 6]]
    assert len(values(user.read_boxes(path), "empty.jpg")) == 0
    keypoints, unmarked = values(user.read_keypoints(path), "street.jpg")
    check(keypoints, marked)
    assert not unmarked.any()  # boxes and keypoints of a file are of the same people
    results = write(
        tmp_path,
        [
            {"image_id": 139, "keypoints": flat, "score": 0.9},
            {"file_name": "x.png", "keypoints": flat},
        ],
    )
    given = user.read_keypoints(results)
    check(keypoints_of(given, "000000000139.jpg"), by_name)
    check(values(given, "x.png")[0], by_name)


def test_a_coco_export_in_which_person_is_not_category_1(tmp_path):
    annotations = [
        {"image_id": 0, "bbox": [0, 0, 20, 20], "category_id": 0},
        {"image_id": 0, "bbox": [5, 5, 20, 20], "category_id": 1},
    ]
    content = {"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": annotations}
    content["categories"] = [{"id": 0, "name": "Person"}, {"id": 1, "name": "dog"}]
    assert values(user.read_boxes(write(tmp_path, content))).tolist() == [[0, 0, 20, 20]]
    content["categories"] = [{"id": 0, "name": "skier"}]
    assert values(user.read_boxes(write(tmp_path, content))).tolist() == [[0, 0, 20, 20]]


@pytest.mark.parametrize("names", [OPENPOSE25, OPENPOSE_COCO18])
def test_openpose(tmp_path, names):
    flat, by_name = person(names)
    path = write(
        tmp_path,
        {"people": [{"pose_keypoints_2d": flat}, {"pose_keypoints_2d": flat}]},
        "crowd_keypoints.json",
    )
    given = user.read_keypoints(path)
    assert given.names() == ["crowd"] and len(values(given, "crowd.jpg")) == 2
    check(values(given, "crowd.jpg")[1], by_name)
    with pytest.raises(InputError, match="no keypoints given for 'other'"):
        given.of(ImageFile(Path("other.jpg"), "other"))


def test_a_folder_of_openpose_files(tmp_path):
    """Each file is for the photo after which it is named; nobody, a face without a body, and a
    broken file concern that photo alone."""
    flat, by_name = person(OPENPOSE25)
    people = (
        [{"pose_keypoints_2d": flat}],
        [],
        [{"pose_keypoints_2d": [], "face_keypoints_2d": [1]}],
    )
    for number, found in enumerate(people, 1):
        write(tmp_path, {"people": found}, f"f_{number}_keypoints.json")
    write(tmp_path, '{"people": [', "f_4_keypoints.json")
    write(tmp_path, "no JSON", "._f_1_keypoints.json")
    photos = name_outputs([Path(f"photos/f_{i}.jpg") for i in range(1, 6)])
    given = user.read_keypoints(tmp_path)
    people = selection.people_of_image(None, given, photos[0], SIZE, photos=photos)
    check(people.keypoints[0], by_name)
    for photo in photos[1:3]:
        assert not selection.people_of_image(None, given, photo, SIZE, photos=photos).total
    for photo, said in (
        (photos[3], "f_4_keypoints.json: is not JSON"),
        (photos[4], "no keypoints given for 'f_5'"),
    ):
        with pytest.raises(InputError, match=said):
            selection.people_of_image(None, given, photo, SIZE, photos=photos)
    with pytest.raises(InputError, match="is a folder without JSON files"):
        user.read_boxes(write(tmp_path, "", "photos/a.jpg").parent)


def test_alphapose(tmp_path):
    """Boxes in `box`, scores above 1, 17 or 26 keypoints, the photo by its whole name in
    image_id."""
    flat, by_name = person(HALPE26)
    record = {
        "image_id": "a.b.jpg",
        "category_id": 1,
        "keypoints": flat,
        "score": 2.9,
        "box": [10, 20, 30, 40.5],
        "idx": [0.0],
    }
    path = write(tmp_path, [record, record | {"image_id": "7.jpg"}])
    check(keypoints_of(user.read_keypoints(path), "x/a.b.jpg"), by_name)
    assert values(user.read_boxes(path), "a.b.jpg").tolist() == [[10, 20, 40, 60.5]]
    check(keypoints_of(user.read_keypoints(path), "000007.png"), by_name)


def test_mmpose(tmp_path):
    """Keypoints and their scores in two fields, the box as [[x0, y0, x1, y1]]; instances of a
    photo, or of numbered frames."""
    flat, by_name = person(COCO17)
    rows = np.reshape(flat, (-1, 3))
    one = {
        "keypoints": rows[:, :2].tolist(),
        "keypoint_scores": rows[:, 2].tolist(),
        "bbox": [[1, 2, 40, 50]],
        "bbox_score": 0.8,
    }
    for content in ([one], {"meta_info": {}, "instance_info": [one]}):
        given = user.read_keypoints(write(tmp_path, content, "a.json"))
        check(values(given)[0], by_name)
        assert values(user.read_boxes(tmp_path / "a.json")).tolist() == [[1, 2, 40, 50]]
    frames = {
        "instance_info": [{"frame_id": 12, "instances": [one]}, {"frame_id": 13, "instances": []}]
    }
    given = user.read_keypoints(write(tmp_path, frames))
    check(values(given, "clip_0012.jpg")[0], by_name)
    assert len(values(given, "clip_0013.jpg")) == 0


def test_coco_wholebody(tmp_path):
    """133 keypoints in one field, or 17 and the feet in a field of their own; fingers and faces are
    not used."""
    flat, by_name = person(COCO17 + COCO_FEET)
    whole = flat + [30.0, 30.0, 0.9] * 110
    check(
        values(user.read_keypoints(write(tmp_path, [{"image_id": "a", "keypoints": whole}])))[0],
        by_name,
    )
    official = {
        "image_id": 3,
        "category_id": 1,
        "keypoints": flat[:51],
        "foot_kpts": flat[51:],
        "face_kpts": [0.0] * 204,
    }
    content = {"images": [{"id": 3, "file_name": "a.jpg"}], "annotations": [official]}
    check(values(user.read_keypoints(write(tmp_path, content)))[0], by_name)


def test_keypoints_in_our_form_with_and_without_names(tmp_path):
    flat, by_name = person(DETECTED)
    rows = np.reshape(flat, (-1, 3)).tolist()
    some, some_by_name = person(("right_heel", "neck", "nose"), 1)
    both = {"keypoints": [some], "names": ["right_heel", "neck", "nose"], "boxes": [[0, 0, 1, 1]]}
    given = user.read_keypoints(write(tmp_path, {"a": [rows, rows], "b": rows, "c": both}))
    assert [len(values(given, f"{stem}.jpg")) for stem in "abc"] == [2, 1, 1]
    check(values(given, "a.jpg")[1], by_name)
    check(values(given, "b.jpg")[0], by_name)
    check(values(given, "c.jpg")[0], some_by_name)


def test_coordinates_of_unknown_keypoints_may_be_anything(tmp_path):
    flat, by_name = person(COCO17)
    rows = np.reshape(flat, (-1, 3)).tolist()
    rows[3], rows[4], rows[5] = [None, None, 0], [float("nan"), 5, 0], [-1, -1, -1]
    for i in (3, 4, 5):
        by_name[COCO17[i]] = np.zeros(3)
    check(values(user.read_keypoints(write(tmp_path, {"a": rows})))[0], by_name)


def test_one_photo_and_a_file_that_names_none(tmp_path):
    """SPIN's {"bbox": [x, y, width, height]}, and a box on the command line, are for the only photo
    that is done."""
    two = name_outputs([Path("one.jpg"), Path("two.jpg")])
    path = write(tmp_path, {"bbox": [10, 20, 30, 40]}, "one_bbox.json")
    for source, wanted in (
        (path, [10, 20, 40, 60]),
        ("[0, 0, 60, 42.5]", [0, 0, 60, 42.5]),
        ("0,0,60,42", [0, 0, 60, 42]),
        ('{"bbox": [1, 2, 30, 40]}', [1, 2, 31, 42]),
    ):
        boxes = user.read_boxes(source)
        assert selection.people_of_image(boxes, None, two[0], SIZE).boxes.tolist() == [wanted]
    boxes = user.read_boxes(path)  # named after the photo
    assert len(selection.people_of_image(boxes, None, two[0], SIZE, photos=two).boxes) == 1
    with pytest.raises(
        InputError,
        match="two.jpg: the JSON on the command line does not say which of 2 photos it is for",
    ):
        selection.people_of_image(user.read_boxes("[0, 0, 60, 42]"), None, two[1], SIZE, photos=two)


@pytest.mark.parametrize("text", ["[1, 2, 3", "1,2,3", "2024.json", "[]", "nowhere.json"])
def test_what_is_neither_a_file_nor_boxes(text):
    with pytest.raises(InputError, match="cannot be read"):
        user.read_boxes(text)


@pytest.mark.parametrize("content", ["\ufeff{}", '\ufeff{"a": [1, 2, 30, 40]}'])
def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path, content):
    assert user.read_boxes(write(tmp_path, content)).names() == (["a"] if "a" in content else [])


def test_text_in_utf_16_is_told(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, 2, 3, 4]}', encoding="utf-16")
    with pytest.raises(InputError, match="x.json: is text in UTF-16, not UTF-8; save it as UTF-8"):
        user.read_boxes(tmp_path / "x.json")


WRONG_BOXES = [
    ("{not json", "is not JSON"),
    ("  ", "is empty"),
    ("3", "neither a list nor an object"),
    ('{"a": [1, 2, 3]}', "record 'a'"),
    ('{"a": [1, 2, 3, 4, 0.9]}', "record 'a', boxes is not 4 or N x 4 numbers"),
    ('{"a": [1, 2, NaN, 9]}', "NaN or infinite"),
    ('{"a": [1, 2, 1e999, 9]}', "NaN or infinite"),
    (f'{{"a": [1, 2, 1{"0" * 400}, 9]}}', "record 'a'"),
    ('{"a": [1, 2, 1e30, 9]}', "beyond 1e"),
    ('{"a": [9, 2, 3, 9]}', "no area"),
    ('{"a": [[1, 2, 3, 4], [1, 2]]}', "record 'a'"),
    ('{"a": "box"}', "record 'a'"),
    ('{"a": {"keypoints": [[1, 2, 3]]}}', "record 'a' has no box"),
    ('[{"file": "a"}]', "record 0 has neither image_id nor file_name"),
    (
        '[{"image_id": ["a"], "bbox": [1, 2, 3, 4]}]',
        "record 0, image_id is neither text nor an integer",
    ),
    (
        '[{"image_id": true, "bbox": [1, 2, 3, 4]}]',
        "record 0, image_id is neither text nor an integer",
    ),
    ('[{"image_id": 1, "bbox": [1, 2, 0, 4]}]', "record 0: a box has no area"),
    (
        '[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": "high"}]',
        "record 0, score is not 1 numbers",
    ),
    ('["5"]', "record 0 is not an object"),
    ('[{"image_id": 1, "bbox": [1, 2, 3, 4]}, 5]', "record 1 is not an object"),
    ('{"images": 3, "annotations": []}', "images is not a list"),
    ('{"images": [{"id": 1}], "annotations": []}', "image 0 has no id or no file_name"),
    (
        '{"images": [{"id": 1, "file_name": 7}], "annotations": []}',
        "image 0, file_name is not text",
    ),
    ('{"people": 5}', "people is not a list"),
]


@pytest.mark.parametrize(("content", "said"), WRONG_BOXES)
def test_boxes_that_are_wrong(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        user.read_boxes(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


WRONG_KEYPOINTS = [
    ({"people": [{"pose_keypoints_2d": [1.0] * 74}]}, "person 0 has 74 numbers"),
    ({"people": [{"face": []}]}, "person 0 has no keypoints"),
    (
        {"a": [[[1, 2, 1]] * 22]},
        "record 'a' has 22 keypoints; give 23, 17, 25, 18, 26, 133 or 136 times x, y, "
        "confidence a person",
    ),
    ({"a": [[[float("nan"), 5, 1.0]] * 23]}, "NaN or infinite"),
    ({"a": {"keypoints": [[[1, 2, 3]]], "names": ["nose", "neck"]}}, "give 2 x 3"),
    ({"a": {"keypoints": [[[1, 2, 3]]], "names": 2}}, "record 'a', names is not a list of texts"),
    ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "record 0 has no keypoints"),
    (
        [{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1] * 16}],
        "record 0, keypoint_scores is not 17 numbers",
    ),
]


@pytest.mark.parametrize(("content", "said"), WRONG_KEYPOINTS)
def test_keypoints_that_are_wrong(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        user.read_keypoints(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="none.json: cannot be read"):
        user.read_boxes(tmp_path / "none.json")
