"""Rendered people as a dataset: exact records, shards that hold the same, batches for training that
do not depend on process or order."""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image
from smpl_jax.keypoints import BODY44, SMPL24

from genhmr_jax.data import mixtures, people, poses
from genhmr_jax.data.sources import SOURCES
from genhmr_jax.data.synthetic import write
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.generate import SceneSpec
from genhmr_jax.data.synthetic.rendered import Rendered
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError


@pytest.fixture(scope="module")
def scenes(corpus_file):
    return Rendered(
        poses.load_corpus(corpus_file, "train"),
        "train",
        7,
        load_body("lite"),
        Backgrounds(),
        SceneSpec(size=96),
    )


def test_a_record_says_what_the_picture_shows(scenes):
    for number in range(6):
        record, sample = scenes[number], scenes.render(number).sample
        assert (
            Image.open(io.BytesIO(record["image"])).size == tuple(record["image_size"]) == (96, 96)
        )
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(record["mask"]))) == 255, sample.mask
        )
        assert all(
            record[f"has_{name}"] == 1 for name in ("pose", "betas", "translation", "intrinsics")
        )
        joints = record["joints24_3d"][:, :3] @ record["intrinsics"].T
        pixels = joints[:, :2] / joints[:, 2:]
        for name in ("left_knee", "right_wrist", "left_ankle"):
            point = record["keypoints2d"][BODY44.index(f"openpose_{name}")]
            np.testing.assert_array_equal(point, record["keypoints2d"][BODY44.index(name)])
            if point[2]:
                assert np.abs(point[:2] - pixels[SMPL24.index(name)]).max() < 0.5
        assert record["keypoints2d"][BODY44.index("openpose_neck"), 2] == 0, "no such keypoint here"


def test_threads_and_order_change_nothing(scenes):
    numbers = [5, 2, 9, 2]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(scenes.render, numbers))
    assert [r.image for r in together] == [scenes.render(n).image for n in numbers]
    assert together[1].image == together[3].image != together[0].image


def test_rows_of_training(scenes):
    source = people.PeopleSource([mixtures.Dataset("rendered", scenes)], 8, 0, load_body("lite"))
    rows = source.load(np.arange(8))
    labels = rows.known
    assert rows.images.shape == (8, 256, 256, 3) and all(
        (known == 1).all()
        for known in (labels.rotation, labels.betas, labels.camera, labels.joints3d)
    )
    part = source.load(np.array([3, 6]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[[3, 6]]), part, rows)
    translation = rows.view.translation(rows.weak_camera)
    projected = np.asarray(rows.view.project(rows.joints + translation[:, None]))
    for name in ("left_knee", "right_elbow"):
        seen = rows.points2d_confidence[:, DETECTED.index(name)] > 0
        error = projected[:, SMPL24.index(name)] - rows.points2d[:, DETECTED.index(name)]
        assert seen.any() and np.abs(error[seen]).max() < 0.5


def test_shards_are_a_source(tmp_path, corpus_file):
    write.write_split(tmp_path / "synthetic", "val", 3, corpus_file, size=64, seed=3, body="lite")
    source = SOURCES["synthetic"]
    records = list(source.records(tmp_path, "val", source.report()))
    assert [r["frame"] for r in records] == [0, 1, 2]
    scenes = Rendered(
        poses.load_corpus(corpus_file, "val"),
        "val",
        3,
        load_body("lite"),
        Backgrounds(),
        SceneSpec(size=64),
    )
    for name, value in scenes[1].items():
        if name != "sequence":
            assert np.array_equal(records[1][name], value), name
    with pytest.raises(InputError, match="synthetic.write --out"):
        list(source.records(tmp_path, "train", source.report()))


def test_mixtures_name_it(corpus_file):
    made = []
    (dataset,) = mixtures.open_mixture(
        "", "rendered", rendered=lambda split: made.append(split) or [1]
    )
    assert dataset.name == "rendered" and made == ["train"]
    with pytest.raises(InputError, match="cannot be rendered here"):
        mixtures.open_mixture("", "rendered=2")


def test_the_device_draws_the_same_people(corpus_file, scenes):
    """Up to the few pixels whose centre lies on an edge."""
    other = dataclasses.replace(scenes, on_device=True).render(4).sample
    wanted = scenes.render(4).sample
    np.testing.assert_array_equal(other.joints, wanted.joints)
    assert (other.mask == wanted.mask).mean() > 0.99
    assert np.abs(other.image.astype(float) - wanted.image).mean() < 1.0
