"""`genhmr eval --dataset=angles`: the tables, on made-up motions."""

import json

import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.evaluate.angles import _figures, _Part, angles_table, pairs
from genhmr_jax.geometry.anatomy import ANGLES
from support import angle_labels

RNG = np.random.default_rng(0)


def test_figures():
    """A bias, a band that holds the truth in three of four frames, and a perfect correlation."""
    truth = RNG.normal(0, 20, (40, 44))
    error = np.full((40, 44), 2.0)
    band = np.where(np.arange(40)[:, None] % 4 == 0, 1.0, 3.0) * np.ones(44)
    good = np.arange(40) > 3
    found = _figures([_Part(error, truth, good, band)])
    assert found["mae"] == found["mae_no_feet"] == 2.0 and found["accel"] == 0
    assert found["coverage"] == pytest.approx(0.75) and found["bias"]["neck_flexion"] == 2.0
    assert found["r"]["knee_angle_l"] == pytest.approx(1) and found["limits"]["mtp_angle_r"] == 0
    assert "coverage" not in _figures([_Part(error, truth, good, None)])
    assert sum(map(len, pairs().values())) == len(ANGLES)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    angle_labels.write(tmp_path)
    out = tmp_path / "angles.json"
    words = ["eval", "--dataset=angles", f"--data-dir={tmp_path}", f"--out={out}"]
    assert main.main(words) == 0
    text = capsys.readouterr().out
    assert "| true markers | NeurIK |" in text and "| knee_angle |" in text
    found = json.loads(out.read_text())
    assert found["clips"] == 2 and found["subjects"] == ["c", "d"]
    for figures in found["results"]["true markers"].values():
        assert figures["mae_no_feet"] < 8  # the truth of these clips is a reading, not a fit
    assert angles_table(found) in text


def test_missing_labels(tmp_path, capsys):
    assert main.main(["eval", "--dataset=angles", f"--data-dir={tmp_path}"]) == 1
    assert "no such file of joint angles" in capsys.readouterr().err
