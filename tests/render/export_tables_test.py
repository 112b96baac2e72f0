"""CSV and COCO files of a clip, and the names of all its files."""

import csv
import json

import numpy as np
import pytest
from smpl_jax.keypoints import COCO17

from genhmr_jax.data.annotations.user import as_image_file, read_keypoints
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.geometry.motion import WORLD
from genhmr_jax.io.errors import InputError
from genhmr_jax.render.export import CLIP_FORMATS
from genhmr_jax.render.export.clip_files import clip_file_names, save_clip_files
from genhmr_jax.render.export.coco import save_coco
from genhmr_jax.render.export.table import save_csv
from support.export_motions import clip, motion


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.fixture(scope="module")
def motions():
    return [motion(1, frames=5), motion(2, frames=5, absent=(0, 4))]


@pytest.fixture(scope="module")
def walk(motions, body):
    return clip(motions, body)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_known_person_and_frame(walk, tmp_path):
    save_csv(path := tmp_path / "walk.csv", walk)
    rows = rows_of(path)
    places = [(int(row["frame"]), int(row["person"])) for row in rows]
    assert places == [(10, 1), (11, 1), (11, 2), (12, 1), (12, 2), (13, 1), (13, 2), (14, 1)]
    assert [row["state"] for row in rows] == ["observed", "filled"] + 6 * ["observed"]
    assert {row["axes"] for row in rows} == {"camera"} and float(rows[0]["time"]) == 2
    for row, (frame, person) in zip(rows, places, strict=True):
        for joint, name in enumerate(walk.joint_names):
            found = [float(row[f"{name}_{axis}"]) for axis in "xyz"]
            expected = walk.joints[person - 1, frame - 10, joint]
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert float(row[f"{name}_confidence"]) == pytest.approx(0.9)


def test_csv_in_world_axes_and_without_confidence(walk, tmp_path):
    """The camera of the made-up clip is upright, 1.5 m above the ground."""
    arrays = walk.arrays()
    arrays["joint_confidence"] = np.full_like(walk.joint_confidence, np.nan)
    save_csv(path := tmp_path / "walk.csv", type(walk)(**arrays), WORLD)
    row = rows_of(path)[0]
    x, y, z = walk.joints[0, 0, 15]
    found = [float(row[f"head_{axis}"]) for axis in "xyz"]
    np.testing.assert_allclose(found, [x, 1.5 - y, -z], atol=1e-5)
    assert row["head_confidence"] == "" and row["axes"] == "world"
    for name in ("world_rotation", "world_translation"):
        del arrays[name]
    with pytest.raises(ValueError, match="no world"):
        save_csv(path, type(walk)(**arrays), WORLD)


def test_coco_has_the_keypoints(walk, tmp_path):
    save_coco(path := tmp_path / "walk.json", walk)
    content = json.loads(path.read_text())
    assert [image["id"] for image in content["images"]] == [10, 11, 12, 13, 14]
    assert content["images"][0]["file_name"] == "000010.jpg"
    assert content["images"][0]["width"] == 640 and content["images"][0]["height"] == 480
    (category,) = content["categories"]
    assert category["keypoints"] == list(COCO17)
    assert (*category["keypoints"], *category["extra_keypoints"]) == DETECTED
    for note in content["annotations"]:
        person, frame = note["track_id"] - 1, note["image_id"] - 10
        filled = note["state"] == "filled"
        assert filled == (person == 0 and frame == 1)
        points = np.array(note["keypoints"] + note["extra_keypoints"]).reshape(-1, 3)
        scores = note["keypoint_confidence"] + note["extra_keypoint_confidence"]
        if filled:
            np.testing.assert_allclose(
                points[:, :2], walk.projected_keypoints[person, frame], atol=1e-3
            )
            assert (points[:, 2] == 1).all() and not any(scores) and note["score"] == 0
        else:
            seen = walk.keypoints2d[person, frame]
            np.testing.assert_allclose(
                np.delete(points[:, :2], 3, 0), np.delete(seen[:, :2], 3, 0), atol=1e-3
            )
            assert not points[3].any() and note["num_keypoints"] == 16
            np.testing.assert_allclose(scores, seen[:, 2], atol=1e-3)
            assert note["score"] == pytest.approx(np.delete(seen[:17, 2], 3).mean(), abs=1e-3)
        assert note["bbox"] == [100, 50, 120, 300] and note["area"] == 36000
    assert len({note["id"] for note in content["annotations"]}) == len(content["annotations"]) == 8


def test_coco_in_our_reader_of_other_programs(walk, tmp_path):
    save_coco(path := tmp_path / "walk.json", walk)
    entry = read_keypoints(path).of(as_image_file(tmp_path / "000012.jpg"))
    assert entry.size == (640, 480) and len(entry.values) == 2
    for person, points in enumerate(entry.values):
        known = walk.keypoints2d[person, 2, :17, 2] > 0
        np.testing.assert_allclose(
            points[:17, :2][known], walk.keypoints2d[person, 2, :17, :2][known], atol=1e-3
        )


def test_coco_in_pycocotools(walk, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    save_coco(path := tmp_path / "walk.json", walk)
    found = coco.COCO(str(path))
    ids = found.getAnnIds(imgIds=[11], catIds=found.getCatIds(["person"]))
    assert [note["track_id"] for note in found.loadAnns(ids)] == [1, 2]


def test_coco_needs_the_keypoints_of_coco(walk, tmp_path):
    arrays = walk.arrays() | {"keypoint_names": [f"point_{i}" for i in range(23)]}
    with pytest.raises(ValueError, match="lacks left_ankle, left_ear"):
        save_coco(tmp_path / "walk.json", type(walk)(**arrays))


def test_all_formats_of_a_clip(motions, walk, body, tmp_path):
    written = save_clip_files(tmp_path, "walk", list(CLIP_FORMATS), motions, body, walk)
    names = [path.name for path in written]
    assert names == [
        "walk.glb",
        "walk.usda",
        *("walk_1.bvh", "walk_2.bvh", "walk_1_cm.bvh", "walk_2_cm.bvh"),
        *("walk_1_amass.npz", "walk_2_amass.npz", "walk.csv", "walk_coco.json"),
    ]
    assert names == clip_file_names("walk", CLIP_FORMATS, walk.track_id)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert all(path.stat().st_size for path in written)


def test_numbers_that_do_not_match(motions, walk, body, tmp_path):
    with pytest.raises(ValueError, match="1 motions of 2 tracks"):
        save_clip_files(tmp_path, "walk", ["bvh"], motions[:1], body, walk)
    with pytest.raises(InputError, match="cannot be written"):
        save_clip_files(tmp_path / "missing", "walk", ["bvh"], motions, body, walk)
