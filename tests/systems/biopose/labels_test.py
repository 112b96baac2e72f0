"""`genhmr data angles`: from a pose corpus to motions with known angles."""

import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.geometry.anatomy import LIMITS
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.systems.biopose.calibration import EXACT, MOVED, NOISY, given_markers
from genhmr_jax.systems.biopose.labels import load_labels
from genhmr_jax.systems.biopose.methods import markers_of
from genhmr_jax.systems.biopose.skeleton import skeleton_of
from support import angle_labels

SECONDS, RATE = 2.0, 30


def corpus(path):
    """Two motions, one of each split, of SECONDS."""
    frames, rng = int(SECONDS * RATE) + 1, np.random.default_rng(0)
    motions = [angle_labels.motion(rng, frames).reshape(frames, 72) for _ in range(2)]
    np.savez(
        path, poses=np.concatenate(motions), split=np.repeat([0, 1], frames).astype(np.int8),
        seq_id=np.repeat([0, 1], frames), frame=np.tile(np.arange(frames), 2),
        mocap_framerate=np.float32(RATE), seq_name=np.array(["S/1/a", "S/2/b"]),
        seq_subject=np.array(["S/1", "S/2"]),
    )  # fmt: skip


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    poses, out = tmp_path / "poses.npz", tmp_path / "angles.npz"
    corpus(poses)
    words = ["data", "angles", "--poses", str(poses), "--out", str(out), "--copies", "1"]
    assert main.main(words) == 0
    assert "3 clips (2 for train, 1 for val)" in capsys.readouterr().out
    clips = load_labels(out)
    assert np.diff(clips.ends, prepend=0).tolist() == [40, 40, 40]
    assert clips.subjects.tolist() == ["S/1", "S/1", "S/2"] and clips.rmse.max() < 0.025
    assert not np.allclose(clips.poses[40:80], clips.poses[:40], atol=0.05), "a turned copy"
    inner = clips.angles[:, 3:]
    assert (inner >= LIMITS[3:, 0] - 1e-6).all() and (inner <= LIMITS[3:, 1] + 1e-6).all()
    # The skeleton of the shape has its markers where the angles say.
    values = np.concatenate(
        [np.degrees(clips.angles[:, :3]), clips.translation, np.degrees(inner)], 1
    )
    for clip in range(3):
        rows = slice(clips.starts[clip], clips.ends[clip])
        given = given_markers(clips, clip, EXACT)
        placed = markers_of(skeleton_of(load_body("neutral"), clips.betas[clip]), values[rows])
        rmse = np.sqrt(((placed - given) ** 2).sum(-1).mean(-1))
        np.testing.assert_allclose(rmse, clips.rmse[rows], atol=1e-4)
    noise = given_markers(clips, 0, NOISY) - given_markers(clips, 0, EXACT)
    assert noise.std() == pytest.approx(0.01, rel=0.05)
    assert given_markers(clips, 0, MOVED).shape == (40, 70, 3)


def test_a_corpus_without_times_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "poses.npz", poses=np.zeros((3, 72)), split=np.zeros(3), seq_id=np.zeros(3))
    words = ["data", "angles", "--poses", str(tmp_path / "poses.npz"), "--out"]
    assert main.main([*words, str(tmp_path / "a.npz")]) == 1
    assert "keys missing: frame, mocap_framerate" in capsys.readouterr().err
    assert main.main([*words, str(tmp_path / "a.txt")]) == 1
    assert "is not an .npz" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "poses.npz"]
