"""Whatever JSON a file of boxes, keypoints or cameras holds: a result of the promised shapes, or an
InputError that names the file.

More examples:

    GENHMR_EXAMPLES=10000 pytest tests/data/annotations/fuzz_test.py tests/io/metadata_test.py
"""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genhmr_jax.data.annotations import selection, user
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile

EXAMPLES = int(os.environ.get("GENHMR_EXAMPLES", "200"))
PHOTO, SIZE = ImageFile(Path("photos/a.jpg"), "a"), (64, 48)
FIELDS = (
    *(
        "a",
        "a.jpg",
        "0",
        "people",
        "annotations",
        "images",
        "categories",
        "instance_info",
        "instances",
        "id",
        "file_name",
        "image_id",
    ),
    *(
        "bbox",
        "box",
        "boxes",
        "keypoints",
        "names",
        "pose_keypoints_2d",
        "keypoint_scores",
        "foot_kpts",
        "score",
        "bbox_score",
        "width",
    ),
    *(
        "height",
        "category_id",
        "iscrowd",
        "num_keypoints",
        "name",
        "focal",
        "principal_point",
        "intrinsics",
        "frame_id",
    ),
)
LEAVES = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(-100, 100),
        st.integers(),
        st.floats(),
        st.floats(0, 60),
        st.text(max_size=3),
    ),
    st.sampled_from(
        [
            "a",
            "a.jpg",
            "nose",
            "person",
            "1",
            10**400,
            [1, 2, 30, 40],
            [[5.0, 6, 0.9]] * 23,
            [1, 2, 1] * 17,
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)
RECORD = {
    "image_id": 1,
    "category_id": 1,
    "bbox": [4, 4, 30, 40],
    "keypoints": [9, 9, 2] * 16 + [20, 30, 2],
    "score": 0.5,
}
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
INSTANCE = {
    "keypoints": [[9, 9]] * 16 + [[20, 30]],
    "keypoint_scores": [1] * 17,
    "bbox": [[1, 2, 30, 40]],
}
WELL_FORMED = (
    {"a": [1, 2, 30, 40]},
    {
        "a": {
            "boxes": [[1, 2, 30, 40]],
            "keypoints": [[[9, 9, 1], [20, 30, 1]]],
            "names": ["nose", "left_hip"],
        }
    },
    {"images": [IMAGE], "annotations": [RECORD], "categories": [{"id": 1, "name": "person"}]},
    {"people": [{"pose_keypoints_2d": [9, 9, 1] * 24 + [20, 30, 1]}]},
    {"instance_info": [INSTANCE]},
    [RECORD | {"image_id": "a.jpg", "box": [1, 2, 30, 40]}],
    {"instance_info": [{"frame_id": 1, "instances": [INSTANCE]}]},
    {"a": {"focal": 900, "principal_point": [30, 20]}},
    {"a": {"intrinsics": [[900, 0, 30], [0, 900, 20], [0, 0, 1]]}},
)


@st.composite
def damaged(draw) -> object:
    """A well-formed file in which one value, anywhere, is another one, or absent."""
    content = json.loads(json.dumps(draw(st.sampled_from(WELL_FORMED))))
    place, key = None, None
    here = content
    while isinstance(here, dict | list) and len(here):
        place, key = (
            here,
            draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here)))),
        )
        here = here[key]
        if draw(st.integers(0, 3)) == 0:
            break
    if draw(st.booleans()):
        place[key] = draw(VALUES)
    else:
        del place[key]
    return content


def check(path: Path) -> None:
    for read in (user.read_boxes, user.read_keypoints):
        try:
            annotations = read(path)
            people = selection.people_of_image(
                *((annotations, None) if read is user.read_boxes else (None, annotations)),
                PHOTO,
                SIZE,
                max_people=3,
            )
        except InputError as error:
            assert str(path) in str(error) or PHOTO.path.name in str(error)
            continue
        assert len(people.index) <= min(people.total, 3)
        if people.boxes is not None:
            assert people.boxes.shape == (len(people.index), 4) and np.isfinite(people.boxes).all()
            assert (people.boxes >= 0).all() and (people.boxes <= [64, 48, 64, 48]).all()
        else:
            assert (
                people.keypoints.shape == (len(people.index), 23, 3)
                and np.isfinite(people.keypoints).all()
            )
            assert ((people.keypoints[..., 2] >= 0) & (people.keypoints[..., 2] <= 1)).all()
    try:
        camera = user.camera_of_image(user.read_cameras(path), PHOTO)
        assert 0 < camera.focal < math.inf and np.isfinite(camera.principal_point or 0).all()
    except InputError as error:
        assert str(path) in str(error) or PHOTO.path.name in str(error)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.json"


@pytest.mark.parametrize("strategy", [VALUES, damaged()], ids=["anything", "damaged"])
def test_any_json_is_a_result_or_one_error(path, strategy):
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(strategy)
    def run(content):
        path.write_text(json.dumps(content))
        check(path)

    run()


def test_any_bytes_are_a_result_or_one_error(path):
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(
        st.binary(max_size=60)
        | st.text(alphabet='[]{}":,0123456789.eE+-atrufalsn \ufeff', max_size=60).map(str.encode)
    )
    def run(content):
        path.write_bytes(content)
        check(path)

    run()


def test_files_that_are_well_formed_give_people(path):
    """The damaged files above start from files that are right."""
    for content, read in zip(
        WELL_FORMED, [user.read_boxes] * 2 + [user.read_keypoints] * 4, strict=False
    ):
        path.write_text(json.dumps(content))
        annotations = read(path)
        people = selection.people_of_image(
            *((annotations, None) if read is user.read_boxes else (None, annotations)), PHOTO, SIZE
        )
        assert people.total == 1, content
