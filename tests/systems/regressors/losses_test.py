"""The losses of the baselines that are trained here, against the published sums in float64."""

import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from PIL import Image
from scipy.spatial.transform import Rotation

from genhmr_jax.data import mixtures, people
from genhmr_jax.data.rows import Known, Rows
from genhmr_jax.data.sources.records import person_record
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.systems import registry
from genhmr_jax.systems.regressors import objective
from genhmr_jax.systems.regressors.heads import Body
from genhmr_jax.systems.regressors.task import RegressorTask
from support.stored_rows import rows as made_up_rows

ROWS = 4


def random_body(seed: int, rows: int = ROWS) -> Body:
    rng = np.random.default_rng(seed)
    turns = rng.normal(0, 0.3, (rows * 24, 3))
    turns[::24] += [np.pi, 0, 0]
    rotmats = Rotation.from_rotvec(turns).as_matrix().reshape(rows, 24, 3, 3)
    weak = np.column_stack([rng.uniform(0.7, 1, rows), rng.normal(0, 0.05, (rows, 2))])
    betas = rng.normal(0, 1, (rows, 10))
    return Body(*(jnp.asarray(x, jnp.float32) for x in (rotmats, betas, weak)))


@pytest.fixture
def answering(monkeypatch):
    """A task of a config whose network gives fixed bodies: its losses, without waiting for a
    network to compile."""

    def make(config) -> tuple[RegressorTask, Body]:
        task, body = registry.make_task(config), random_body(5)
        monkeypatch.setattr(task, "bodies", lambda *_: body)
        return task, body

    return make


def loss_of(task: RegressorTask, rows: Rows) -> tuple:
    """Loss and its parts, of a task that needs no parameters."""
    return jax.jit(lambda frozen, batch: task.loss({}, {}, frozen, task.prepare(frozen, batch)))(
        task.frozen, {"images": rows}
    )


def batch_of(**changes) -> Rows:
    """Rows of photos: some labels are missing."""
    ones, rng = np.ones(ROWS, np.float32), np.random.default_rng(1)
    known = {field.name: ones.copy() for field in dataclasses.fields(Known)}
    known["rotation"][2] = known["betas"][3] = known["joints3d"][0] = 0
    joints_confidence = np.ones((ROWS, 24), np.float32)
    joints_confidence[1, [0, 7]] = 0  # no pelvis: compared from the hips
    rows = dataclasses.replace(
        made_up_rows(ROWS, 3),
        number=np.arange(ROWS, dtype=np.uint32),
        known=Known(**known),
        joints_confidence=joints_confidence,
        points2d_confidence=rng.uniform(0, 1, (ROWS, len(DETECTED))).astype(np.float32),
        exact=ones,
    )
    return dataclasses.replace(rows, **changes)


@functools.cache
def body_model() -> smpl_jax.SmplModel:
    return keypoint_model(load_body("neutral"))


@jax.jit
def points_of(model: smpl_jax.SmplModel, body: Body) -> tuple:
    """Joints and keypoints, metres."""
    output = smpl_jax.forward(model, body.betas, body.rotmats)
    return output.joints, keypoint_points(model, output, DETECTED)


def published_sums(body: Body, rows: Rows, loose: dict | None) -> dict[str, float]:
    """The terms as published, in float64, element by element: sums over the batch. `loose`:
    points2d, angles, weight."""
    joints, points = (np.asarray(x, np.float64) for x in points_of(body_model(), body))
    rotmats, betas, weak = (
        np.asarray(x, np.float64) for x in (body.rotmats, body.betas, body.weak_camera)
    )
    crop, known = rows.view.crop, rows.known
    sums = dict.fromkeys(("joints3d", "joints2d", "orient", "pose", "betas"), 0.0)
    for i in range(ROWS):
        exact = loose is None or rows.exact[i] > 0
        root = [0] if rows.joints_confidence[i, 0] else [1, 2]
        for j in range(24):
            gap = (joints[i, j] - joints[i, root].mean(0)) - (
                rows.joints[i, j] - rows.joints[i, root].mean(0)
            )
            if known.joints3d[i] and exact:
                sums["joints3d"] += rows.joints_confidence[i, j] * np.abs(gap).sum()
            if known.rotation[i]:
                label = Rotation.from_matrix(rows.rotmats[i, j])
                between = Rotation.from_matrix(rotmats[i, j]).inv() * label
                small = loose is not None and not exact and between.magnitude() < loose["angles"][j]
                scale = loose["weight"] if small else 1.0
                sums["orient" if j == 0 else "pose"] += (
                    scale * ((rotmats[i, j] - rows.rotmats[i, j]) ** 2).sum()
                )
        s, tx, ty = weak[i]
        for k in range(len(DETECTED)):
            x, y, z = points[i, k] + [tx, ty, 2 * 5000 / (256 * s)]
            projected = np.array([x / z, y / z]) * 5000 / 256
            wanted = (rows.points2d[i, k] - crop[i, :2]) / crop[i, 2]
            confidence = rows.points2d_confidence[i, k]
            error = confidence * ((projected - wanted) ** 2).sum()
            small = loose is not None and error < loose["points2d"][k] ** 2
            scale = loose["weight"] if small else 1.0
            sums["joints2d"] += scale * confidence * np.abs(projected - wanted).sum()
        sums["betas"] += exact * known.betas[i] * ((betas[i] - rows.betas[i]) ** 2).sum()
    return sums


def photos(config):
    """The config for rows of photos, as the tiny ones are, of four rows."""
    assert config.data.mixture == "rendered" and config.image_batch_size == ROWS
    return config


def test_the_loss_is_the_published_sum_over_the_rows(get_config, answering):
    config = photos(get_config("regressors/tiny"))
    task, body = answering(config)
    rows = batch_of(exact=np.zeros(ROWS, np.float32))  # HMR2.0 does not use it
    total, found = loss_of(task, rows)
    wanted = published_sums(body, rows, None)
    for name, value in wanted.items():
        np.testing.assert_allclose(ROWS * found["terms"][name], value, rtol=1e-4, err_msg=name)
    weights = {
        "joints3d": 0.05 * 44 / 24,
        "joints2d": 0.01 * 44 / 23,
        "orient": 0.001,
        "pose": 0.001,
        "betas": 0.0005,
    }
    np.testing.assert_allclose(
        ROWS * total, sum(weights[name] * value for name, value in wanted.items()), rtol=1e-4
    )


def test_tokenhmr_follows_labels_loosely(get_config, answering):
    """Small errors weigh 0.05: of keypoints in all rows, of rotations where the body was only
    fitted.

    There 3D joints and shape do not count.
    """
    config = photos(get_config("regressors/tiny_tokenhmr"))
    task, body = answering(config)
    rows = batch_of(exact=np.array([1, 0, 0, 1], np.float32))
    near = rows.rotmats.copy()
    # Half of the joints are below any threshold.
    near[:2, ::2] = body.rotmats[:2, ::2] @ Rotation.from_rotvec([0.1, 0, 0]).as_matrix()
    rows = dataclasses.replace(rows, rotmats=near)
    _, found = loss_of(task, rows)
    loose = {
        "points2d": config.loss.loose.points2d,
        "angles": config.loss.loose.angles,
        "weight": 0.05,
    }
    wanted = published_sums(body, rows, loose)
    for name, value in wanted.items():
        np.testing.assert_allclose(ROWS * found["terms"][name], value, rtol=1e-4, err_msg=name)
    strict = published_sums(body, rows, loose | {"weight": 1.0})
    assert (
        wanted["pose"] < strict["pose"]
        and wanted["joints2d"] < strict["joints2d"]
        and loose["angles"][0] == 0.46
    )


def test_missing_labels_have_no_influence(get_config, answering):
    task, _ = answering(photos(get_config("regressors/tiny")))
    rows, random, last = batch_of(), np.random.default_rng(2), np.float32([0, 0, 1, 1])
    known = dataclasses.replace(rows.known, rotation=last, betas=last, joints3d=last, joints2d=last)
    rows = dataclasses.replace(
        rows, known=known, points2d_confidence=rows.points2d_confidence * last[:, None]
    )
    garbage = {name: getattr(rows, name).copy() for name in ("betas", "joints", "points2d")}
    for value in garbage.values():
        value[:2] = random.normal(0, 9, value[:2].shape)
    one, other = loss_of(task, rows), loss_of(task, dataclasses.replace(rows, **garbage))
    assert one[0] > 0 and one[1]["terms"]["pose"] > 0
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_crop_camera_is_that_of_recover_without_perspective():
    """Under a long lens both cameras project to the same pixels: so a camera learned here is the
    camera that recover uses."""
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.5, (3, 23, 3)).astype(np.float32)
    weak = np.float32([[0.9, 0.1, 0], [0.7, 0, -0.2], [1.2, 0, 0]])
    crop, centre = np.float32([[300, 200, 128]] * 3), np.float32([[320, 240]] * 3)
    view = CropCamera(crop, np.full(3, 5000 / 256 * 128 * 100, np.float32), centre)
    pixels = view.project(jnp.asarray(points) + view.translation(weak)[:, None])
    distant = view.to_crop(pixels) / 2
    near = objective.in_crop(jnp.asarray(points), jnp.asarray(weak))
    assert np.abs(near - distant).max() < 0.02
    assert np.abs(distant).max() > 0.5


def test_which_bodies_are_exact(get_config):
    """Of a mixture, by the names of its datasets; the same rows otherwise."""
    picture, keypoints = io.BytesIO(), np.random.default_rng(0).uniform(10, 50, (44, 3))
    Image.new("RGB", (64, 64), (90, 120, 150)).save(picture, "JPEG")
    record = person_record(
        "test",
        image=picture.getvalue(),
        image_name="a.jpg",
        image_size=(64, 64),
        box=np.array([10.0, 10, 50, 50]),
        keypoints2d=keypoints,
    )
    names = ("bedlam", "hmr2_coco")
    parts = [mixtures.Dataset(name, [record]) for name in names]
    exact = get_config("regressors/tiny").loss.loose.exact
    assert names[0] in exact and names[1] not in exact
    source = people.PeopleSource(parts, 4, 0, body_model(), exact=exact)
    plain = people.PeopleSource(parts, 4, 0, body_model())
    found, which = source.load(np.arange(8)), source.draw(np.arange(8))[0]
    assert set(which.tolist()) == {0, 1}
    assert found.exact.tolist() == (which == 0).tolist() and found.number.tolist() == [*range(8)]
    others = dataclasses.replace(found, exact=None)
    jax.tree.map(np.testing.assert_array_equal, others, plain.load(np.arange(8)))
    assert source.size == 4 and source.shapes().exact.dtype == np.float32
    assert plain.shapes().exact is None
