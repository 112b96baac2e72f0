"""Baselines that are trained here: what stays frozen, where a training starts, and what it leaves
for recover. Their losses are in regressor_losses_test.py."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.cli.main import SAMPLE_PHOTO
from genhmr_jax.data.augment import AugmentSpec
from genhmr_jax.io import images
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params, save_params
from genhmr_jax.recover import photo
from genhmr_jax.recover.people import People
from genhmr_jax.systems import registry
from genhmr_jax.systems.regressors.task import RegressorTask
from genhmr_jax.train import loop
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program as programs
from support.stored_rows import rows as made_up_rows

ROWS = 4


def random_params(task: RegressorTask) -> dict:
    """Parameters as `init` makes them, of other numbers, without compiling."""
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0))
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.02, x.shape), x.dtype), shapes)


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
    task = registry.make_task(get_config("regressors/tiny"))
    batch = {"images": task.sources()["images"].load(np.arange(ROWS))}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
        lambda x: (x.shape, x.dtype), task.batch_shapes()
    )
    assert batch["images"].exact.tolist() == [1.0] * ROWS


@pytest.mark.parametrize(
    "name", ["regressors/hmr2", pytest.param("regressors/tokenhmr", marks=pytest.mark.slow)]
)
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
    rows, system = made_up_rows(2, 0), recoverer.system
    encoded = jax.jit(system.encode)(recoverer.params, rows.inputs())
    body = jax.jit(task.bodies)(recoverer.params["genhmr"], task.frozen, rows.images)
    np.testing.assert_allclose(encoded.weak_camera, body.weak_camera, atol=1e-6)
    rotmats = system.pose({}, rows.view)(encoded.embeddings)
    np.testing.assert_allclose(rotmats, body.rotmats, atol=1e-5)
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
        problem = "--model hmr2: no checkpoint of it comes with the package"
        assert f"{problem}; make one with `genhmr convert" in capsys.readouterr().err
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
    stored = load_params(trained / "model", task.system.shapes)["genhmr"]
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


@pytest.mark.slow
def test_a_model_folder_is_evaluated_without_a_run(trained, regressor_config, tmp_path):
    """As its training evaluated it, but for the rounding of stored weights; nothing is written."""
    config = regressor_config.copy_and_resolve_references()
    config.init = str(trained / "model")
    found = loop.evaluate(registry.make_task(config), config, tmp_path / "none")
    wanted = load_meta(trained / "model")["measured"]
    assert found == pytest.approx(wanted, rel=2e-3)
    assert not (tmp_path / "none").exists()
    config.init = ""
    with pytest.raises(InputError, match="holds no checkpoints; give the --workdir.*config.init"):
        loop.evaluate(registry.make_task(config), config, tmp_path / "none")


def test_tokenhmr_needs_a_tokenizer(get_config, trained):
    config = get_config("regressors/tokenhmr")
    with pytest.raises(InputError, match="--config.tokenizer: is not given.*genhmr convert"):
        registry.make_task(config)
    config.tokenizer = str(trained / "model")
    with pytest.raises(InputError, match="is a 'hmr2' model and holds no TokenHMR tokenizer"):
        registry.make_task(config)


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
    first = registry.make_task(config)
    params = random_params(first)
    params["head"]["mean"] = {
        "pose": first._mean_pose(),
        "betas": jnp.zeros(10),
        "camera": jnp.array([0.9, 0.0, 0.0]),
    }
    first.terms = ("research only",)
    first.export(folder, params, {}, {})
    config.tokenizer, config.init = str(folder), str(trained / "model")
    return first, registry.make_task(config), params


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
    model = load_params(tmp_path, task.system.shapes)["genhmr"]
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
    """Refinement moves its 24 rotations, as it does HMR2.0's.

    The untrained body is 150 px away, where the robust loss hardly pulls.
    """
    _, task, _ = tokenhmr
    recoverer, image = (
        photo.load(task.config.tokenizer, model="tokenhmr"),
        images.read_image(SAMPLE_PHOTO),
    )
    plain = recoverer.recover(image)
    refined = recoverer.recover(image, options=photo.RecoverOptions(refine_steps=10))
    assert refined.reprojection_error()[0] < 0.9 * plain.reprojection_error()[0]
