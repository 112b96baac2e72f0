"""`genhmr angles`: from a clip to joint angles and their files."""

import csv
import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24

from genhmr_jax.cli import main
from genhmr_jax.geometry.anatomy import ANGLES, COORDINATES
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import ABSENT, CAMERA, FILLED, OBSERVED, WORLD, Motion
from genhmr_jax.geometry.stature import stature
from genhmr_jax.recover.angles import angles_of, low_pass
from genhmr_jax.systems.biopose.methods import BODY_HALF_WIDTH
from support.export_motions import clip as made_up_clip

BODY = load_body("neutral")
FRAMES, RATE, STRIDE = 96, 30, 1.1
MASS, HEIGHT = 70.0, 1.8


def walker(axes=WORLD, heading=0.7):
    """A made-up walk: hips and knees swing, and the body moves. It faces `heading` about y."""
    times = np.arange(FRAMES) / RATE
    phase = 2 * np.pi * times / STRIDE
    poses = np.zeros((FRAMES, 24, 3))
    poses[:, 0, 1] = heading
    for side, sign, late in (("left", 1, 0.0), ("right", -1, np.pi)):
        poses[:, SMPL24.index(f"{side}_hip"), 0] = -0.1 - 0.4 * np.cos(phase - late)
        swing = np.clip(np.sin(phase - late), 0, 1) ** 2
        poses[:, SMPL24.index(f"{side}_knee"), 0] = 0.1 + 0.5 * swing
        poses[:, SMPL24.index(f"{side}_shoulder"), 2] = -1.2 * sign
    way = np.stack([np.sin(heading) * times, 0 * times + 1.1, np.cos(heading) * times], -1)
    if axes == CAMERA:  # y down, z forward
        turn = Rotation.from_rotvec([np.pi, 0, 0])
        poses[:, 0] = (turn * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
        pelvis = np.asarray(BODY.joint_template)[0]
        way = turn.apply(way + pelvis) - pelvis
    return Motion(
        name="person 1", times=times, betas=np.zeros(10, np.float32),
        poses=poses.astype(np.float32), translation=way.astype(np.float32),
        state=np.full(FRAMES, OBSERVED), confidence=np.full((FRAMES, 24), 0.9, np.float32),
        axes=axes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def person():
    return angles_of(walker(), BODY, mass=MASS)


def test_a_walk(person):
    """The angles follow the joints of the body; the pelvis faces x, and moves along it."""
    times, columns = person.times, person.columns
    phase = 2 * np.pi * times / STRIDE
    inner = slice(6, -6)
    hip = np.degrees(0.4 * np.cos(phase))
    found = columns["hip_flexion_l"] - columns["hip_flexion_l"].mean()
    np.testing.assert_allclose(found[inner], (hip - hip.mean())[inner], atol=4)
    assert np.corrcoef(columns["knee_angle_l"], np.clip(np.sin(phase), 0, 1) ** 2)[0, 1] > 0.98
    assert np.abs(columns["pelvis_rotation"]).max() < 3
    assert np.ptp(columns["pelvis_tx"]) == pytest.approx(times[-1], abs=0.05)
    assert np.ptp(columns["pelvis_tz"]) < 0.05
    assert person.rmse.max() < 0.015 and person.mass == MASS
    assert person.cutoff == 6 and "ground" in person.axes
    assert len(person.cycles) >= 3
    for cycle in person.cycles:
        assert cycle.seconds == pytest.approx(STRIDE, abs=0.04)
        assert cycle.speed == pytest.approx(1.0, abs=0.1)


def test_axes_and_heading_do_not_matter(person):
    other = angles_of(walker(CAMERA, heading=-2.0), BODY, cutoff=0)
    assert "camera" in other.axes and other.cutoff == 0
    gap = np.abs(other.values - person.unfiltered)
    assert gap[:, [i for i, name in enumerate(COORDINATES) if "_t" not in name]].max() < 0.5
    assert other.mass == pytest.approx(68, abs=1)  # of the volume


def test_height(person):
    """The picture stays the same: all points move in proportion."""
    tall = angles_of(walker(), BODY, height=HEIGHT)
    ratio = HEIGHT / stature(BODY, np.zeros(10))
    assert tall.height == pytest.approx(HEIGHT, abs=2e-3)
    way, before = (np.ptp(p.columns["pelvis_tx"]) for p in (tall, person))
    assert way == pytest.approx(ratio * before, rel=0.01)


def test_gaps_and_irregular_times(person):
    motion = walker()
    times = motion.times + 0.004 * np.sin(np.arange(FRAMES) ** 2)
    state = motion.state.copy()
    state[[0, 40, 41]], state[60:63] = ABSENT, FILLED
    found = angles_of(dataclasses.replace(motion, times=times, state=state), BODY)
    assert np.ptp(np.diff(found.times)) < 1e-9 and len(found.times) == pytest.approx(FRAMES, abs=2)
    assert not found.observed[39:41].all() and found.observed[:30].all()
    assert not found.observed[60] and found.observed[64:].all()


def test_the_filter():
    """Half of the power at the cutoff, no lag, and slow motions stay (the gain is measured)."""
    times = np.arange(600) / 60
    for frequency, gain in ((1.0, 1.0), (6.0, 0.707), (18.0, 0.0)):
        wave = np.sin(2 * np.pi * frequency * times)
        found = low_pass(wave[:, None], 60, 6.0)[100:-100, 0]
        wave = wave[100:-100]
        assert found @ wave / (wave @ wave) == pytest.approx(gain, abs=0.02)
        quarter = np.cos(2 * np.pi * frequency * times)[100:-100]
        assert abs(found @ quarter) / (quarter @ quarter) < 0.01


def made_clip(path):
    motion = walker(CAMERA)
    made_up_clip([motion], BODY).save(path)


def test_the_command(tmp_path, capsys):
    path, out = tmp_path / "walk.npz", tmp_path / "out"
    made_clip(path)
    assert main.main(["angles", str(path), "--out", str(out), "--mass", "70"]) == 0
    said = capsys.readouterr()
    assert "cycles of walking" in said.out
    names = {file.name for file in out.iterdir()}
    expected = {"walk_1.mot", "walk_1.trc", "walk_1.osim", "walk_1_angles.csv", "walk_1_gait.csv"}
    assert expected <= names and names - expected <= {"walk_1_angles.png"}
    head, table = (out / "walk_1.mot").read_text().split("endheader\n")
    assert "6 Hz" in head and "70.0 kg" in head
    rows = [line.split("\t") for line in table.splitlines()]
    assert rows[0] == ["time", *COORDINATES]
    with open(out / "walk_1_angles.csv", newline="") as file:
        sheet = list(csv.DictReader(file))
    knee = np.array([float(row["knee_angle_r"]) for row in sheet])
    mot = np.array(rows[1:], float)[:, rows[0].index("knee_angle_r")]
    np.testing.assert_allclose(knee, mot, atol=1e-3)
    band = np.array([float(row["knee_angle_r_pm80"]) for row in sheet])
    assert (band > BODY_HALF_WIDTH[ANGLES.index("knee_angle_r")]).all() and band.max() < 40
    assert "Method: NeurIK" in head


@pytest.mark.slow
def test_methods(person):
    """All three agree on a walk; NeurIK is not asked for less than 20 frames a second."""
    knee = person.columns["knee_angle_l"][6:-6]
    for method, most in (("ik", 4), ("reading", 6)):
        other = angles_of(walker(), BODY, method=method)
        assert other.method == method and np.isnan(other.band).all()
        assert np.abs(other.columns["knee_angle_l"][6:-6] - knee).mean() < most
        assert np.abs(other.columns["pelvis_tx"] - person.columns["pelvis_tx"]).max() < 0.03
    slow = walker()
    slow = dataclasses.replace(slow, times=3 * slow.times)
    assert person.method == "neurik" and angles_of(slow, BODY).method == "ik"


def test_bad_input(tmp_path, capsys):
    assert main.main(["angles", str(tmp_path / "no.npz"), "--out", str(tmp_path)]) == 1
    assert "no such file" in capsys.readouterr().err
    np.savez(tmp_path / "photo.npz", vertices=np.zeros(3))
    assert main.main(["angles", str(tmp_path / "photo.npz"), "--out", str(tmp_path)]) == 1
    assert "of a photo" in capsys.readouterr().err
