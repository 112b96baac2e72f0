"""The free benchmarks: the fixed synthetic test set and its hash, and how predictions are made."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import smpl_jax
from PIL import Image
from scipy.spatial.transform import Rotation

from genhmr_jax.cli import main
from genhmr_jax.core.inputs import joined
from genhmr_jax.data import poses
from genhmr_jax.evaluate import benchmark, predictions, synthetic_split, worst
from genhmr_jax.evaluate.measuring import joint_errors
from genhmr_jax.evaluate.synthetic_split import open_split, split_hash
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.photo import RecoverOptions
from support.puppet import Puppet, keypoints_at


@pytest.fixture(scope="module")
def small():
    """Pictures of 48 px: the tests are of the bookkeeping."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_split, "SIZE", 48)
        yield


@pytest.fixture(scope="module")
def made(small, corpus_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder, open_split(folder, corpus_file, 3)


def test_the_set_is_the_same_wherever_it_is_made(made, corpus_file, tmp_path):
    _, split = made
    again = open_split(tmp_path, corpus_file, 3)
    assert (
        split.facts == again.facts and len(split.facts["hash"]) == 16 and split.facts["count"] == 3
    )
    for a, b in zip(split.samples, again.samples, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    other = open_split(tmp_path, corpus_file, 2)
    assert other.facts["hash"] != split.facts["hash"]
    np.testing.assert_array_equal(other.samples[1].image, split.samples[1].image)


def test_it_is_built_of_validation_poses_and_its_own_seed(made, corpus_file):
    _, split = made
    validation = poses.load_corpus(corpus_file, "val").poses
    for index, sample in zip(split.indices, split.samples, strict=True):
        np.testing.assert_allclose(sample.body_pose, validation[index, 3:], atol=1e-6)
    assert split.facts["seed"] == synthetic_split.SEED != 0


def test_a_complete_set_needs_no_corpus_and_serves_smaller_counts(made, monkeypatch):
    folder, split = made
    assert open_split(folder, None, 3).facts == split.facts
    monkeypatch.setattr(synthetic_split, "COUNT", 3)
    part = open_split(folder, None, 2)
    assert part.facts["count"] == 2 and part.facts["hash"] == split_hash(
        split.samples[:2], split.indices[:2]
    )


def test_a_stopped_rendering_goes_on_with_the_same_poses_only(made, corpus_file, tmp_path):
    home = tmp_path / "synthetic-test-v1-3"
    home.mkdir()
    (home / "corpus.txt").write_text("of other poses")
    with pytest.raises(InputError, match="begun with other poses"):
        open_split(tmp_path, corpus_file, 3)
    (home / "corpus.txt").unlink()
    open_split(tmp_path, corpus_file, 3)
    (home / "split.json").unlink()  # stopped after the pictures
    assert open_split(tmp_path, corpus_file, 3).facts == made[1].facts


def test_what_is_missing_or_damaged_is_named(small, corpus_file, tmp_path):
    with pytest.raises(InputError, match="no synthetic test set.*--poses"):
        open_split(tmp_path, None, 1)
    open_split(tmp_path, corpus_file, 1)
    other = tmp_path / "other.npz"
    np.savez(other, poses=np.ones((4, 72)), split=np.ones(4, np.int8), seq_id=np.zeros(4))
    with pytest.raises(InputError, match="rendered from other poses"):
        open_split(tmp_path, other, 1)
    card = next(tmp_path.glob("*/split.json"))
    good = json.loads(card.read_text())
    card.write_text(json.dumps(good | {"indices": [good["indices"][0] + 1]}))
    with pytest.raises(InputError, match="not the test set"):
        open_split(tmp_path, None, 1)
    for text in ("{", "[]", json.dumps({"hash": "", "corpus": ""})):
        card.write_text(text)
        with pytest.raises(InputError, match="split.json: does not describe"):
            open_split(tmp_path, None, 1)


def test_the_hash_knows_labels_but_not_rounding_noise(made):
    _, split = made
    samples, indices, known = split.samples, split.indices, split.facts["hash"]
    changed = lambda **fields: split_hash(
        [dataclasses.replace(samples[0], **fields), *samples[1:]], indices
    )
    assert split_hash(samples, indices) == known
    for name in ("global_orient", "body_pose", "betas"):
        value = getattr(samples[0], name).copy()
        value[1] += 0.002
        assert changed(**{name: value}) != known
    assert changed(focal=samples[0].focal + 1) != known
    assert (
        changed(joints=samples[0].joints + 1e-6) == known
    )  # arithmetic that differs between machines
    assert split_hash(samples, indices[::-1]) != known or np.array_equal(indices, indices[::-1])
    assert split_hash(samples[::-1], indices) != known


def test_true_box_holds_hidden_points_and_stays_inside(made):
    sample = made[1].samples[0]
    points = np.tile([20.0, 20, 0], (23, 1))
    points[0], points[1] = [10, 10, 1], [30, 40, 0]
    box = synthetic_split.true_box(dataclasses.replace(sample, keypoints=points))
    np.testing.assert_allclose(box, [9, 8.5, 31, 41.5])
    points[1] = [100, 100, 1]
    assert synthetic_split.true_box(dataclasses.replace(sample, keypoints=points)).max() == 48


def test_the_nearest_person_is_chosen_by_what_both_see():
    people, truth = keypoints_at((20, 20), (60, 60), (100, 60)), keypoints_at((62, 60))[0]
    assert predictions.nearest_person(people, truth) == 1
    # 15 px away, half the size is 10
    assert predictions.nearest_person(people, keypoints_at((75, 60))[0]) is None
    assert predictions.nearest_person(people[:0], truth) is None
    truth[:, 2] = 0
    assert predictions.nearest_person(people, truth) is None
    truth[:3, 2] = 1
    people[1, :3, 2] = 0.0  # undetected keypoints do not count
    assert predictions.nearest_person(people, truth) is None


@pytest.fixture
def prepare(monkeypatch):
    """predictions.prepare with the detector of a puppet."""

    def run(model, images, **how):
        monkeypatch.setattr(predictions, "detect", model.detect)
        return predictions.prepare(model, images, RecoverOptions(), **how)

    return run


def test_test_images_become_batches_of_one_size_and_answers_keep_their_order(prepare):
    images = [np.full((50, 50, 3), value, np.uint8) for value in (10, 20, 30)]
    truths = [keypoints_at(centre)[0] for centre in ((20, 20), (45, 5), (22, 20))]
    model = Puppet(keypoints_at((20, 20)))
    test_images = [predictions.TestImage(i, t) for i, t in zip(images, truths, strict=True)]
    prepared = prepare(model, test_images)
    assert [batch.rows for batch in prepared.batches(2)] == [2, 2]
    greys = [batch.image_weight.tolist() for batch in prepared.batches(2)]
    assert greys == [[10, 20], [30, 30]]
    assert prepared.found.tolist() == [True, False, True] and prepared.people.tolist() == [1, 1, 1]
    answers = predictions.solve(model, prepared, RecoverOptions(), batch=2, warm_up=True)
    mean = predictions.mean_pose(model.body, 1)
    (joints,) = mean.joints
    np.testing.assert_allclose(
        answers.joints, np.stack([joints, joints, joints + 2]), atol=1e-6
    )  # the second was not found
    assert answers.found.tolist() == [True, False, True]
    np.testing.assert_array_equal(answers.pose[1:2], mean.pose)
    assert not answers.pose[[0, 2]].any(), "the puppet's own"
    assert answers.confidence[:, 0].tolist() == [0.5, 0, 0.5]
    assert np.isnan(answers.keypoints[1]).all() and np.isfinite(answers.keypoints[[0, 2]]).all()
    assert answers.hypotheses is None
    assert [batch.tolist() for batch in model.batches] == [
        [0, 1],
        [0, 1],
        [2, 3],
    ]  # the first one twice: to compile


def test_draws_follow_from_the_numbers_of_the_people(prepare):
    """The runner's records keep their numbers, in whatever batch they are."""
    model = Puppet(keypoints_at((20, 20)))
    image = predictions.TestImage(np.zeros((50, 50, 3), np.uint8), keypoints_at((20, 20))[0])
    prepared = joined([prepare(model, [image]) for _ in range(4)])
    answers = predictions.solve(model, prepared, RecoverOptions(), np.array([5, 9, 2, 2]), batch=2)
    assert [batch.tolist() for batch in model.batches] == [[5, 9], [2, 2]]
    gaps = answers.joints - predictions.mean_pose(model.body, 4).joints
    np.testing.assert_allclose(gaps[:, 0, 0], [5, 9, 2, 2], atol=1e-5)


def test_the_detector_gets_the_window_alone(prepare):
    model = Puppet(keypoints_at((15, 15)))
    image = np.zeros((50, 50, 3), np.uint8)
    test_image = predictions.TestImage(
        image,
        keypoints_at((30, 15))[0],
        box=np.array([20.0, 2, 48, 30]),
        window=(15, 0, 50, 40),
    )
    prepared = prepare(model, [test_image])
    assert model.images[0].shape == (40, 35, 3)
    np.testing.assert_allclose(model.boxes[0], [[5, 2, 33, 30]])
    np.testing.assert_allclose(
        prepared.batches(1)[0].view.crop[0, :2], model.people[0, 0, :2] + [15, 0]
    )
    outside = dataclasses.replace(test_image, window=(49, 0, 50, 50))
    assert not prepare(model, [outside]).found.any()


def test_boxes_reach_systems_that_crop_by_them(prepare):
    """A regressor answers for a box in which no keypoint was seen; it gets the box in px of the
    whole picture."""
    people = keypoints_at((15, 15))
    test_image = predictions.TestImage(
        np.zeros((50, 50, 3), np.uint8),
        people[0] + [15, 5, 0],
        box=np.array([20.0, 8, 45, 33]),
        window=(15, 5, 50, 50),
    )
    blind = Puppet(people * np.float32([1, 1, 0]))
    assert not prepare(blind, [test_image]).found.any()
    regressor = dataclasses.replace(blind, needs_box=True, prepared=[])
    assert prepare(regressor, [test_image]).found.all()
    np.testing.assert_allclose(regressor.prepared[0], [[20, 8, 45, 33]])
    found = Puppet(people, needs_box=True)
    prepare(found, [dataclasses.replace(test_image, box=None)])
    np.testing.assert_allclose(found.prepared[0], [[20, 10, 40, 30]], atol=0.1)


def test_a_box_that_is_not_given_to_the_detector_chooses_the_person(prepare):
    """Of two people the one whose box overlaps the true box most; nobody, if no box does."""
    model = Puppet(keypoints_at((20, 20), (35, 30)))
    image = np.zeros((50, 50, 3), np.uint8)
    for box, wanted in (([8, 8, 31, 31], 0), ([26, 22, 44, 40], 1), ([0, 0, 5, 5], None)):
        prepared = prepare(model, [predictions.TestImage(image, true_box=np.float32(box))])
        assert model.boxes[-1] is None and prepared.people.tolist() == [2]
        assert prepared.found.tolist() == [wanted is not None]
        if wanted is not None:
            np.testing.assert_array_equal(prepared.keypoints[0], model.people[wanted])


def test_errors_of_joints_against_numpy():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.4, (5, 24, 3)) + [0, 0, 4]
    turn = Rotation.random(5, random_state=rng).as_matrix()
    moved = 1.3 * truth @ turn + rng.normal(size=(5, 1, 3))
    errors = joint_errors(moved, truth)
    assert errors["pa_mpjpe"].max() < 0.01  # mm: a similarity transform away
    plain = np.linalg.norm((moved - moved[:, :1]) - (truth - truth[:, :1]), axis=-1)
    np.testing.assert_allclose(errors["mpjpe"], 1000 * plain, atol=1e-2)
    assert not errors["mpjpe"][:, 0].any()


def test_figures_of_the_mean_pose_against_numpy(made):
    folder, split = made
    report = benchmark.synthetic(None, folder, count=3)
    (label, row), *rest = report["results"].items()
    assert label == "mean pose" and not rest and report["split"] == split.facts
    joints = np.asarray(
        smpl_jax.forward(load_body(), np.zeros(10, np.float32), MEAN_POSE_72.reshape(24, 3)).joints
    )
    errors = [
        np.linalg.norm((joints - joints[0]) - (s.joints - s.joints[0]), axis=-1).mean()
        for s in split.samples
    ]
    assert row["mpjpe_mm"] == pytest.approx(1000 * np.mean(errors), abs=0.01)
    assert row["mpjpe_median_mm"] == pytest.approx(1000 * np.median(errors), abs=0.01)
    assert 0 < row["pa_mpjpe_mm"] < row["mpjpe_mm"] and row["reprojection_px"] is None
    assert len(row["joints_pa_mm"]) == 24
    assert np.mean(list(row["joints_pa_mm"].values())) == pytest.approx(
        row["pa_mpjpe_mm"], abs=0.02
    )
    assert split.facts["hash"] in benchmark.synthetic_table(report)


def test_the_command(made, tmp_path, capsys):
    """genhmr eval --dataset=synthetic: the JSON file and the table of the baseline, and what goes
    wrong in one line."""
    folder, split = made
    arguments = [
        "eval",
        "--dataset=synthetic",
        f"--data-dir={folder}",
        "--limit=3",
        "--checkpoint=mean-pose",
    ]
    assert main.main([*arguments, f"--out={tmp_path / 'eval.json'}"]) == 0
    stored = json.loads((tmp_path / "eval.json").read_text())
    assert stored["split"]["hash"] == split.facts["hash"] and list(stored["results"]) == [
        "mean pose"
    ]
    assert f"hash {split.facts['hash']}" in capsys.readouterr().out
    assert main.main([*arguments[:2], f"--data-dir={tmp_path}", *arguments[3:]]) == 1
    assert "holds no synthetic test set" in capsys.readouterr().err


def test_uncertainty_of_nobody(made, monkeypatch):
    folder, _ = made
    model = Puppet(keypoints_at((20, 20)) * np.float32([1, 1, 0]))
    monkeypatch.setattr(predictions, "detect", model.detect)
    with pytest.raises(InputError, match="0 of 3 people were found"):
        benchmark.synthetic(
            model, folder, count=3, iterations=(1,), refine_steps=0, with_uncertainty=True
        )


def test_a_model_on_the_whole_set(made, tmp_path, monkeypatch):
    folder, split = made
    drawn = []
    monkeypatch.setattr(
        worst,
        "draw",
        lambda samples, prepared, prediction, faces, errors, file: drawn.append(
            (len(samples), errors["mpjpe"].shape)
        ),
    )
    model = Puppet(
        np.concatenate([[s.keypoints * [1, 1, 0] + [0, 0, 1]] for s in split.samples]).astype(
            np.float32
        )
    )
    monkeypatch.setattr(predictions, "detect", model.detect)
    report = benchmark.synthetic(
        model,
        folder,
        count=3,
        iterations=(1, 4),
        refine_steps=7,
        with_uncertainty=True,
        pictures=tmp_path,
    )
    stages = ("sampling alone", "with refinement")
    assert list(report["results"]) == [
        "mean pose",
        *(f"T={t}, {stage}" for stage in stages for t in (1, 4)),
    ]
    assert report["found"] == 1.0
    moved, mean = report["results"]["T=1, sampling alone"], report["results"]["mean pose"]
    assert moved["mpjpe_mm"] == pytest.approx(
        mean["mpjpe_mm"], rel=1e-3
    )  # the puppet answers the mean pose, shifted
    rows = report["uncertainty"]["hypotheses"]
    assert [row["k"] for row in rows] == [1, 2, 4, 8]
    assert rows[0]["best"] == pytest.approx(
        rows[-1]["most_confident"]
    )  # all its hypotheses are equal
    assert (tmp_path / "uncertainty.png").stat().st_size > 1000 and drawn == [(3, (3, 24))]
    text = benchmark.synthetic_table(report)
    assert "| T=4, with refinement |" in text and "| most confident |" in text
    json.dumps(report)


@pytest.mark.slow
def test_the_shipped_model_runs_both_commands(made, tmp_path, capsys):
    folder, split = made
    found = tmp_path / "found.json"
    arguments = ["--iterations=1", "--refine-steps=0", f"--out={found}"]
    pictures = f"--pictures={tmp_path / 'pictures'}"
    rows = []
    for flag in (pictures, "--true-keypoints"):
        words = ["eval", "--dataset=synthetic", f"--data-dir={folder}", "--limit=3"]
        assert main.main([*words, flag, *arguments]) == 0
        rows.append(json.loads(found.read_text())["results"]["T=1, sampling alone"])
        assert (
            0 < rows[-1]["pa_mpjpe_mm"] <= rows[-1]["mpjpe_mm"] < 2000 and rows[-1]["seconds"] > 0
        )
    assert rows[1]["mpjpe_mm"] < rows[0]["mpjpe_mm"]  # who knows the keypoints errs less
    with Image.open(tmp_path / "pictures" / "worst.jpg") as drawn:
        assert (
            drawn.format == "JPEG"
            and drawn.height == worst.HEIGHT
            and drawn.width > 3 * worst.HEIGHT
        )
    assert "with the true 2D keypoints. synthetic test set" in capsys.readouterr().out
    shutil.copy(main.SAMPLE_PHOTO, tmp_path / "person.jpg")
    with Image.open(main.SAMPLE_PHOTO) as photo:
        width, height = photo.size
    Image.new("L", (width, height), 255).save(tmp_path / "person.mask.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"person": [0, 0, width, height]}))
    assert (
        main.main(["eval", "--dataset=photos", f"--data-dir={tmp_path}", pictures, *arguments]) == 0
    )
    score = json.loads(found.read_text())["photos"]["person"]["refined"]
    assert 0.02 < score["iou"] < 0.6 and 0 < score["error_box"] < 0.2  # the whole photo as mask
    assert (tmp_path / "pictures" / "person_refined.png").exists()
    assert "| person | 0." in capsys.readouterr().out
