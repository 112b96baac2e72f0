"""The lifter of hands: its rows, its trunk, training, and what the shipped one is worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.data.hands import lifter_rows, pictures
from genhmr_jax.data.hands.lifter_rows import HandLifterSet
from genhmr_jax.data.hands.pictures import Pictures
from genhmr_jax.detect import hand_landmarks, hand_lifter, lifter, trunks
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems import registry
from genhmr_jax.train import loop
from genhmr_jax.train.validation import means

COUNT = 8  # pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows of both splits."""
    root = tmp_path_factory.mktemp("hand_lifter")
    for split in ("train", "val"):
        lifter_rows.write_rows(root / split, COUNT, Pictures("made-up", split, seed=7))
    return root


def everyone(folder, split):
    """All rows of a split, of weight 1."""
    stored = HandLifterSet(folder / split)
    rows = stored.rows(np.arange(stored.size))
    return dataclasses.replace(rows, weight=np.ones(rows.size, np.float32))


def errors(task, params, rows):
    """Mean errors of a lifter and of the landmark network; mm, and % of the region's side."""
    return means([jax.device_get(task._measure(params, task.frozen, rows))])


def test_a_true_answer_is_turned_into_the_picture(monkeypatch):
    """The labels in the axes of the region become those of the picture, and of its mirror image."""
    sample, rng = Pictures("made-up", "val", seed=3).draw(1)
    seen, network = [], hand_landmarks.estimates_of_crops
    keep = lambda *arguments: seen.extend(network(*arguments)) or seen[-1:]
    monkeypatch.setattr(hand_landmarks, "estimates_of_crops", keep)
    (row,) = lifter_rows.picture_rows(sample, rng, "val")
    hand, turn = seen[-1], np.array([-1.0, 1, 1])
    solid = sample.keypoints - sample.keypoints[:1]
    for mirrored in (False, True):
        flip = turn if mirrored else np.ones(3)
        truth = row["points2d"] * flip[:2], row["points3d"] * flip
        answer = [x[None].astype(np.float32) for x in (*truth, np.zeros(21), np.zeros((7, 7, 672)))]
        monkeypatch.setattr(hand_lifter, "_lift", lambda *_: answer)  # noqa: B023
        (found,) = hand_lifter.lifted([dataclasses.replace(hand, mirrored=mirrored)])
        np.testing.assert_allclose(found.points, sample.points2d, atol=0.01)  # px
        np.testing.assert_allclose(found.points3d, solid, atol=1e-5)


def test_rows_of_training_have_other_colours_and_regions(folder):
    train, val = everyone(folder, "train"), everyone(folder, "val")
    assert COUNT < train.size <= 2 * COUNT and val.size <= COUNT
    assert train.early.shape[1:] == hand_landmarks.EARLY_SHAPE and train.early.dtype == np.float16
    np.testing.assert_array_equal(train.points3d[:, 0], 0.0)
    lengths = np.linalg.norm(train.points3d[:, 9], axis=-1)  # of the palm
    pairs = np.nonzero(np.abs(np.diff(lengths)) < 1e-6)[0]  # two crops of a picture
    assert len(pairs) >= 3
    assert (np.abs(train.points2d[pairs] - train.points2d[pairs + 1]).max((1, 2)) > 1e-3).all()


@pytest.mark.slow
def test_several_processes_and_other_settings(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PART", 4)
    lifter_rows.write_rows(tmp_path / "val", COUNT, Pictures("made-up", "val", seed=7), workers=2)
    one, other = everyone(folder, "val"), everyone(tmp_path, "val")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-2), one, other)
    with pytest.raises(InputError, match="other settings"):
        lifter_rows.write_rows(tmp_path / "val", COUNT, Pictures("made-up", "val", seed=8))


def test_the_trunk_starts_as_the_network(folder):
    """Without changes its map gives the network's landmarks."""
    trunk, rows = hand_lifter.TRUNK, everyone(folder, "val")
    changes = {name: jnp.zeros(x.shape) for name, x in trunk.change_shapes().items()}
    inner = trunk.map(trunks.changed(trunk.own_weights(), changes), rows.early.astype(np.float32))
    graph, weights = hand_landmarks.graph_runner.load(hand_landmarks.NETWORK)
    names = [hand_landmarks.FEATURES], ["landmarks"]
    found = hand_landmarks.graph_runner.run(graph, weights, {names[0][0]: inner}, names[1])
    # The rows are in half precision.
    given = rows.landmarks.reshape(rows.size, -1)
    np.testing.assert_allclose(found["landmarks"], given, atol=1.0)  # px of 224


@pytest.mark.slow
def test_it_starts_as_the_network_and_learns(folder, get_config, tmp_path):
    config = get_config("hand_lifter/tiny")
    config.data.images, config.steps, config.evaluate_every = str(folder), 60, 60
    config.optim.warmup, config.optim.learning_rate, config.model.drop = 5, 5e-3, 0.0
    task = registry.make_task(config)
    rows = everyone(folder, "train")
    start, _ = task.init(jax.random.key(0))
    before = errors(task, start, rows)
    assert before["pa_mpjpe"] == pytest.approx(before["landmarks_pa_mpjpe"], rel=0.05)
    assert before["keypoints2d"] == pytest.approx(before["landmarks_keypoints2d"], rel=0.05)
    loop.train(task, config, tmp_path)
    params = lifter.trained_params(tmp_path / "model", start["head"], hand_lifter.TRUNK)
    after = errors(task, params, rows)
    assert after["pa_mpjpe"] < 0.9 * before["pa_mpjpe"]
    assert after["keypoints2d"] < 0.95 * before["keypoints2d"]


def test_the_shipped_lifter_is_better_than_the_network(folder, get_config):
    """On eight hands of random poses, which it has not seen."""
    task = registry.make_task(get_config("hand_lifter/rendered_hands"))
    start, _ = task.init(jax.random.key(0))
    params = lifter.trained_params(hand_lifter.FOLDER, start["head"], hand_lifter.TRUNK)
    found = errors(task, params, everyone(folder, "val"))
    for name in ("pa_mpjpe", "mpjpe", "keypoints2d"):
        assert found[name] < 0.9 * found[f"landmarks_{name}"], name
