"""Both stages end to end on a tiny corpus: they learn, resume exactly, refuse other configs and stop on NaN."""

import functools
import json

import jax
import numpy as np
import pytest

from genhmr_jax.errors import InputError
from genhmr_jax.model_files import load_meta, load_params
from genhmr_jax.train import loop
from genhmr_jax.train.stage1 import TokenizerTask
from genhmr_jax.train.stage2 import GenHmrTask, random_mask


@pytest.fixture(scope="module")
def tokenizer_config(get_config, corpus_file):
    config = get_config("tokenizer:tiny")
    config.data.poses = str(corpus_file)
    return config


@pytest.fixture(scope="module")
def tokenizer(tokenizer_config, tmp_path_factory):
    """A tiny trained tokenizer: (workdir, task)."""
    workdir = tmp_path_factory.mktemp("tokenizer")
    task = TokenizerTask(tokenizer_config)
    loop.train(task, tokenizer_config, workdir)
    return workdir, task


@pytest.fixture(scope="module")
def genhmr_config(get_config, corpus_file, tokenizer):
    config = get_config("genhmr:tiny")
    config.data.poses, config.tokenizer = str(corpus_file), str(tokenizer[0] / "model")
    return config


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), a, b)


def test_tokenizer_learns_and_reports(tokenizer):
    logged = [r for r in rows(tokenizer[0]) if "loss" in r]
    assert logged[-1]["loss"] < logged[0]["loss"]
    measured = load_meta(tokenizer[0] / "model")["measured"]
    assert {"val_mpjpe_mm", "val_pa_mpjpe_mm", "val_angle_deg", "val_perplexity", "val_codes_used"} <= set(measured)


class Stopped(Exception):
    pass


class StopsAt:
    """A task whose machine dies before a given step."""

    def __init__(self, task, step):
        self.task, self.step = task, step

    def __getattr__(self, name):
        return getattr(self.task, name)

    def batch(self, step):
        if step == self.step:
            raise Stopped
        return self.task.batch(step)


@pytest.mark.parametrize("stage", ["tokenizer", "genhmr"])
def test_resumed_equals_unbroken(stage, tokenizer, tokenizer_config, genhmr_config, tmp_path):
    config = tokenizer_config if stage == "tokenizer" else genhmr_config
    task = tokenizer[1] if stage == "tokenizer" else GenHmrTask(config)
    loop.train(task, config, tmp_path / "whole")
    with pytest.raises(Stopped):
        loop.train(StopsAt(task, 14), config, tmp_path / "broken")
    loop.train(task, config, tmp_path / "broken")
    like = {"genhmr": task.networks.shapes["genhmr"]} | task.frozen if stage == "genhmr" else None
    if like is None:
        params, extra = task.init(jax.random.key(0))
        like = {"tokenizer": params, "codebook": {"vectors": extra["vectors"]}}
    same(load_params(tmp_path / "whole" / "model", like), load_params(tmp_path / "broken" / "model", like))
    last = lambda d: [r for r in rows(tmp_path / d) if "loss" in r][-1]["loss"]  # noqa: E731
    np.testing.assert_allclose(last("whole"), last("broken"), rtol=1e-5)


def test_other_config_is_refused(tokenizer, tokenizer_config):
    other = tokenizer_config.copy_and_resolve_references()
    other.model.width = 40
    with pytest.raises(InputError, match="another config.*model"):
        loop.train(TokenizerTask(other), other, tokenizer[0])


def test_not_a_number_stops_the_run(tokenizer, tokenizer_config, tmp_path):
    config = tokenizer_config.copy_and_resolve_references()
    config.loss.commit = float("nan")
    with pytest.raises(FloatingPointError, match="step 0"):
        loop.train(TokenizerTask(config), config, tmp_path)


def test_checkpoint_of_another_model_is_refused(tokenizer, genhmr_config):
    task = GenHmrTask(genhmr_config)
    with pytest.raises(InputError, match="does not fit its config"):
        load_params(tokenizer[0] / "model", {"genhmr": task.networks.shapes["genhmr"]} | task.frozen)
    config = genhmr_config.copy_and_resolve_references()
    config.tokenizer = "nowhere"
    with pytest.raises(InputError, match="no config.json"):
        GenHmrTask(config)


def test_random_mask_ratio():
    mask = np.asarray(random_mask(jax.random.key(0), 4000, 30, min_ratio=0.0, all_masked=0.0))
    assert mask.sum(-1).min() >= 1
    np.testing.assert_allclose(mask.mean(), 2 / np.pi, atol=0.03)  # the mean of cos(pi tau / 2) is 2 / pi
    np.testing.assert_allclose(mask.mean(0), mask.mean(), atol=0.04)  # every position alike
    assert random_mask(jax.random.key(0), 50, 30, min_ratio=0.5, all_masked=0.0).sum(-1).min() >= 15
    assert random_mask(jax.random.key(0), 50, 30, min_ratio=0.0, all_masked=1.0).min() == 1


@pytest.mark.parametrize("sampling", ["expected", "straight_through", "none"])
def test_gradients_reach_the_transformer(genhmr_config, sampling):
    config = genhmr_config.copy_and_resolve_references()
    config.loss.differentiable_sampling, config.loss.token = sampling, 0.0
    task = GenHmrTask(config)
    params, extra = task.init(jax.random.key(0))
    grads = jax.grad(lambda p: task.loss(p, extra, task.batch(0), jax.random.key(1))[0])(params)
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(grads["transformer"]))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert (largest > 0) == (sampling != "none")


def test_configs_build(get_config, corpus_file, tokenizer):
    for name in ("tokenizer", "tokenizer:gpu", "tokenizer:paper"):
        config = get_config(name)
        config.data.poses, config.batch_size = str(corpus_file), 4
        task = TokenizerTask(config)
        jax.eval_shape(
            functools.partial(task.loss, batch=task.batch(0), key=jax.random.key(0)), *jax.eval_shape(task.init, jax.random.key(0))
        )
    for name in ("genhmr", "genhmr:gpu"):
        config = get_config(name)
        config.data.poses, config.batch_size, config.tokenizer = str(corpus_file), 4, str(tokenizer[0] / "model")
        task = GenHmrTask(config)
        jax.eval_shape(
            functools.partial(task.loss, batch=task.batch(0), key=jax.random.key(0)), *jax.eval_shape(task.init, jax.random.key(0))
        )
