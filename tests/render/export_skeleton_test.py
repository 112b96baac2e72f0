"""BVH and AMASS files, read by other readers, against the posed joints of smpl_jax."""

import dataclasses

import numpy as np
import pytest

from genhmr_jax.data.sources.amass import read as read_amass
from genhmr_jax.data.sources.bvh import read_bvh
from genhmr_jax.data.sources.source import Report
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import CAMERA, WORLD
from genhmr_jax.render.export.amass import save_amass
from genhmr_jax.render.export.bvh import save_bvh
from genhmr_jax.render.export.timeline import evenly
from support.export_motions import FORWARD, first_frame, motion, posed, y_up

MM = 1e-3


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


def read_joints(path, body):
    """The joints (F, 24, 3) of a BVH file in SMPL's order, and the frame time."""
    clip = read_bvh(path)
    positions, _ = clip.forward()
    text = path.read_text()
    time = float(text.split("Frame Time:")[1].split()[0])
    return positions[:, [clip.names.index(name) for name in body.joint_names]], time


@pytest.mark.parametrize("axes", [CAMERA, WORLD])
@pytest.mark.parametrize("units, scale", [("m", 1.0), ("cm", 100.0)])
def test_bvh_has_the_joints(axes, units, scale, body, tmp_path):
    walk = motion(1, axes=axes)
    save_bvh(path := tmp_path / "walk.bvh", walk, body, units)
    joints, time = read_joints(path, body)
    expected = y_up(posed(walk, body)[0], axes)
    np.testing.assert_allclose(joints / scale, expected, atol=0.1 * MM)
    assert time == pytest.approx(1 / 25, abs=1e-8)
    assert [file.name for file in tmp_path.iterdir()] == ["walk.bvh"]


def test_bvh_in_bvhio(body, tmp_path):
    """The package bvhio shares no code with this one."""
    bvhio = pytest.importorskip("bvhio")
    walk = motion(1)
    save_bvh(path := tmp_path / "walk.bvh", walk, body)
    root = bvhio.readAsHierarchy(str(path))
    expected = y_up(posed(walk, body)[0], CAMERA)
    for frame, joints in enumerate(expected):
        root.loadPose(frame)
        found = {joint.Name: np.array(joint.PositionWorld) for joint, *_ in root.layout()}
        np.testing.assert_allclose([found[n] for n in body.joint_names], joints, atol=MM)


def test_bvh_angles_do_not_jump(body, tmp_path):
    """A person who turns around twice has rotations about y up to 720 degrees."""
    walk = motion(1, frames=60)
    poses = np.zeros_like(walk.poses)
    poses[:, 0, 1] = np.linspace(0, 4 * np.pi, 60)
    save_bvh(
        path := tmp_path / "turn.bvh", dataclasses.replace(walk, poses=poses, axes=WORLD), body
    )
    rows = np.array([line.split() for line in path.read_text().splitlines()[-60:]], float)
    np.testing.assert_allclose(rows[:, 5], np.linspace(0, 720, 60), atol=1e-3)
    np.testing.assert_allclose(rows[:, [3, 4]], 0, atol=1e-3)


def test_bvh_ends_and_hierarchy(body, tmp_path):
    save_bvh(path := tmp_path / "one.bvh", first_frame(motion(1)), body)
    clip = read_bvh(path)
    ends = [name for name in clip.names if name.endswith("_end")]
    leaves = ("left_foot", "right_foot", "head", "left_hand", "right_hand")
    assert set(ends) == {f"{name}_end" for name in leaves}
    lengths = np.linalg.norm(clip.offsets[[clip.names.index(name) for name in ends]], axis=1)
    assert (lengths > 0.03).all() and (lengths < 0.35).all()
    parents = dict(zip(clip.names, clip.parents, strict=True))
    for name, parent in zip(body.joint_names[1:], body.parents[1:], strict=True):
        assert clip.names[parents[name]] == body.joint_names[parent]
    with pytest.raises(ValueError, match="choose one of m, cm"):
        save_bvh(path, motion(1), body, "inch")


def test_unknown_frames_are_cut_or_interpolated(body, tmp_path):
    full, walk = motion(1), motion(1, absent=(0, 1, 5, 11))
    save_bvh(path := tmp_path / "walk.bvh", walk, body)
    joints, _ = read_joints(path, body)
    expected = y_up(posed(full, body)[0], CAMERA)[2:11]
    assert len(joints) == 9
    np.testing.assert_allclose(np.delete(joints, 3, 0), np.delete(expected, 3, 0), atol=0.1 * MM)
    # The missing frame lies between its neighbours.
    assert np.abs(joints[3] - (joints[2] + joints[4]) / 2).max() < 0.02


def test_uneven_times():
    walk = motion(1, frames=31)
    # 1. Times in whole milliseconds are even, at the mean rate.
    rounded = dataclasses.replace(walk, times=np.round(np.arange(31) / 29.97, 3))
    kept, rate = evenly(rounded)
    assert len(kept) == 31 and rate == pytest.approx(29.97, rel=1e-3)
    # 2. Where ten frames are missing, rows are interpolated.
    rows = np.r_[0:10, 20:31]
    fields = ("times", "poses", "translation", "state", "confidence")
    gap = dataclasses.replace(walk, **{name: getattr(walk, name)[rows] for name in fields})
    filled, rate = evenly(gap)
    assert len(filled) == 31 and rate == pytest.approx(25)
    np.testing.assert_allclose(filled.times, walk.times, atol=1e-9)
    np.testing.assert_allclose(filled.translation[rows], walk.translation[rows], atol=1e-5)
    line = np.linspace(walk.translation[9], walk.translation[20], 12)
    np.testing.assert_allclose(filled.translation[9:21], line, atol=1e-5)


def smpl_joints(path, body, betas):
    """The joints 0..21 that an SMPL body has by the numbers of an AMASS file, z up."""
    with np.load(path) as file:
        poses, trans = file["poses"][:, :66], file["trans"]
    poses = np.concatenate([poses, np.zeros((len(poses), 6))], 1).astype(np.float32)
    output = FORWARD(body, betas, poses, trans.astype(np.float32))
    return np.asarray(output.joints)[:, :22]


def z_up(points, axes):
    """Camera: x right, z forward becomes y, y down becomes -z. World: y up becomes z."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([x, z, -y] if axes == CAMERA else [x, -z, y], -1)


@pytest.mark.parametrize("axes", [CAMERA, WORLD])
def test_amass_poses_an_smpl_body(axes, tmp_path):
    """A body with SMPL's number of vertices keeps its betas."""
    smpl = load_body("neutral").subset(np.arange(6890))
    walk = motion(1, axes=axes)
    save_amass(path := tmp_path / "walk.npz", walk, smpl)
    with np.load(path) as file:
        np.testing.assert_array_equal(file["betas"], [*walk.betas, *np.zeros(6)])
        assert file["poses"].shape == (12, 156) and not file["poses"][:, 66:].any()
        assert file["mocap_framerate"] == file["mocap_frame_rate"] == pytest.approx(25)
        assert str(file["gender"]) == "neutral" and file["start_time"] == 2
    expected = z_up(posed(walk, smpl)[0][:, :22], axes)
    np.testing.assert_allclose(smpl_joints(path, smpl, walk.betas), expected, atol=0.1 * MM)


def test_amass_of_a_free_body_has_no_betas_but_the_right_pelvis(body, tmp_path):
    walk = motion(1)
    save_amass(path := tmp_path / "walk.npz", walk, body)
    with np.load(path) as file:
        assert not file["betas"].any()
        np.testing.assert_array_equal(file["body_betas"], walk.betas)
    pelvis = smpl_joints(path, body, np.zeros(10, np.float32))[:, 0]
    np.testing.assert_allclose(pelvis, z_up(posed(walk, body)[0][:, 0], CAMERA), atol=0.1 * MM)


def test_amass_in_the_reader_of_the_dataset(body, tmp_path):
    """The reader of AMASS turns the files back to y up."""
    walk = motion(1, frames=60, axes=WORLD)
    folder = tmp_path / "CMU" / "01"
    folder.mkdir(parents=True)
    save_amass(folder / "walk_poses.npz", walk, body)
    records = list(read_amass(tmp_path, "train", Report()))
    assert len(records) >= 3
    for record in records:
        pose = walk.poses[record["frame"]].copy()
        pose[22:] = 0
        np.testing.assert_allclose(record["pose"].reshape(24, 3), pose, atol=1e-5)
