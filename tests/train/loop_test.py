"""Both stages end to end on a tiny corpus: they learn, resume exactly, survive a damaged
checkpoint, refuse other configs, stop on NaN."""

import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.data.rows import Known
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params, read_arrays
from genhmr_jax.systems import registry
from genhmr_jax.systems.genhmr.samples import Sample
from genhmr_jax.systems.tokenizer.task import TokenizerTask
from genhmr_jax.train import loop
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program as programs
from genhmr_jax.train import step as steps


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses_of(workdir):
    """{step: loss}, of the last time that the step was computed."""
    return {r["step"]: r["loss"] for r in rows(workdir) if "loss" in r}


def test_tokenizer_learns_and_reports(trained_tokenizer):
    logged = list(losses_of(trained_tokenizer).values())
    assert logged[-1] < logged[0]
    measured = load_meta(trained_tokenizer / "model")["measured"]
    assert {
        "val_mpjpe_mm",
        "val_pa_mpjpe_mm",
        "val_angle_deg",
        "val_perplexity",
        "val_codes_used",
    } <= set(measured)
    line = [r for r in rows(trained_tokenizer) if "loss" in r][-1]
    assert {"grad_norm", "rotation", "perplexity", "codes_used", "samples_per_s", "step_ms"} <= set(
        line
    )


class Broken(Exception):
    pass


class BreaksAt:
    """A task whose machine dies when a given step's batch is to be loaded."""

    def __init__(self, task, step):
        self.task, self.step = task, step

    def __getattr__(self, name):
        return getattr(self.task, name)

    def sources(self):
        return {
            name: BrokenSource(source, self.step) for name, source in self.task.sources().items()
        }


class BrokenSource:
    def __init__(self, source, step):
        self.source, self.size, self.step = source, source.size, step

    def load(self, numbers):
        if numbers[0] >= self.step * self.size:
            raise Broken
        return self.source.load(numbers)


@pytest.mark.parametrize(
    "stage",
    [
        "tokenizer",
        *(
            pytest.param(stage, marks=pytest.mark.slow)
            for stage in ("genhmr", "regressor", "mesh2d", "posturehmr", "maskhand", "neurik")
        ),
    ],
)
def test_resumed_equals_unbroken(stage, request, tmp_path, caplog):
    config = request.getfixturevalue(f"{stage}_config").copy_and_resolve_references()
    config.log_every = 1
    task, whole = registry.make_task(config), tmp_path / "whole"
    if stage == "tokenizer":
        whole = request.getfixturevalue("trained_tokenizer")
    else:
        loop.train(task, config, whole)
    with pytest.raises(Broken):
        loop.train(BreaksAt(task, 14), config, tmp_path / "broken")
    loop.train(task, config, tmp_path / "broken")
    assert losses_of(whole) == losses_of(tmp_path / "broken")
    assert len(losses_of(whole)) == config.steps
    assert {"event": "resumed", "step": 10} in rows(tmp_path / "broken")
    models = (read_arrays(workdir / "model") for workdir in (whole, tmp_path / "broken"))
    jax.tree.map(np.testing.assert_array_equal, *models)

    # The last checkpoint is damaged: the one before it is used, with a warning, and the run ends
    # where it ended.
    for file in (tmp_path / "broken" / "checkpoints" / "20" / "state").glob("**/d/*"):
        file.write_bytes(b"damaged")
    (tmp_path / "broken" / "metrics.jsonl").unlink()
    with caplog.at_level(logging.WARNING):
        loop.train(task, config, tmp_path / "broken")
    assert "checkpoint 20 cannot be read" in caplog.text
    assert losses_of(tmp_path / "broken") == {k: v for k, v in losses_of(whole).items() if k > 10}
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "10")
    for file in (tmp_path / "broken" / "checkpoints" / "20" / "state").glob("**/d/*"):
        file.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"none of the checkpoints \[20\] can be read"):
        loop.train(task, config, tmp_path / "broken")


def test_other_config_is_refused(trained_tokenizer, tokenizer_config):
    other = tokenizer_config.copy_and_resolve_references()
    other.model.width = 40
    with pytest.raises(InputError, match="another config.*model"):
        loop.train(TokenizerTask(other), other, trained_tokenizer)
    with pytest.raises(InputError, match="holds no checkpoints"):
        loop.evaluate(TokenizerTask(other), other, trained_tokenizer / "model")


@pytest.mark.slow
def test_not_a_number_stops_the_run(tokenizer_config, tmp_path):
    """The step and the term at fault are named; what was saved before stays."""
    config = tokenizer_config.copy_and_resolve_references()
    config.checkpoint_every = 2
    task = TokenizerTask(config)

    def spoilt(params, extra, frozen, sample):
        sample, numbers = sample
        loss, found = TokenizerTask.loss(task, params, extra, frozen, sample)
        factor = jnp.where(numbers[0] >= 5 * config.batch_size, jnp.inf, 1.0)
        terms = found["terms"] | {"commit": found["terms"]["commit"] * factor}
        return loss * factor, found | {"terms": terms}

    def prepare(frozen, batch):
        return TokenizerTask.prepare(task, frozen, batch), batch["poses"].number

    task.loss, task.prepare = spoilt, prepare
    with pytest.raises(FloatingPointError, match="step 6: loss is inf.*commit is inf"):
        loop.train(task, config, tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]


def test_checkpoint_of_another_model_is_refused(trained_tokenizer, genhmr_config):
    with pytest.raises(InputError, match="does not fit its config"):
        load_params(trained_tokenizer / "model", registry.make_task(genhmr_config).system.shapes)
    config = genhmr_config.copy_and_resolve_references()
    config.tokenizer = "nowhere"
    with pytest.raises(InputError, match="no config.json"):
        registry.make_task(config)


def numpy_batch(task):
    return {name: source.load(np.arange(source.size)) for name, source in task.sources().items()}


@pytest.fixture(scope="module")
def prepared(genhmr_config):
    """A task of stage 2, new parameters, and the samples of its first batch."""
    task = registry.make_task(genhmr_config)
    params, _ = jax.jit(task.init)(jax.random.key(0))
    return task, params, jax.jit(task.prepare)(task.frozen, numpy_batch(task))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["expected", "straight_through", "none"])
def test_gradients_reach_the_transformer(genhmr_config, prepared, sampling):
    config = genhmr_config.copy_and_resolve_references()
    config.loss.differentiable_sampling, config.loss.token = sampling, 0.0
    task, (_, params, samples) = registry.make_task(config), prepared
    loss = lambda params, frozen: task.loss(params, {}, frozen, samples)[0]
    grads = jax.jit(jax.grad(loss))(params, task.frozen)
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(grads["transformer"]))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert (largest > 0) == (sampling != "none")


@pytest.mark.slow
def test_rows_without_a_label_do_not_count(prepared):
    """A term of a batch in which half the rows lack its label is the term of the other half."""
    task, params, samples = prepared
    rows = samples["views"].rows
    keys = jax.vmap(lambda n: jax.random.split(jax.random.key(n), 6))(
        jnp.arange(16, dtype=jnp.uint32)
    )
    has = (jnp.arange(16) < 8).astype(jnp.float32)

    @jax.jit
    def terms(rows, keys):
        sample = Sample(rows, task._maker._targets(task.frozen, rows, keys))
        return task.objective.terms(params, task.frozen, sample)[0]

    found = terms(dataclasses.replace(rows, known=Known(has, has, has, has, has)), keys)
    wanted = terms(jax.tree.map(lambda x: x[:8], rows), keys[:8])
    names = {"token", "betas", "camera", "rotation", "joints3d", "joints2d", "score"}
    assert set(wanted) == names
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_bfloat16_step_keeps_float32_parameters(genhmr_config, prepared):
    config = genhmr_config.copy_and_resolve_references()
    config.precision = "bfloat16"
    task = registry.make_task(config)
    program = programs.build(task, config, meshes.make_mesh(config.mesh))
    state, batch = program.init(), numpy_batch(task)
    before = jax.device_get(state["params"])
    state, metrics = program.step(state, batch, program.place_frozen())
    after, _ = program.step(state, batch, program.place_frozen())  # the first step's rate is 0
    kinds = {
        str(x.dtype) for x in jax.tree.leaves((after["params"], after["ema"], after["opt_state"]))
    }
    assert kinds == {"float32", "int32"}
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after["params"]), strict=True)
    )
    exact, _ = jax.jit(steps.value_and_grad(task, genhmr_config))(
        before, {}, task.frozen, prepared[2]
    )
    np.testing.assert_allclose(metrics["loss"], exact[0], rtol=0.02)
    config.precision = "float8"
    with pytest.raises(InputError, match="'float8'; choose float32 or bfloat16"):
        steps.value_and_grad(task, config)


def test_batch_shapes_are_those_of_the_sources(tokenizer_config, genhmr_config):
    for config in (tokenizer_config, genhmr_config):
        task = registry.make_task(config)
        found = jax.tree.map(lambda x: (x.shape, x.dtype), numpy_batch(task))
        assert found == jax.tree.map(lambda x: (x.shape, x.dtype), task.batch_shapes())


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer/paper",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "mesh2d/paper",
                "tokenizer/body_parts",
                "genhmr/keypoints",
                "posturehmr/paper",
                "maskhand/cpu",
                "maskhand/paper:b",
                "neurik/paper",
                "tokenizer/body_parts_long",
                "genhmr/keypoints_large",
                "genhmr/keypoints_and_blazepose_maps",
                "genhmr/vit:b",
                "hand_tokenizer/cpu",
                "hand_tokenizer/paper",
            )
        ),
    ],
)
def test_configs_build(get_config, name):
    """Their step can be traced; shapes only, without data."""
    config = get_config(name)
    if config.batch_size:
        config.batch_size = 4
    if config.image_batch_size if "image_batch_size" in config else 0:
        config.image_batch_size = 4
    others = {"posturehmr": "mesh2d/paper", "maskhand": "hand_tokenizer/paper"}
    under = others.get(name.partition("/")[0], "tokenizer/body_parts")
    task = registry.abstract_task(config, get_config(under))
    program = programs.build(task, config, meshes.make_mesh(config.mesh))
    jax.eval_shape(program.step, program.state, program.batch, program.frozen)
    assert program.model_flops() > 0


def test_unknown_stage(get_config):
    config = get_config("tokenizer/tiny")
    config.stage = "three"
    with pytest.raises(InputError, match="config.stage: is 'three'; it must be one of") as raised:
        registry.make_task(config)
    assert all(
        stage in str(raised.value) for stage in ("tokenizer", "genhmr", "regressor", "lifter")
    )
