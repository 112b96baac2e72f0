"""Training samples of hands (labels in the axes of the network, masks), and a training."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import smpl_jax

from genhmr_jax.core.inputs import upright
from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.data.hands import views
from genhmr_jax.data.poses import load_corpus
from genhmr_jax.geometry.hand import hand_keypoint_model, hand_keypoints, load_hand
from genhmr_jax.geometry.hand_crop import upright_region
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta
from genhmr_jax.systems import registry
from genhmr_jax.systems.maskhand import samples as making
from genhmr_jax.train import loop


@pytest.fixture(scope="module")
def hand():
    return hand_keypoint_model(load_hand())


@pytest.fixture(scope="module")
def rows(hand):
    poses = load_corpus("made-up", "train", joints=16).poses[:6]
    numbers = np.arange(6, dtype=np.uint32)
    make = jax.jit(views.make_hand_views, static_argnames="spec")
    return make(hand, poses, numbers, jax.random.key(4), spec=views.HandViewSpec())


def test_labels_project_to_the_true_points(hand, rows):
    output = smpl_jax.forward(hand, rows.betas, rows.rotmats)
    points = hand_keypoints(hand, output) + rows.view.translation(rows.weak_camera)[:, None]
    np.testing.assert_allclose(rows.view.project(points), rows.points2d, atol=0.05)


def test_turned_labels_are_the_same_hand(hand, rows):
    """In the axes of the network, and back to those of the photo."""
    view = dataclasses.replace(rows.view, region=upright_region(rows.keypoints))
    turn, own = upright(dataclasses.replace(rows, view=view).inputs())
    labels = rows.turned(turn, own.view)
    output = smpl_jax.forward(hand, labels.betas, labels.rotmats)
    points = hand_keypoints(hand, output) + own.view.translation(labels.weak_camera)[:, None]
    np.testing.assert_allclose(own.view.project(points), labels.points2d, atol=0.05)
    found = view.weak_of_upright(labels.weak_camera, output.rest_joints[:, 0])
    np.testing.assert_allclose(found, rows.weak_camera, rtol=1e-3, atol=1e-4)


def test_the_noise_is_that_of_the_spec(hand):
    spec = views.HandViewSpec(jitter_low=0.01, jitter_high=0.01, finger=0.0, drop=0.5)
    points = np.random.default_rng(0).uniform(0, 100, (21, 2)).astype(np.float32)
    draw = jax.jit(jax.vmap(lambda key: views.detected(points, 100.0, key, spec)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    assert abs((found[..., 2] == 0).mean() - 0.5) < 0.03
    error = (found[..., :2] - points)[..., 0]
    tips = np.where(found[:, 4::4, 2] > 0, error[:, 4::4], np.nan)
    assert 0.8 < np.nanstd(tips) / 1.2 < 1.2, "1 % of the crop, and 1.2 times as much at tips"


def test_keypoints_with_large_errors_have_less_confidence(hand):
    spec = views.HandViewSpec(jitter_low=0.01, jitter_high=0.01, finger=0.3, drop=0.0)
    points = np.random.default_rng(0).uniform(0, 100, (21, 2)).astype(np.float32)
    draw = jax.jit(jax.vmap(lambda key: views.detected(points, 100.0, key, spec)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    error, sure = np.abs(found[..., :2] - points).mean(-1), found[..., 2]
    assert np.median(error[sure < 0.5]) > 4 * np.median(error[sure > 0.8])
    assert (error[sure > 0.8] > 4).mean() > 0.01, "some large errors are not noticed"


@pytest.fixture(scope="module")
def trained(maskhand_config, tmp_path_factory):
    """A config, and the workdir of its training over an untrained tokenizer."""
    folder = tmp_path_factory.mktemp("maskhand")
    loop.train(registry.make_task(maskhand_config), maskhand_config, folder)
    return maskhand_config, folder


@pytest.mark.slow
def test_it_learns_and_exports(trained):
    _, folder = trained
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    meta = load_meta(folder / "model")
    names = {f"val_t{t}_{error}_mm" for t in (1, 3, 5) for error in ("mpjpe", "pa_mpjpe")}
    assert names <= set(meta["measured"])
    assert registry.system_of(meta, folder, "hands").kind == "maskhand"
    with pytest.raises(InputError, match="use `genhmr hands`"):
        registry.system_of(meta, folder)


@pytest.mark.slow
def test_masked_tokens_alone_count(trained):
    config, _ = trained
    task = registry.make_task(config)
    batch = {
        name: source.load(np.arange(config.batch_size)) for name, source in task.sources().items()
    }
    sample = jax.jit(task.prepare)(task.frozen, batch)["views"]
    codes, masked = task.spec.tokenizer.codebook_size, jax.device_get(sample.masked)
    plain = masked.mask & ~masked.unroll[:, None]  # other rows continue from guesses
    assert (masked.visible[plain] == codes).all()
    assert (masked.token_weight[~masked.mask] == 0).all()
    np.testing.assert_allclose(np.sum(masked.token_weight), 1.0, rtol=1e-5)
    assert isinstance(sample, making.Sample) and sample.rotmats.shape[1:] == (16, 3, 3)


def test_a_tokenizer_of_bodies_is_refused(maskhand_config, tmp_path):
    config = maskhand_config.copy_and_resolve_references()
    config.tokenizer = str(tmp_path)
    meta = {"kind": "tokenizer", "tokenizer": dataclasses.asdict(TokenizerSpec())}
    (tmp_path / "config.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="is of a body, not of a hand"):
        registry.make_task(config)
