"""Photos of people as training samples: rows whose labels fit each other and the picture, masks of
labels, a training step."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import BODY44, SMPL24, SMPL45, VERTEX_OF_KEYPOINT

from genhmr_jax.core import encoders
from genhmr_jax.core.encoders import CROP_SIZE
from genhmr_jax.data import mixtures, people
from genhmr_jax.data.augment import Augmentation
from genhmr_jax.data.image_rows import rooted
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.systems import registry
from genhmr_jax.systems.genhmr import validation
from genhmr_jax.systems.genhmr.task import GenHmrTask
from genhmr_jax.systems.tokenizer.task import TokenizerTask
from genhmr_jax.train import loop
from genhmr_jax.train.mesh import Placement, make_mesh
from support import people_fixtures
from support.people_studio import _arrays, pose_body
from support.studio_records import record

INDICES = [i for i, name in enumerate(DETECTED) if "index" in name]  # BODY44 has no finger tips


def rows_of(dataset, augmentations, body) -> Rows:
    samples = people.fetch(dataset, np.arange(len(augmentations)) % len(dataset.records))
    return people.rows_of(list(zip(samples, augmentations, strict=True)), people.Skeleton.of(body))


AUGMENTATIONS = [
    Augmentation(),
    Augmentation(flip=True),
    Augmentation(angle=0.7),
    Augmentation(angle=-1.0, flip=True, scale=1.3, shift=(0.02, -0.02)),
    Augmentation(angle=0.4, extreme=0.1, scale=0.8),
    Augmentation(flip=True, extreme=0.65, angle=2.0),
]


@pytest.fixture(scope="module")
def rows(dataset, body):
    return rows_of(dataset, AUGMENTATIONS, body)


def test_annotation_to_crop_to_projected_joints_within_half_a_pixel(rows, body):
    """The body of a row's labels, posed in float64 and projected by the row's camera, lands on the
    row's 2D labels."""
    arrays = _arrays(body)
    index = {name: i for i, name in enumerate(SMPL45)} | {
        name: SMPL45.index(vertex) for name, vertex in VERTEX_OF_KEYPOINT.items()
    }
    names = [index[name] for name in DETECTED]
    for row in range(6):
        pose = Rotation.from_matrix(rows.rotmats[row]).as_rotvec().reshape(72)
        view = jax.tree.map(lambda x: np.asarray(x[row]), rows.view)  # noqa: B023
        translation = view.translation(rows.weak_camera[row])
        points = pose_body(arrays, pose, rows.betas[row].astype(np.float64), translation)
        projected = np.asarray(view.project(jnp.asarray(points[names])))
        gap = view.to_crop(projected) - view.to_crop(rows.points2d[row])
        gap = np.delete(np.abs(gap) * CROP_SIZE / 2, INDICES, 0)
        assert gap.max() < 0.5 and np.median(gap) < 0.05
        np.testing.assert_allclose(rows.joints[row] + translation, points[:24], atol=2e-3)
    for label in dataclasses.astuple(rows.known):
        assert label.tolist() == [1.0] * 6
    assert rows.points2d_confidence[0].tolist() == [
        float(i not in INDICES) for i in range(len(DETECTED))
    ]


def test_the_picture_goes_where_the_labels_go(rows):
    """The blue disc of the right wrist is at the right wrist; in a mirrored picture at the left
    one."""
    found = 0
    for row, augmentation in enumerate(AUGMENTATIONS):
        name = "left_wrist" if augmentation.flip else "right_wrist"
        crop = rows.view.crop[row]
        at = rows.points2d[row, DETECTED.index(name)] - crop[:2] + crop[2] / 2
        at = at * CROP_SIZE / crop[2]
        if not (8 < at.min() and at.max() < CROP_SIZE - 8):
            continue
        pixels = rows.images[row].astype(int)
        blue = (pixels[..., 2] > 200) & (pixels[..., :2].max(-1) < 60)  # the noise stays below 190
        y, x = np.nonzero(blue)
        centre = np.array([x.mean(), y.mean()]) + 0.5
        assert np.abs(centre - at).max() < 1.5  # the disc itself is drawn on whole pixels
        found += 1
    assert found >= 4


def test_mirrored_rows_mirror_every_label(dataset, body):
    plain, mirrored = (rows_of(dataset, [Augmentation(flip=flip)], body) for flip in (False, True))
    # The principal point is off by half a pixel.
    assert np.abs(plain.images[0].astype(int) - mirrored.images[0, :, ::-1]).mean() < 3
    flip = [
        DETECTED.index(n.replace("left", "?").replace("right", "left").replace("?", "right"))
        for n in DETECTED
    ]
    x = 2 * plain.view.centre[0, 0] - mirrored.points2d[0, flip, 0]
    np.testing.assert_allclose(
        np.delete(x, INDICES), np.delete(plain.points2d[0, :, 0], INDICES), atol=1e-3
    )


def test_keypoints_are_what_the_crop_shows(dataset, body):
    head, hidden = Augmentation(extreme=0.35), Augmentation(occluders=3, seed=4)
    rows = rows_of(dataset, [head, hidden, Augmentation(scale=1.3)], body)
    seen, labelled = rows.keypoints[..., 2] > 0, rows.points2d_confidence > 0
    assert (
        not seen[0, DETECTED.index("left_ankle")]
        and seen[0, DETECTED.index("nose")]
        and labelled[0, DETECTED.index("left_ankle")]
    )
    assert (seen[1] != labelled[1]).any() and np.array_equal(labelled[1], labelled[0])
    assert np.array_equal(seen[2], labelled[2])
    np.testing.assert_allclose(rows.keypoints[2, seen[2], :2], rows.points2d[2, seen[2]])


def test_rows_say_which_labels_are_missing(truth, body):
    person, picture = truth[0]
    none = dict(global_orient=None, body_pose=None, betas=None, translation=None, intrinsics=None)
    few = person.keypoints2d.copy()
    few[:25] = 0
    measured = np.concatenate([person.joints - person.joints[0], np.ones((24, 1))], -1)
    half = person.keypoints3d.copy()
    half[:, 3] = [float("ankle" in name or "hip" in name) for name in BODY44]
    half[25:] = 0
    only_ankles = half * (np.arange(44) != BODY44.index("openpose_left_hip"))[:, None]
    records = [
        record(person, picture, **none),
        record(person, picture, **none | dict(keypoints2d=few, joints24_3d=measured)),
        record(person, picture, **none | dict(keypoints3d=half)),
        record(person, picture, **none | dict(keypoints3d=only_ankles)),
        record(person, picture, betas=None),
        record(person, picture, intrinsics=None),
    ]
    rows = rows_of(mixtures.Dataset("x", records), [Augmentation()] * 6, body)
    flags = np.stack(dataclasses.astuple(rows.known), -1)
    assert flags.tolist() == [
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 0, 1, 1],
    ]
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(rows))
    # Of COCO's names, the other half of BODY44 has twelve limbs.
    assert rows.points2d_confidence[1].sum() == 12
    np.testing.assert_allclose(rows.joints[1], measured[:, :3], atol=1e-6)
    known = [SMPL24.index(name) for name in ("left_hip", "right_hip", "left_ankle", "right_ankle")]
    assert np.flatnonzero(rows.joints_confidence[2]).tolist() == sorted(known)
    hips = person.joints[known] - person.joints[known[:2]].mean(0)
    joints = rows.joints[2]
    np.testing.assert_allclose(joints[known] - joints[known[:2]].mean(0), hips, atol=1e-5)
    assert rows.view.focal[5] == pytest.approx(800) and np.abs(rows.weak_camera[5]).max() == 0


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two datasets from the files of their releases, built."""
    pytest.importorskip("tensorflow_datasets")
    from genhmr_jax.data.builders import build

    manual, data = tmp_path_factory.mktemp("manual"), tmp_path_factory.mktemp("data")
    for name, split in (("hmr2_coco", "train"), ("threedpw", "validation")):
        people_fixtures.write(name, manual)
        build(name, manual, data, split)
    return data


@pytest.fixture(scope="module")
def task(built, get_config, tmp_path_factory):
    folder, first = tmp_path_factory.mktemp("tokenizer"), get_config("tokenizer/tiny")
    tokenizer = TokenizerTask(first)
    tokenizer.export(folder, *tokenizer.init(jax.random.key(0)), {})
    config = get_config("genhmr/tiny")
    config.tokenizer, config.batch_size, config.image_batch_size, config.model.encoder_channels = (
        str(folder),
        0,
        4,
        (80, 136, 288),
    )
    config.data.people, config.data.mixture, config.data.people_val = (
        str(built),
        "hmr2_coco",
        "threedpw:validation",
    )
    return registry.make_task(config)


def pooled(encoder: encoders.Encoder, pixels: jax.Array) -> list[jax.Array]:
    """Stands in for BlazePose, which takes long to compile: maps of its shapes."""
    mean = lambda n: pixels.reshape(len(pixels), n, 256 // n, n, 256 // n, 3).mean((2, 4))
    return [jnp.tile(mean(n), c // 3 + 1)[..., :c] for n, c in ((32, 80), (16, 136), (8, 288))]


@pytest.mark.slow
def test_training_from_built_datasets(task, monkeypatch):
    """Shapes, a finite gradient that reaches the image branch, and a validation record."""
    monkeypatch.setattr(encoders.FrozenBlazePose, "encode", pooled)
    params, extra = task.init(jax.random.key(0))
    batch = {"images": task.sources()["images"].load(np.arange(4))}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
        lambda x: (x.shape, x.dtype), task.batch_shapes()
    )
    prepare = jax.jit(task.prepare)
    gradient = jax.jit(
        jax.grad(lambda params, sample: task.loss(params, extra, task.frozen, sample)[0])
    )
    sample = prepare(task.frozen, batch)
    grads = gradient(params, sample)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert all(
        np.abs(level["proj"]["kernel"]).max() > 0 for level in grads["pyramid"]["levels"].values()
    )

    # The values of labels that a row lacks have no influence.
    rows = batch["images"]
    one = np.array([1, 0, 0, 0], np.float32)
    known = dataclasses.replace(rows.known, rotation=one, betas=one, camera=one, joints3d=one)
    random = np.random.default_rng(0)
    replaced = ("betas", "joints", "weak_camera", "points2d")
    garbage = {name: getattr(rows, name).copy() for name in replaced}
    for name in ("betas", "joints", "weak_camera"):
        garbage[name][1:] = random.normal(0, 1, garbage[name][1:].shape)
    garbage["points2d"][:, INDICES] = 77.0
    losses = [
        gradient(params, prepare(task.frozen, {"images": changed}))
        for more in ({}, garbage)
        for changed in [dataclasses.replace(rows, known=known, **more)]
    ]
    for one, other in zip(*map(jax.tree.leaves, losses), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)

    place = Placement(make_mesh(task.config.mesh))
    (photos,) = validation.validation_images(task._maker, task.images, place)["val_image"].batches
    assert photos.weight.tolist() == [1, 0, 0, 0] and photos.images is None
    assert [m.shape[0] for m in photos.maps] == [4] * 3


@pytest.mark.slow
def test_a_run_on_photos(built, task, corpus_file, get_config, tmp_path, monkeypatch):
    """Two steps of the whole loop; this model takes the photos' keypoints alone, which compiles
    faster."""
    config = get_config("genhmr/tiny")
    config.tokenizer, config.data.poses, config.batch_size, config.image_batch_size = (
        task.config.tokenizer,
        str(corpus_file),
        0,
        4,
    )
    config.data.people, config.data.mixture = str(built), "hmr2_coco=3"
    config.data.augment.rotation = 90.0
    (
        config.steps,
        config.log_every,
        config.evaluate_every,
        config.checkpoint_every,
        config.evaluate_poses,
    ) = 2, 1, 2, 2, 4
    monkeypatch.setattr(
        GenHmrTask, "evaluate", lambda *_: {"val": 1.0}
    )  # measuring is tested elsewhere
    loop.train(registry.make_task(config), config, tmp_path)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in logged if "image_joints2d" in line]
    assert len(steps) == 2 and all(
        np.isfinite(line[name]) for line in steps for name in ("image_joints2d", "image_token")
    )
    assert (tmp_path / "model" / "config.json").is_file()


def test_joints_without_a_pelvis_are_compared_from_the_hips():
    joints = np.random.default_rng(0).normal(0, 1, (2, 24, 3)).astype(np.float32)
    known = np.ones((2, 24), np.float32)
    known[1, [0, 5]] = 0
    relative = rooted(joints, known)
    np.testing.assert_allclose(relative[0], joints[0] - joints[0, 0], atol=1e-6)
    np.testing.assert_allclose(relative[1], joints[1] - joints[1, 1:3].mean(0), atol=1e-6)
