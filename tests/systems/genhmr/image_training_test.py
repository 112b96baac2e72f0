"""From rendered images to a training step that sees them: writing, detecting, encoding, training
from a model without images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.data import feature_set, features
from genhmr_jax.data.image_rows import ImageRows
from genhmr_jax.data.synthetic.write import read_shards, write_split
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.systems.genhmr import validation
from genhmr_jax.systems.genhmr.task import GenHmrTask, make_task
from genhmr_jax.systems.tokenizer.task import TokenizerTask
from genhmr_jax.train.mesh import Placement, make_mesh


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus_file):
    """Rendered images and their features, both splits."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        write_split(root / "images", split, 4, str(corpus_file), workers=1)
        features.compute(root / "images", root / "features", split, "blazepose_full")
    return root


def test_features_carry_the_labels_of_their_images(folder):
    stored = feature_set.FeatureSet(folder / "features" / "val")
    samples = list(read_shards(folder / "images" / "val"))
    assert 1 <= stored.size <= len(samples) == 4
    rows = stored.rows(np.arange(stored.size))
    assert [m.shape[1:] for m in rows.maps] == [(32, 32, 80), (16, 16, 136), (8, 8, 288)]
    truth = {s.betas.tobytes(): s for s in samples}
    for i in range(stored.size):
        sample = truth[rows.betas[i].tobytes()]
        np.testing.assert_allclose(rows.points2d[i], sample.keypoints[:, :2])
        np.testing.assert_allclose(rows.joints[i] + sample.translation, sample.joints, atol=1e-5)
        visible = (rows.keypoints[i][:, 2] > 0.5) & (sample.keypoints[:, 2] > 0)
        gap = rows.keypoints[i][visible, :2] - sample.keypoints[visible, :2]
        assert np.median(np.linalg.norm(gap, axis=-1)) < 0.1 * rows.view.crop[i, 2]


def test_feature_set_that_is_not_there(folder):
    with pytest.raises(InputError, match="no finished feature set"):
        feature_set.FeatureSet(folder)


@pytest.mark.slow
def test_training_with_images_starts_from_a_model_without(
    folder, get_config, corpus_file, tmp_path, monkeypatch
):
    first = get_config("tokenizer/tiny")
    first.data.poses = str(corpus_file)
    tokenizer = TokenizerTask(first)
    tokenizer.export(tmp_path / "tokenizer", *tokenizer.init(jax.random.key(0)), {})
    config = get_config("genhmr/tiny")
    config.data.poses, config.tokenizer = str(corpus_file), str(tmp_path / "tokenizer")
    plain = make_task(config)
    before, _ = plain.init(jax.random.key(1))
    plain.export(tmp_path / "plain", before, {}, {})

    config.model.encoder_channels, config.batch_size, config.image_batch_size = (80, 136, 288), 0, 4
    config.data.images, config.init = str(folder / "features"), str(tmp_path / "plain")
    task = make_task(config)
    params, extra = task.init(jax.random.key(2))
    params = task.warm_start(params)
    taken, given = (
        params["correction"]["mlp"]["inp"]["kernel"],
        before["correction"]["mlp"]["inp"]["kernel"],
    )
    np.testing.assert_allclose(
        taken[: len(given)], given, rtol=1e-2
    )  # taken over from the model without images (stored in bfloat16)
    batch = {"images": task.sources()["images"].load(np.arange(4))}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
        lambda x: (x.shape, x.dtype), task.batch_shapes()
    )
    sample = jax.jit(task.prepare)(task.frozen, batch)
    grads = jax.jit(jax.grad(lambda p: task.loss(p, extra, task.frozen, sample)[0]))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    for level in grads["pyramid"]["levels"].values():  # the image branch learns, at every scale
        assert np.abs(level["proj"]["kernel"]).max() > 0
    settings = {True: (("final", 1), ("hard", 5))}
    monkeypatch.setattr(validation, "SETTINGS", settings)  # the others compile more programs
    measured = task.evaluate(params, extra, task.frozen, Placement(make_mesh(config.mesh)))
    assert {
        "val_image_final1_mpjpe",
        "val_image_only_hard5_pa_mpjpe",
        "val_keypoints_only_final1_mpjpe",
    } <= set(measured)


def test_features_without_maps_go_on_after_a_stop_and_grow(
    folder, tmp_path, monkeypatch, corpus_file
):
    """A part that is there is not made again; what an unfinished join leaves is no finished set;
    other encoders' sets are refused."""
    images, out = folder / "images", tmp_path / "features"
    monkeypatch.setattr(features, "CHUNK", 1)
    count = features.compute(images, out, "val", "none")
    rows = feature_set.FeatureSet(out / "val").rows(np.arange(count))
    with_maps = feature_set.FeatureSet(folder / "features" / "val").rows(np.arange(count))
    assert rows.maps is None and np.abs(rows.keypoints3d).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, rows, dataclasses.replace(with_maps, maps=None))
    monkeypatch.setattr(features, "_compute_part", None)  # nothing is left to compute
    assert features.compute(images, out, "val", "none") == count
    with pytest.raises(InputError, match="was made with the encoder none"):
        features.compute(images, out, "val", "blazepose_full")
    monkeypatch.setattr(features.np.lib.format, "write_array_header_1_0", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        features.compute(images, out, "val", "none")
    with pytest.raises(InputError, match="no finished feature set"):
        feature_set.FeatureSet(out / "val")


def test_stored_rows_must_fit(folder, get_config, corpus_file, monkeypatch):
    config = get_config("genhmr/tiny")
    config.data.poses, config.data.images, config.image_batch_size = (
        str(corpus_file),
        str(folder / "features"),
        4,
    )
    with pytest.raises(
        InputError, match="holds the output of blazepose_full, not of blazepose_lite"
    ):
        ImageRows(config, "blazepose_lite").source()
    assert ImageRows(config, "blazepose_full").source().size == 4
    monkeypatch.setattr(
        feature_set.FeatureSet, "__init__", _without_3d(feature_set.FeatureSet.__init__)
    )
    with pytest.raises(InputError, match="train: lacks keypoints3d: another version wrote it"):
        ImageRows(config, "blazepose_full").source()


def _without_3d(init):
    """FeatureSet.__init__, but of a set from before there were keypoints in 3D."""

    def older(self, *args):
        init(self, *args)
        del self.arrays["keypoints3d"]

    return older


@pytest.mark.slow
def test_a_network_with_more_inputs_starts_as_the_same_function(get_config, tmp_path, corpus_file):
    config = get_config("genhmr/tiny")
    config.data.poses = str(corpus_file)
    plain = GenHmrTask(config, TokenizerSpec())
    before, _ = plain.init(jax.random.key(1))
    save_params(tmp_path / "plain", {"genhmr": before}, {"kind": "genhmr"})
    config.model.encoder_channels, config.init = (80, 136, 288), str(tmp_path / "plain")
    task = GenHmrTask(config, TokenizerSpec())
    params = task.warm_start(task.init(jax.random.key(2))[0])
    later = {"scorer": jax.tree.map(lambda x: x + 1.0, before["scorer"])}
    save_params(tmp_path / "later", {"genhmr": later}, {"kind": "genhmr"})
    task.config.init = (
        f"{tmp_path / 'plain'},{tmp_path / 'later'}"  # of two folders the last one's arrays count
    )
    both = task.warm_start(task.init(jax.random.key(2))[0])
    out = lambda tree: tree["scorer"]["mlp"]["out"]["bias"]
    np.testing.assert_array_equal(out(both), out(before) + 1.0)
    first = lambda tree: tree["correction"]["mlp"]["inp"]["kernel"]
    np.testing.assert_array_equal(first(both), first(params))
    old, new = first(before), first(params)
    np.testing.assert_array_equal(new[: len(old)], old)
    assert len(new) == len(old) + 24 * 16 * 3 and not new[len(old) :].any()


@pytest.mark.slow
def test_the_gradient_of_the_scorer_stays_in_it(get_config, corpus_file):
    """So that what is scored is not bent towards a better score."""
    config = get_config("genhmr/tiny")
    config.data.poses, config.batch_size, config.masking.steps = str(corpus_file), 2, 2
    spec = TokenizerSpec(codebook_size=8, width=8, depth=1)
    task = GenHmrTask(config, spec)
    arrays = {
        "tokenizer": jax.tree.map(
            lambda x: 0.1 * jnp.ones(x.shape), task.system.shapes["tokenizer"]
        ),
        "codebook": {"vectors": jax.random.normal(jax.random.key(1), (8, 16))},
    }
    task = GenHmrTask(config, spec, arrays)
    params, _ = task.init(jax.random.key(0))
    batch = {"views": task.sources()["views"].load(np.arange(2))}
    sample = jax.jit(task.prepare)(task.frozen, batch)
    score = lambda p: task.objective.terms(p, task.frozen, sample["views"])[0]["score"]
    grads = jax.jit(jax.grad(score))(params)
    assert max(np.abs(g).max() for g in jax.tree.leaves(grads.pop("scorer"))) > 1e-3
    assert not any(np.abs(g).max() for g in jax.tree.leaves(grads))


@pytest.mark.slow
def test_without_feedback_no_row_continues_from_guesses(get_config, corpus_file):
    """There is one step: a row whose tokens must all be predicted would copy the visible ones."""
    config = get_config("genhmr/tiny")
    config.data.poses, config.batch_size, config.masking.unroll = str(corpus_file), 8, 0.7
    spec = TokenizerSpec(codebook_size=8, width=8, depth=1)

    def targets(feedback):
        config.model.feedback = feedback
        task = GenHmrTask(config, spec)
        shapes = {name: task.frozen[name] for name in ("tokenizer", "codebook")}
        arrays = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
        task = GenHmrTask(config, spec, arrays)
        batch = {"views": task.sources()["views"].load(np.arange(8))}
        return jax.jit(task.prepare)(task.frozen, batch)

    plain, other = (targets(feedback)["views"].targets.masked for feedback in (False, True))
    assert not plain.unroll.any() and other.unroll.any()
    np.testing.assert_array_equal(plain.visible == 8, plain.mask)  # 8 is the mask id


def test_images_must_be_named(get_config, corpus_file):
    config = get_config("genhmr/tiny")
    config.image_batch_size = 4
    with pytest.raises(InputError, match="image_batch_size: needs images but there are none"):
        GenHmrTask(config, TokenizerSpec())


def test_rendered_people_need_no_folder_of_others(get_config, corpus_file):
    config = get_config("genhmr/tiny")
    config.image_batch_size, config.data.mixture, config.data.poses = (
        4,
        "rendered=2",
        str(corpus_file),
    )
    images = GenHmrTask(config, TokenizerSpec()).batch_shapes()["images"].images
    assert images.shape == (4, 256, 256, 3)
