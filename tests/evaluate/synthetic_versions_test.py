"""The versions of the synthetic test set, and the shares of people who are wrong as a whole."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.cli import main
from genhmr_jax.evaluate import benchmark, predictions, synthetic_split
from genhmr_jax.evaluate.measuring import back_to_front
from genhmr_jax.evaluate.synthetic_split import open_split
from genhmr_jax.geometry.bodies import load_body


@pytest.fixture(scope="module")
def made(corpus_file, tmp_path_factory):
    """Three people of version 1, 48 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_split, "SIZE", 48)
        folder = tmp_path_factory.mktemp("made")
        yield folder, open_split(folder, corpus_file, 3)


def test_the_second_version_shows_the_same_poses_elsewhere(made, corpus_file, tmp_path):
    """Of other people in other cameras, with a hash and a folder of its own."""
    first = made[1]
    second = open_split(tmp_path, corpus_file, 3, 2)
    np.testing.assert_array_equal(second.indices, first.indices)
    assert second.facts["version"] == 2 and second.facts["hash"] != first.facts["hash"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["synthetic-test-v2-3"]
    for a, b in zip(first.samples, second.samples, strict=True):
        np.testing.assert_array_equal(a.body_pose, b.body_pose)
        assert np.abs(a.betas - b.betas).max() > 0.1 and a.focal != b.focal
    assert open_split(tmp_path, None, 3, 2).facts == second.facts


def test_the_command_of_each_version(made, corpus_file, tmp_path, capsys):
    """--dataset names the version, which has its own folder and is not taken for the other one."""
    folder, split = made
    flags = ["--limit=3", "--checkpoint=mean-pose", f"--out={tmp_path / 'eval.json'}"]
    assert main.main(["eval", "--dataset=synthetic", f"--data-dir={folder}", *flags]) == 0
    assert f"test set v1, 3 images, hash {split.facts['hash']}" in capsys.readouterr().out
    second = ["eval", "--dataset=synthetic_v2", f"--data-dir={folder}", *flags]
    assert main.main(second) == 1
    assert "synthetic-test-v2-3: holds no synthetic test set" in capsys.readouterr().err
    assert main.main([*second, f"--poses={corpus_file}"]) == 0
    assert "test set v2, 3 images" in capsys.readouterr().out


def test_back_to_front_by_hand():
    """Turns about the vertical of the body count from 90 degrees on; leaning does not, by any
    angle, and neither does the direction of the true body in the camera."""
    degrees = np.array([0, 80, 100, 180, 100, 170])
    axes = np.array([[0, 1, 0]] * 4 + [[1, 0, 0], [0, 0, 1]])
    turns = Rotation.from_rotvec(np.deg2rad(degrees)[:, None] * axes)
    for truth in (Rotation.from_euler("x", np.pi), Rotation.random(random_state=3)):
        roots = np.tile(truth.as_rotvec(), (6, 1))
        found = back_to_front((truth * turns).as_rotvec(), roots)
        assert found.tolist() == [False, False, True, True, False, False]
    lying = Rotation.from_euler("x", 60, degrees=True)  # and turned as well
    both = (turns[2] * lying).as_rotvec()
    assert back_to_front(both, np.zeros(3)) and back_to_front(np.zeros(3), both)


def test_shares_of_wrong_people_by_hand(made):
    """Three people: right, turned around, and with one foot 24 times 200 mm away."""
    split = made[1]
    roots = np.stack([sample.global_orient for sample in split.samples])
    joints = np.stack([sample.joints for sample in split.samples])
    truth = joints.copy()
    pose = np.zeros((3, 72))
    pose[:, :3] = roots
    turn = Rotation.from_rotvec(roots[1]) * Rotation.from_euler("y", np.pi)
    pose[1, :3] = turn.as_rotvec()
    joints[2, 10] += [0, 0, 24 * 0.2]
    prediction = dataclasses.replace(
        predictions.mean_pose(load_body(), 3), pose=pose, joints=joints
    )
    row = benchmark.figures(prediction, split, truth, 0.0)
    assert row["back_to_front"] == pytest.approx(1 / 3)
    assert row["failed"] == pytest.approx(1 / 3)
    report = {"split": split.facts, "found": 1.0, "text": "", "results": {"x": row}}
    line = benchmark.synthetic_table(report).splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")][6:8] == ["33.3", "33.3"]
