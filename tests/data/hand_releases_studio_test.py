"""Readers of DexYCB and InterHand2.6M, on tiny releases in the official layouts."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.data.hands.releases import full_pose
from genhmr_jax.data.hands.releases.dexycb import CAMERAS
from genhmr_jax.data.sources import MissingError
from genhmr_jax.geometry.hand import HAND21, HandPca
from genhmr_jax.io.errors import InputError
from support.hand_release_fixtures import K, hand, put, read

# DexYCB


@pytest.fixture
def dexycb(tmp_path):
    pytest.importorskip("yaml")
    root = tmp_path / "dex-ycb"
    color = "color: {fx: 100.0, fy: 200.0, ppx: 16.0, ppy: 12.0}\ndepth: {fx: 1.0}\n"
    for camera in CAMERAS:
        put(root / "calibration" / "intrinsics" / f"{camera}_640x480.yml", color)
    put(root / "calibration" / "mano_x_left" / "mano.yml", f"betas: {list(range(10))}\n")
    subject = root / "20200928-subject-07"
    for i in range(100):
        text = f"num_frames: {3 if i == 1 else 0}\nmano_sides: [left]\nmano_calib: [x_left]\n"
        put(subject / f"20200709_{i:06d}" / "meta.yml", text)
    for camera in CAMERAS:
        for frame in range(3):
            place = subject / "20200709_000001" / camera
            put(place / f"color_{frame:06d}.jpg", 0)
            points = np.full((21, 3), -1.0) if frame == 1 else hand(frame)
            pose = np.concatenate([[0.1, 0.2, 0.3], np.eye(45)[0], [0.0, 0.0, 0.5]])
            pixels = np.arange(42.0).reshape(1, 21, 2)
            labels = {"joint_3d": points[None], "joint_2d": pixels, "pose_m": pose[None]}
            np.savez(place / f"labels_{frame:06d}.npz", **labels)
    return tmp_path


def test_dexycb(dexycb):
    found, _ = read("dexycb", dexycb, "s1_val")
    assert len(found) == 2 * 8  # one frame of three has no hand
    record = found[1]
    assert record.name == "20200928-subject-07/20200709_000001/836212060125/color_000002"
    np.testing.assert_array_equal(record.keypoints3d, hand(2))
    assert record.keypoints[1].tolist() == [2, 3, 1] and record.box.tolist() == [0, 1, 40, 41]
    assert not record.right and record.intrinsics.tolist() == K and record.betas[9] == 9
    assert record.trans.tolist() == [0, 0, 0.5]
    components = np.diag(np.arange(1, 46, dtype=np.float32))
    full = full_pose(record, HandPca(np.full(45, 0.5, np.float32), components))
    np.testing.assert_allclose(full[:5], [0.1, 0.2, 0.3, 1.5, 0.5])


def test_dexycb_faults(dexycb):
    place = dexycb / "dex-ycb" / "20200928-subject-07" / "20200709_000001" / "836212060125"
    (place / "labels_000000.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"labels_000000.npz: is not a whole npz"):
        read("dexycb", dexycb, "s1_val")
    found, listed = read("dexycb", dexycb, "s1_val", skip_bad=True)
    assert len(found) == 15 and len(listed) == 1
    with pytest.raises(MissingError, match="subject-08: no such .*dex-ycb.github.io"):
        read("dexycb", dexycb, "s1_test")
    meta = dexycb / "dex-ycb" / "20200928-subject-07" / "20200709_000002" / "meta.yml"
    meta.unlink()
    meta.parent.rmdir()
    with pytest.raises(MissingError, match="has 99 sequences instead of 100"):
        read("dexycb", dexycb, "s1_val")


# InterHand2.6M


@pytest.fixture
def interhand(tmp_path):
    root = tmp_path / "InterHand2.6M"
    names = [f"{finger}{part}" for finger in ("thumb", "index", "middle", "ring", "pinky")
             for part in ("_null", "3", "2", "1")]  # fmt: skip
    both = [f"{side}_{name}" for side in "rl" for name in (*names, "wrist")]
    lines = [f"{name} {i} {i + 1}" for i, name in enumerate(both)]
    put(root / "annotations" / "skeleton.txt", "\n".join(["# name id parent", *lines]))
    world = np.zeros((42, 3))
    world[:, 0], world[:, 2] = np.arange(42), 600.0  # mm; the number of the joint is in x
    camera = {
        "campos": {"400": [0.0, 0.0, 100.0]},
        "camrot": {"400": [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]},
        "focal": {"400": [100.0, 200.0]},
        "princpt": {"400": [16.0, 12.0]},
    }
    image = {"file_name": "Capture0/s/cam400/image5.jpg", "capture": 0, "camera": "400"}
    images = [{"id": i, "frame_idx": 5, **image} for i in (3, 4)]
    kinds = ["left", "interacting"]
    labels = [
        {"image_id": i, "bbox": [1, 2, 10, 20], "hand_type": kind, "joint_valid": [1] * 41 + [0]}
        for i, kind in zip((3, 4), kinds, strict=True)
    ]
    name = lambda kind: root / "annotations" / "val" / f"InterHand2.6M_val_{kind}.json"
    put(name("data"), {"images": images, "annotations": labels})
    put(name("camera"), {"0": camera})
    put(name("joint_3d"), {"0": {"5": {"world_coord": world.tolist()}}})
    fit = {"pose": [0.1] * 48, "shape": [0.0] * 10, "trans": [0.0] * 3}
    put(name("MANO_NeuralAnnot"), {"0": {"5": {"left": None, "right": fit}}})
    put(root / "images" / "val" / image["file_name"], 0)
    return tmp_path


def test_interhand(interhand):
    found, _ = read("interhand", interhand, "val")
    sides = [record.name.rpartition(":")[2] for record in found]
    assert sides == ["left", "right", "left"] and found[0].box.tolist() == [1, 2, 11, 22]
    left, right = found[0], found[1]
    # x of the world is -y of this camera; the thumb's tip is joint 0 and the wrist joint 20.
    np.testing.assert_allclose(right.keypoints3d[4], [0, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(right.keypoints3d[0], [0, -0.020, 0.5], atol=1e-12)
    np.testing.assert_allclose(right.keypoints3d[HAND21.index("index_mcp"), 1], -0.007)
    np.testing.assert_allclose(right.keypoints[0], [16, 12 - 200 * 0.02 / 0.5, 1])
    np.testing.assert_allclose(left.keypoints3d[HAND21.index("pinky_mcp"), 1], -0.040)
    assert left.keypoints[0].tolist() == [0, 0, 0] and left.wrist is None and left.pose is None
    turn = Rotation.from_matrix([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = (turn * Rotation.from_rotvec([0.1] * 3)).as_matrix()
    np.testing.assert_allclose(Rotation.from_rotvec(right.pose[:3]).as_matrix(), expected)


def test_interhand_faults(interhand):
    folder = interhand / "InterHand2.6M" / "annotations"
    data = json.loads((folder / "val" / "InterHand2.6M_val_data.json").read_text())
    data["annotations"][0]["joint_valid"] = [1]
    put(folder / "val" / "InterHand2.6M_val_data.json", data)
    with pytest.raises(InputError, match="image 3: joint_valid has shape"):
        read("interhand", interhand, "val")
    found, listed = read("interhand", interhand, "val", skip_bad=True)
    assert len(found) == 2 and len(listed) == 1
    put(folder / "skeleton.txt", "r_wrist 20 -1\nr_thumb_null 0 1\n")
    with pytest.raises(InputError, match=r"skeleton.txt: does not have the 21 joints"):
        read("interhand", interhand, "val")
    (folder / "val" / "InterHand2.6M_val_camera.json").unlink()
    (folder / "skeleton.txt").unlink()
    with pytest.raises(MissingError, match=r"skeleton.txt: no such .*mks0601"):
        read("interhand", interhand, "val")
