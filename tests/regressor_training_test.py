"""Baselines that are trained here: the published losses, what stays frozen, where a training
starts, and what it leaves for recover."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation
from stored_rows import rows as made_up_rows

from genhmr_jax.cli import main
from genhmr_jax.cli.main import SAMPLE_PHOTO
from genhmr_jax.core.encoders import from_stored
from genhmr_jax.data import people
from genhmr_jax.data.augment import AugmentSpec
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.io import images
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params, save_params
from genhmr_jax.recover import photo
from genhmr_jax.recover.people import People
from genhmr_jax.systems import registry
from genhmr_jax.systems.regressors.heads import Body
from genhmr_jax.systems.regressors.system import RegressorNetworks
from genhmr_jax.systems.regressors.task import RegressorTask, Trusted, in_crop
from genhmr_jax.train import loop
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program as programs

ROWS = 4


def random_body(seed: int, rows: int = ROWS) -> Body:
    rng = np.random.default_rng(seed)
    turns = rng.normal(0, 0.3, (rows * 24, 3))
    turns[::24] += [np.pi, 0, 0]
    rotmats = Rotation.from_rotvec(turns).as_matrix().reshape(rows, 24, 3, 3)
    weak = np.column_stack([rng.uniform(0.7, 1, rows), rng.normal(0, 0.05, (rows, 2))])
    return Body(
        *(jnp.asarray(x, jnp.float32) for x in (rotmats, rng.normal(0, 1, (rows, 10)), weak))
    )


@pytest.fixture
def answering(monkeypatch):
    """A task of a config whose network gives fixed bodies: its losses, without waiting for a
    network to compile."""

    def make(config) -> tuple[RegressorTask, Body]:
        task, body = RegressorTask.from_models(config), random_body(5)
        monkeypatch.setattr(task, "bodies", lambda *_: body)
        return task, body

    return make


def loss_of(task: RegressorTask, rows: dict) -> tuple:
    """Loss and its parts, of a task that needs no parameters."""
    return jax.jit(lambda frozen, batch: task.loss({}, {}, frozen, task.prepare(frozen, batch)))(
        task.frozen, {"images": rows}
    )


def random_params(task: RegressorTask) -> dict:
    """Parameters as `init` makes them, of other numbers, without compiling."""
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0))
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.02, x.shape), x.dtype), shapes)


def batch_of(**changes) -> dict:
    """Rows of photos: some labels are missing."""
    rows = made_up_rows(ROWS, 3) | {"number": np.arange(ROWS, dtype=np.uint32)}
    rng = np.random.default_rng(1)
    rows |= {
        f"has_{name}": np.ones(ROWS, np.float32)
        for name in ("rotation", "betas", "camera", "joints3d", "joints2d")
    }
    rows |= {
        "joints_confidence": np.ones((ROWS, 24), np.float32),
        "exact": np.ones(ROWS, np.float32),
    }
    rows["points2d_confidence"] = rng.uniform(0, 1, (ROWS, len(DETECTED))).astype(np.float32)
    rows["joints_confidence"][1, [0, 7]] = 0  # no pelvis: compared from the hips
    rows["has_rotation"][2] = rows["has_betas"][3] = rows["has_joints3d"][0] = 0
    return rows | changes


def published_sums(body: Body, rows: dict, loose: dict | None) -> dict[str, float]:
    """The terms as published, in float64, element by element: sums over the batch. `loose`:
    points2d, angles, weight."""
    model = keypoint_model(load_body("neutral"))
    output = smpl_jax.forward(model, body.betas, body.rotmats)
    joints, points = (
        np.asarray(x, np.float64) for x in (output.joints, keypoint_points(model, output, DETECTED))
    )
    rotmats, betas, weak = (
        np.asarray(x, np.float64) for x in (body.rotmats, body.betas, body.weak_camera)
    )
    sums = dict.fromkeys(("joints3d", "joints2d", "orient", "pose", "betas"), 0.0)
    for i in range(ROWS):
        exact = loose is None or rows["exact"][i] > 0
        root = [0] if rows["joints_confidence"][i, 0] else [1, 2]
        for j in range(24):
            gap = (joints[i, j] - joints[i, root].mean(0)) - (
                rows["joints"][i, j] - rows["joints"][i, root].mean(0)
            )
            if rows["has_joints3d"][i] and exact:
                sums["joints3d"] += rows["joints_confidence"][i, j] * np.abs(gap).sum()
            if rows["has_rotation"][i]:
                between = Rotation.from_matrix(rotmats[i, j]).inv() * Rotation.from_matrix(
                    rows["rotmats"][i, j]
                )
                small = loose is not None and not exact and between.magnitude() < loose["angles"][j]
                scale = loose["weight"] if small else 1.0
                sums["orient" if j == 0 else "pose"] += (
                    scale * ((rotmats[i, j] - rows["rotmats"][i, j]) ** 2).sum()
                )
        s, tx, ty = weak[i]
        for k in range(len(DETECTED)):
            x, y, z = points[i, k] + [tx, ty, 2 * 5000 / (256 * s)]
            seen = np.array([x / z, y / z]) * 5000 / 256
            wanted = (rows["points2d"][i, k] - rows["crop"][i, :2]) / rows["crop"][i, 2]
            confidence = rows["points2d_confidence"][i, k]
            error = confidence * ((seen - wanted) ** 2).sum()
            small = loose is not None and error < loose["points2d"][k] ** 2
            scale = loose["weight"] if small else 1.0
            sums["joints2d"] += scale * confidence * np.abs(seen - wanted).sum()
        sums["betas"] += exact * rows["has_betas"][i] * ((betas[i] - rows["betas"][i]) ** 2).sum()
    return sums


def photos(config):
    """The config for rows of photos, as the tiny ones are, of four rows."""
    assert config.data.mixture == "rendered" and config.image_batch_size == ROWS
    return config


def test_the_loss_is_the_published_sum_over_the_rows(get_config, answering):
    config = photos(get_config("regressors/tiny"))
    task, body = answering(config)
    rows = batch_of(exact=np.zeros(ROWS, np.float32))  # which HMR2.0 does not ask for
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
    near = rows["rotmats"].copy()
    near[:2, ::2] = (
        body.rotmats[:2, ::2] @ Rotation.from_rotvec([0.1, 0, 0]).as_matrix()
    )  # half of the joints are below any threshold
    rows["rotmats"] = near
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
    rows, random = batch_of(), np.random.default_rng(2)
    without = {
        f"has_{name}": np.float32([0, 0, 1, 1])
        for name in ("rotation", "betas", "joints3d", "joints2d")
    }
    without["points2d_confidence"] = rows["points2d_confidence"] * without["has_joints2d"][:, None]
    garbage = {name: rows[name].copy() for name in ("betas", "joints", "points2d")}
    for value in garbage.values():
        value[:2] = random.normal(0, 9, value[:2].shape)
    one, other = loss_of(task, rows | without), loss_of(task, rows | without | garbage)
    assert one[0] > 0 and one[1]["terms"]["pose"] > 0
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_crop_camera_is_that_of_recover_without_perspective():
    """Under a long lens both cameras see the same: so a camera learned here is the camera that
    recover uses."""
    from genhmr_jax.geometry import camera

    rng = np.random.default_rng(0)
    points, weak = (
        rng.normal(0, 0.5, (3, 23, 3)).astype(np.float32),
        np.float32([[0.9, 0.1, 0], [0.7, 0, -0.2], [1.2, 0, 0]]),
    )
    crop, size, focal = (
        np.float32([[300, 200, 128]] * 3),
        np.float32([[640, 480]] * 3),
        np.full(3, 5000 / 256 * 128 * 100, np.float32),
    )
    translation = camera.weak_to_translation(*map(jnp.asarray, (weak, crop, size, focal)))
    far = camera.to_crop(camera.project(points + translation[:, None], focal, size / 2), crop) / 2
    assert np.abs(in_crop(jnp.asarray(points), jnp.asarray(weak)) - far).max() < 0.02
    assert np.abs(far).max() > 0.5


def test_which_bodies_are_exact(get_config):
    """Of a mixture, by the names of its datasets; the same rows otherwise."""

    class Two:
        size, datasets = 4, [people.Dataset("bedlam", []), people.Dataset("hmr2_coco", [])]

        def draw(self, numbers):
            return np.asarray(numbers) % 2, np.asarray(numbers)

        def load(self, numbers):
            return {"number": np.asarray(numbers)}

        def shapes(self):
            return {"number": jax.ShapeDtypeStruct((), np.uint32)}

    task = RegressorTask(get_config("regressors/tiny"))
    source = Trusted(Two(), task._exact(Two()))
    found = source.load(np.arange(4))
    assert (
        found["exact"].tolist() == [1, 0, 1, 0]
        and found["number"].tolist() == [0, 1, 2, 3]
        and source.size == 4
    )
    assert source.shapes()["exact"].dtype == np.float32


def test_recipes(get_config):
    """Batches have the shapes that are compiled for; the recipes name the published numbers."""
    hmr2, token = get_config("regressors/hmr2"), get_config("regressors/tokenhmr")
    assert (
        hmr2.image_batch_size,
        hmr2.optim.learning_rate,
        hmr2.optim.weight_decay,
        hmr2.steps,
    ) == (384, 1e-5, 1e-4, 1_000_000)
    assert (token.optim.learning_rate, token.loss.loose.weight, token.data.mixture) == (
        5e-6,
        0.05,
        "tokenhmr",
    )
    assert AugmentSpec(**hmr2.data.augment.to_dict()).occlude == 0
    assert get_config("regressors/hmr2:b").model.encoder == "vit_b"
    with pytest.raises(ValueError, match="choose among h, b"):
        get_config("regressors/hmr2:hmr3")
    task = RegressorTask.from_models(get_config("regressors/tiny"))
    batch = {"images": task.sources()["images"].load(np.arange(ROWS))}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
        lambda x: (x.shape, x.dtype), task.batch_shapes()
    )
    assert batch["images"]["exact"].tolist() == [1.0] * ROWS


@pytest.mark.parametrize("name", ["regressors/hmr2", "regressors/tokenhmr"])
def test_recipes_build(get_config, name):
    """Their step can be traced at its size; shapes only, without data and without a tokenizer."""
    config = get_config(name)
    config.data.images = "none"
    task = registry.abstract_task(config)
    program = programs.build(task, config, meshes.make_mesh(config.mesh))
    state, metrics = jax.eval_shape(program.step, program.state, program.batch, program.frozen)
    assert set(metrics["terms"]) == {"joints3d", "joints2d", "orient", "pose", "betas"}
    head = {
        "regressors/hmr2": 39_547_037,
        "regressors/tokenhmr": 39_547_037 - 144 * 1025 + 18 * 1025 + 10_870_080,
    }[name]
    mean = 144 + 10 + 3
    assert sum(x.size for x in jax.tree.leaves(state["params"])) == 630_912_000 + head + mean


@pytest.fixture(scope="module")
def trained(regressor_config, tmp_path_factory):
    """The workdir of a tiny HMR2.0 after four steps."""
    config, workdir = (
        regressor_config.copy_and_resolve_references(),
        tmp_path_factory.mktemp("hmr2"),
    )
    config.steps, config.evaluate_every, config.checkpoint_every, config.log_every = 4, 4, 2, 1
    loop.train(registry.make_task(config), config, workdir)
    return workdir


def test_a_training(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4 and np.isfinite(losses).all()
    meta = load_meta(trained / "model")
    assert meta["kind"] == "hmr2" and {"val_mpjpe_mm", "val_pa_mpjpe_mm"} == set(meta["measured"])
    assert 20 < meta["measured"]["val_pa_mpjpe_mm"] <= meta["measured"]["val_mpjpe_mm"] < 1000


@pytest.mark.slow
def test_what_it_trained_recovers_a_photo(trained, tmp_path, capsys):
    command = [
        "recover",
        str(SAMPLE_PHOTO),
        "--out",
        str(tmp_path),
        "--checkpoint",
        str(trained / "model"),
        "--no-overlay",
    ]
    assert main.main([*command, "--model", "hmr2"]) == 0
    found = People.load(tmp_path / "person.npz")
    assert len(found) == 1 and found.global_orient.shape == (1, 3)


def test_recover_loads_what_it_trained(trained, regressor_config, tmp_path, capsys):
    """With the answers that the training measured; and not as another model."""
    recoverer, task = (
        photo.load(trained / "model", model="hmr2"),
        registry.make_task(regressor_config),
    )
    pixels = made_up_rows(2, 0)["images"]
    encode = jax.jit(lambda params, images: recoverer.networks.encode(params, {"images": images}))
    encoded = encode(recoverer.params, from_stored({"images": pixels})["images"])
    body = jax.jit(task.bodies)(recoverer.params["genhmr"], task.frozen, {"images": pixels})
    np.testing.assert_allclose(encoded.weak_camera, body.weak_camera, atol=1e-6)
    np.testing.assert_allclose(
        recoverer.networks.decode({}, encoded.rot6d), body.rotmats, atol=1e-5
    )
    command = [
        "recover",
        str(SAMPLE_PHOTO),
        "--out",
        str(tmp_path),
        "--checkpoint",
        str(trained / "model"),
        "--model",
        "tokenhmr",
    ]
    assert main.main(command) == 1
    assert "is a hmr2 model, not tokenhmr" in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path, capsys):
    for command in (
        ["recover", str(SAMPLE_PHOTO), "--out", str(tmp_path)],
        ["eval", "--dataset=photos", f"--data-dir={SAMPLE_PHOTO.parent}"],
    ):
        assert main.main([*command, "--model", "hmr2"]) == 1
        assert (
            "--model hmr2: no checkpoint of it comes with the package; make one with `genhmr convert"
            in capsys.readouterr().err
        )
    assert (
        main.main(
            ["eval", "--dataset=photos", "--data-dir=.", "--model=hmr2", "--checkpoint=mean-pose"]
        )
        == 1
    )
    assert "--model hmr2: does not go with --checkpoint=mean-pose" in capsys.readouterr().err


def test_starting_from_a_trained_one(trained, regressor_config, tmp_path):
    """All arrays are taken over; the mean body stays, whatever the optimiser does."""
    config = regressor_config.copy_and_resolve_references()
    config.init = str(trained / "model")
    task = registry.make_task(config)
    params = task.warm_start(random_params(task))
    stored = load_params(trained / "model", RegressorNetworks.of(task.spec).shapes)["genhmr"]
    jax.tree.map(np.testing.assert_array_equal, params, stored)
    np.testing.assert_allclose(params["head"]["mean"]["pose"], task._mean_pose(), atol=1e-6)
    config.model.layout = "rows"
    with pytest.raises(
        InputError, match="has 6D rotations as columns; give --config.model.layout=columns"
    ):
        registry.make_task(config)
    save_params(tmp_path / "tokenizer", {"x": np.zeros(1)}, {"kind": "tokenizer"})
    config.init = str(tmp_path / "tokenizer")
    with pytest.raises(InputError, match="has no image encoder"):
        registry.make_task(config)


def test_tokenhmr_needs_a_tokenizer(get_config, trained):
    config = get_config("regressors/tokenhmr")
    with pytest.raises(InputError, match="--config.tokenizer: is not given.*genhmr convert"):
        RegressorTask.from_models(config)
    config.tokenizer = str(trained / "model")
    with pytest.raises(InputError, match="is a 'hmr2' model and holds no TokenHMR tokenizer"):
        RegressorTask.from_models(config)


@pytest.fixture(scope="module")
def tokenhmr(regressor_config, get_config, trained, tmp_path_factory):
    """Two tasks: over a random tokenizer; over that of the first one's export, starting from an
    HMR2.0. And the first one's parameters."""
    config, folder = get_config("regressors/tiny_tokenhmr"), tmp_path_factory.mktemp("tokenhmr")
    config.data.images, config.data.mixture, config.data.people_val = (
        regressor_config.data.images,
        "tokenhmr",
        "",
    )
    first = RegressorTask.from_models(config)
    params = random_params(first)
    params["head"]["mean"] = {
        "pose": first._mean_pose(),
        "betas": jnp.zeros(10),
        "camera": jnp.array([0.9, 0.0, 0.0]),
    }
    first.terms = ["research only"]
    first.export(folder, params, {}, {})
    config.tokenizer, config.init = str(folder), str(trained / "model")
    return first, RegressorTask.from_models(config), params


def test_tokenhmr_stands_on_a_frozen_tokenizer(tokenhmr, tmp_path):
    """Decoder, codebook and terms are those of the folder, before and after."""
    first, task, params = tokenhmr
    jax.tree.map(np.testing.assert_array_equal, task.frozen["tokenizer"], first.frozen["tokenizer"])
    np.testing.assert_array_equal(task.frozen["codebook"], first.frozen["codebook"])
    started = task.warm_start(params)
    np.testing.assert_array_equal(
        started["head"]["mean"]["pose"], params["head"]["mean"]["pose"]
    )  # HMR2's is in another layout
    kernel = lambda tree: tree["encoder"]["blocks"]["qkv"]["kernel"]
    assert np.abs(kernel(started) - kernel(params)).max() > 0
    task.export(tmp_path, started, {}, {})
    assert load_meta(tmp_path)["terms"] == "research only"
    model = load_params(tmp_path, RegressorNetworks.of(task.spec).shapes)["genhmr"]
    jax.tree.map(np.testing.assert_array_equal, model["head"]["tokens"], first.frozen["tokenizer"])
    np.testing.assert_array_equal(model["head"]["codebook"], first.frozen["codebook"])


@pytest.mark.slow
def test_tokenhmr_learns_through_its_tokens(tokenhmr):
    _, task, params = tokenhmr
    sample = jax.jit(task.prepare)(
        task.frozen, {"images": task.sources()["images"].load(np.arange(ROWS))}
    )
    grads = jax.jit(jax.grad(lambda p: task.loss(p, {}, task.frozen, sample)[0]))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert (
        np.abs(grads["head"]["classifier"]["classes"]["kernel"]).max() > 0
        and np.abs(grads["encoder"]["patch"]["kernel"]).max() > 0
    )
    assert not any(np.abs(g).max() > 0 for g in jax.tree.leaves(grads["head"]["mean"]))


@pytest.mark.slow
def test_tokenhmr_recovers_and_refines(tokenhmr):
    """Refinement moves its 24 rotations, as it does HMR2.0's."""
    _, task, _ = tokenhmr
    recoverer, image = (
        photo.load(task.config.tokenizer, model="tokenhmr"),
        images.read_image(SAMPLE_PHOTO),
    )
    plain = recoverer.recover(image)
    refined = recoverer.recover(image, options=photo.RecoverOptions(refine_steps=60))
    assert refined.reprojection_error()[0] < 0.8 * plain.reprojection_error()[0]
