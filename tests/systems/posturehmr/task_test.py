"""The training of PostureHMR: sums over rows, steps, rollouts, the reverse process, the export."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.cli import aot
from genhmr_jax.core import mesh_fit
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_params
from genhmr_jax.systems import registry
from genhmr_jax.systems.posturehmr import posture, reverse
from genhmr_jax.systems.posturehmr.samples import truth2d
from genhmr_jax.train import loop
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.aot import infer
from genhmr_jax.train.validation import ROWS
from support.paths import ROOT


@pytest.fixture(scope="module")
def task(posturehmr_config):
    return registry.make_task(posturehmr_config)


@pytest.fixture(scope="module")
def sample(task):
    """A prepared batch."""
    batch = {name: source.load(np.arange(source.size)) for name, source in task.sources().items()}
    return jax.jit(task.prepare)(task.frozen, batch)


@pytest.fixture(scope="module")
def params(task):
    """Parameters whose velocity is not 0."""
    params, _ = task.init(jax.random.key(1))
    kernel = params["velocity"]["kernel"]
    noise = 0.05 * jax.random.normal(jax.random.key(2), kernel.shape)
    return params | {"velocity": params["velocity"] | {"kernel": kernel + noise}}


def test_the_loss_is_a_sum_over_rows(task, params, sample):
    loss = jax.jit(lambda s: task.loss(params, {}, task.frozen, s)[0])
    half = lambda first: jax.tree.map(lambda x: x[first::2], sample)
    total = float(loss(half(0))) + float(loss(half(1)))
    assert float(loss(sample)) == pytest.approx(total, rel=1e-5)


def test_the_draws_of_a_row_are_spread_over_all_steps(posturehmr_config):
    config = posturehmr_config.copy_and_resolve_references()
    keys = jax.random.split(jax.random.key(0), 400)
    few = registry.make_task(config)._draw(keys)
    number, rolled = np.asarray(few.number), np.asarray(few.rolled)
    assert number.shape == (400, 2) and 0.4 < rolled.mean() < 0.6
    assert (number[rolled, 0] == 0).all()
    assert (number[~rolled, 1] - number[~rolled, 0] == 5).all()
    assert np.bincount(number[~rolled].astype(int).ravel(), minlength=10).min() > 20
    config.training.steps_per_sample = 10
    whole = np.asarray(registry.make_task(config)._draw(keys).number)
    np.testing.assert_array_equal(whole, np.tile(np.arange(10), (400, 1)))


def test_labels_are_the_projected_body(task, sample):
    """The 2D mesh of the truth is on the keypoints of its own picture."""
    part = sample["views"]
    truth = truth2d(task.frozen["coarse"], part)
    keypoints = part.inputs.keypoints
    seen = np.asarray(part.inputs.view.to_crop(keypoints[..., :2]))
    sure = np.asarray(keypoints[..., 2]) > 0.6
    gap = np.linalg.norm(np.asarray(truth.points)[:, :17] - seen[:, :17], axis=-1)
    assert np.median(gap[sure[:, :17]]) < 0.08
    assert truth.vertices.shape == (8, 431, 2) and truth.points.shape == (8, 81, 2)


def test_the_process_reaches_the_person_with_the_true_velocity(task, sample):
    """The steps of the forward process, taken backwards, and any T on a straight line."""
    coarse, person = task.frozen["coarse"], sample["views"].person
    rows = len(sample["views"].weight)
    target = posture.posture(coarse.mesh, person, jnp.ones(rows))
    first = posture.start(task.spec, coarse.mesh, jax.random.split(jax.random.key(0), rows))
    states = lambda share: posture.posture(coarse.mesh, person, jnp.full(rows, share))
    exact = lambda mesh, share, *_: 10 * (states(share[0] + 0.1) - states(share[0]))
    whole = reverse.run(exact, first, None, None, None, 10)
    np.testing.assert_allclose(whole, target, atol=2e-5)
    straight = lambda mesh, share, *_: target - first
    for steps in (1, 3, 10):
        found = reverse.run(straight, first, None, None, None, jnp.asarray(steps))
        np.testing.assert_allclose(found, target, atol=2e-6)
    meshes = reverse.trace(exact, first, None, None, None, 10)
    assert meshes.shape == (11, rows, 431, 3)
    np.testing.assert_allclose(meshes[-1], whole, atol=1e-6)


def test_the_body_of_a_network_mesh(task, sample):
    """A mesh with errors of 1 cm gives the rotations to a few degrees, the joints to 5 mm."""
    coarse, person = task.frozen["coarse"], sample["views"].person
    mesh = posture.posture(coarse.mesh, person, jnp.ones(8))
    noisy = mesh + 0.01 * jax.random.normal(jax.random.key(3), mesh.shape)
    fit = jax.jit(lambda v: mesh_fit.fit_mesh(coarse.mesh, v, spec=mesh_fit.MeshFitSpec(10, 0.01)))
    found = fit(noisy)
    again = posture.posture(coarse.mesh, posture.Person(found.rotmats, found.betas), jnp.ones(8))
    gap = coarse.regressor @ (again - again.mean(1, keepdims=True))
    gap = gap - coarse.regressor @ (mesh - mesh.mean(1, keepdims=True))
    assert np.linalg.norm(gap, axis=-1).mean() < 5e-3


@pytest.mark.slow
def test_a_training_is_exported_and_recovers(posturehmr_config, tmp_path, sample):
    config = posturehmr_config.copy_and_resolve_references()
    config.steps = 2
    loop.train(registry.make_task(config), config, tmp_path)
    task = registry.make_task(config)
    params = load_params(tmp_path / "model", task.system.shapes)
    config.init = str(tmp_path / "model")
    again = registry.make_task(config).warm_start(task.init(jax.random.key(7))[0])
    jax.tree.map(np.testing.assert_array_equal, again, jax.tree.map(jnp.float32, params["decoder"]))
    inputs = sample["views"].inputs
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    solve = jax.jit(
        lambda p, i: task.system.sample(p, None, task.system.encode(p, i), keys, iterations=2)
    )
    latents = solve(params, inputs)
    assert latents.embeddings.shape == (8, 24, 6) and np.isfinite(latents.embeddings).all()
    assert (np.asarray(latents.weak_camera[:, 0]) > 0).all()
    traced = jax.jit(
        lambda p, i: task.system.trace(p, None, task.system.encode(p, i), keys, iterations=2)
    )(params, inputs)
    assert traced.embeddings.shape == (3, 8, 24, 6)
    last = jax.tree.map(lambda x: x[-1], traced)
    np.testing.assert_allclose(last.embeddings, latents.embeddings, atol=1e-4)
    np.testing.assert_allclose(last.weak_camera, latents.weak_camera, rtol=1e-4, atol=1e-5)
    measured = task._measure(params["decoder"], task.frozen, sample["views"], True)
    assert float(measured[ROWS]) == pytest.approx(1)
    assert set(measured) == {"mpjpe", "pa_mpjpe", "mpvpe", ROWS}


def test_the_inference_step_of_a_slice(get_config):
    """With parameters in bfloat16; shapes only."""
    config = get_config("posturehmr/tiny")
    task = registry.abstract_task(config, get_config("mesh2d/tiny"))
    made = infer.build(task, config, meshes.make_mesh(config.mesh, jax.devices()[:1]), 4)
    found = jax.eval_shape(made.step, *made.shapes)
    assert found.vertices.shape == (4, 6899, 3) and found.vertices.dtype == jnp.float32


def test_aot_finds_the_config_of_the_first_stage(monkeypatch):
    """By the field of the second stage's config; --first-stage replaces it."""
    parser, found = argparse.ArgumentParser(), []
    aot.add_flags(parser)

    def measure(config, under, *_, **__):
        found.append([first.stage for first in under])
        raise InputError("stop", "here", "")

    monkeypatch.setattr(aot, "measure", measure)
    for flags in ([], [f"--first-stage={ROOT}/configs/mesh2d/tiny.py"]):
        named = [f"--config={ROOT}/configs/posturehmr/tiny.py", "--topology=v5e:2x2", *flags]
        with pytest.raises(InputError, match="stop"):
            aot.run(parser.parse_args(named))
    assert found == [["mesh2d"], ["mesh2d"]]


def test_wrong_configs_are_refused(posturehmr_config, mesh2d_config, trained_tokenizer):
    config = posturehmr_config.copy_and_resolve_references()
    config.mesh2d = str(trained_tokenizer / "model")
    with pytest.raises(InputError, match="holds no 2D mesh stage; give the model folder"):
        registry.make_task(config)
    config = mesh2d_config.copy_and_resolve_references()
    config.image_batch_size = 8
    with pytest.raises(InputError, match="--config.data.images: is empty; give"):
        registry.make_task(config)
