"""Readers of hand releases, on tiny releases in the official layouts."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from genhmr_jax.cli import main
from genhmr_jax.data.hands.releases import RELEASES, find, full_pose
from genhmr_jax.data.hands.releases import reading as files
from genhmr_jax.data.sources import SOURCES, MissingError
from genhmr_jax.geometry.hand import HAND21, MANO_21, HandPca
from genhmr_jax.io.errors import InputError

K = [[100.0, 0.0, 16.0], [0.0, 200.0, 12.0], [0.0, 0.0, 1.0]]
FLIP = np.array([1.0, -1.0, -1.0])


def put(path, content):
    """Write JSON, a pickle, text or a small image, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif path.suffix in (".jpg", ".png"):
        Image.fromarray(np.full((24, 32, 3), content, np.uint8)).save(path)
    else:
        path.write_text(content)


def hand(seed=0):
    """Keypoints (21, 3) in front of the camera, HAND21, metres."""
    return np.random.default_rng(seed).uniform(-0.05, 0.05, (21, 3)) + [0.0, 0.0, 0.5]


def read(name, root, split, skip_bad=False):
    """Records of a release in the manual directory `root`, and the listed bad ones."""
    report = RELEASES[name].report(skip_bad)
    return list(RELEASES[name].records(root, split, report)), report.listed


# FreiHAND


@pytest.fixture
def freihand(tmp_path):
    root = tmp_path / "FreiHAND_pub_v2"
    mano = np.arange(61.0)
    for split, count in (("training", 2), ("evaluation", 1)):
        put(root / f"{split}_K.json", [K] * count)
        put(root / f"{split}_xyz.json", [hand(i).tolist() for i in range(count)])
        put(root / f"{split}_mano.json", [[mano.tolist()]] * count)
        put(root / f"{split}_verts.json", [np.tile(hand(i)[:1], (778, 1)).tolist() for i in (0, 1)])
    put(root / "evaluation_verts.json", [np.tile(hand()[:1], (778, 1)).tolist()])
    for version in range(4):
        for i in range(2):
            put(root / "training" / "rgb" / f"{i + 32560 * version:08d}.jpg", 10 * version)
    put(root / "evaluation" / "rgb" / "00000000.jpg", 0)
    return tmp_path


def test_freihand(freihand):
    found, _ = read("freihand", freihand, "training")
    numbers = [0, 32560, 65120, 97680, 1, 32561, 65121, 97681]
    assert [record.name for record in found] == [f"training/{i:08d}" for i in numbers]
    record, points = found[4], hand(1)
    np.testing.assert_array_equal(record.keypoints3d, points)
    expected = points[:, :2] / points[:, 2:] * [100, 200] + [16, 12]
    np.testing.assert_allclose(record.keypoints[:, :2], expected)
    assert record.right and (record.keypoints[:, 2] == 1).all() and record.vertices.shape[0] == 778
    np.testing.assert_allclose(record.box, [*expected.min(0), *expected.max(0)])
    np.testing.assert_array_equal(record.pose, np.arange(48))
    np.testing.assert_array_equal(record.betas, np.arange(48, 58))
    assert record.trans is None and record.read().shape == (24, 32, 3)
    assert found[1].read().mean() == pytest.approx(10, abs=2)
    # The pose is relative to MANO's mean pose.
    pca = HandPca(np.full(45, 0.5, np.float32), np.eye(45, dtype=np.float32))
    np.testing.assert_allclose(full_pose(record, pca)[[2, 3, 47]], [2, 3.5, 47.5])
    with pytest.raises(InputError, match=r"MANO_RIGHT.pkl"):
        full_pose(record)
    only, _ = read("freihand", freihand, "evaluation")
    assert len(only) == 1 and only[0].name == "evaluation/00000000"


def test_freihand_versions_and_split(freihand):
    root = freihand / "FreiHAND_pub_v2"
    from genhmr_jax.data.hands.releases.freihand import records

    found = list(records(root, "training", versions=("auto",)))
    assert [record.name for record in found] == ["training/00097680", "training/00097681"]
    with pytest.raises(InputError, match="choose gs, hom, sample, auto"):
        list(records(root, "training", versions=("green",)))
    with pytest.raises(InputError, match="it has training, evaluation"):
        list(records(root, "val"))


def test_freihand_without_labels_of_the_evaluation(freihand):
    root = freihand / "FreiHAND_pub_v2"
    for kind in ("xyz", "mano", "verts"):
        (root / f"evaluation_{kind}.json").unlink()
    (record,), _ = read("freihand", freihand, "evaluation")
    assert record.keypoints3d is None and record.box.tolist() == [0, 0, 32, 24]


def test_freihand_faults(freihand):
    root = freihand / "FreiHAND_pub_v2"
    # 1. An image is absent, and the labels of a sample have a wrong shape.
    (root / "training" / "rgb" / "00032560.jpg").unlink()
    put(root / "training_xyz.json", [hand().tolist(), hand()[:20].tolist()])
    with pytest.raises(InputError, match=r"freihand: .*sample 0: its image .*00032560.jpg"):
        read("freihand", freihand, "training")
    found, listed = read("freihand", freihand, "training", skip_bad=True)
    assert len(found) == 3 and len(listed) == 2 and "sample 1: xyz has shape (20, 3)" in listed[1]
    # 2. A list is cut short: the samples before the cut are read.
    text = json.dumps([hand().tolist(), hand(1).tolist()])
    (root / "training_xyz.json").write_text(text[:-30])
    found, listed = read("freihand", freihand, "training", skip_bad=True)
    assert len(found) == 3 and "training_xyz.json: is not a whole JSON list" in listed[-1]
    # 3. A list is shorter than the others.
    put(root / "training_xyz.json", [hand().tolist()])
    put(root / "training" / "rgb" / "00032560.jpg", 10)
    with pytest.raises(InputError, match=r"ends after 1 samples, but training_K.json has more"):
        read("freihand", freihand, "training")
    # 4. A file is missing.
    (root / "training_K.json").unlink()
    with pytest.raises(MissingError, match=r"training_K.json: no such .*FreiHAND_pub_v2.zip"):
        read("freihand", freihand, "training", skip_bad=True)


@pytest.mark.parametrize("text", ["", "{}", "[1, 2", "[1 2]", "[1, nope]", "[" * 100_000])
def test_json_entries_refuse(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a.json"):
        list(files.json_entries(tmp_path / "a.json"))


def test_json_entries_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 3)
    content = [12345, [1.5, -2e-3], {"a": "]["}, [], 7]
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    assert list(files.json_entries(tmp_path / "a.json")) == content
    (tmp_path / "b.json").write_text(" [ ] ")
    assert list(files.json_entries(tmp_path / "b.json")) == []


# HO-3D


@pytest.fixture
def ho3d(tmp_path):
    """Points in MANO's order: their number is in x, so that the order can be checked."""
    root = tmp_path / "HO3D_v3"
    raw = np.zeros((21, 3))
    raw[:, 0], raw[:, 1], raw[:, 2] = 0.01 * np.arange(21), 0.1, -0.5  # up, in front of the camera
    meta = {
        "camMat": np.array(K),
        "handJoints3D": raw,
        "handPose": np.concatenate([[0.0, 0.3, 0.0], np.full(45, 0.2)]),
        "handBeta": np.arange(10.0),
        "handTrans": np.array([0.02, 0.03, -0.45]),
        "objRot": np.zeros((3, 1)),
    }
    for number, suffix in (("0000", "jpg"), ("0001", "png")):
        put(root / "train" / "ABF10" / "meta" / f"{number}.pkl", meta)
        put(root / "train" / "ABF10" / "rgb" / f"{number}.{suffix}", 0)
    put(root / "train.txt", "ABF10/0000\nABF10/0001\n")
    only = {"camMat": np.array(K), "handJoints3D": raw[0], "handBoundingBox": [1, 2, 30, 20]}
    put(root / "evaluation" / "SM1" / "meta" / "0007.pkl", only)
    put(root / "evaluation" / "SM1" / "rgb" / "0007.jpg", 0)
    put(root / "evaluation.txt", "SM1/0007\n")
    return tmp_path


def test_ho3d(ho3d):
    found, _ = read("ho3d", ho3d, "train")
    assert [record.name for record in found] == ["train/ABF10/0000", "train/ABF10/0001"]
    record = found[0]
    # OpenGL's (x, up, backwards) becomes (x, down, forward).
    np.testing.assert_allclose(record.keypoints3d[:, 1:], np.tile([-0.1, 0.5], (21, 1)))
    # MANO's order: wrist, index, middle, pinky, ring, thumb, then the tips from the thumb on.
    where = {name: round(100 * x) for name, x in zip(HAND21, record.keypoints3d[:, 0], strict=True)}
    expected = {"wrist": 0, "index_mcp": 1, "middle_mcp": 4, "pinky_mcp": 7, "ring_mcp": 10}
    expected |= {"thumb_cmc": 13, "thumb_ip": 15, "thumb_tip": 16, "index_tip": 17}
    expected |= {"ring_tip": 19, "pinky_tip": 20}
    assert {name: where[name] for name in expected} == expected
    assert MANO_21[4] == "middle1"
    np.testing.assert_allclose(record.keypoints[0], [16, 12 - 200 * 0.1 / 0.5, 1])
    # The mesh of the turned pose is the turned mesh: R' (v - w) + w + t' = flip(R (v - w) + w + t).
    at_rest, vertex = np.array([-0.02, 0.07, -0.05]), np.array([0.03, 0.11, -0.08])
    turn = Rotation.from_rotvec([0.0, 0.3, 0.0])
    raw = turn.apply(vertex - at_rest) + at_rest + [0.02, 0.03, -0.45]
    turned = Rotation.from_rotvec(record.pose[:3]).apply(vertex - at_rest) + at_rest + record.trans
    np.testing.assert_allclose(turned, raw * FLIP, atol=1e-12)
    assert full_pose(record) is record.pose and record.pose[3] == 0.2 and record.betas[9] == 9


def test_ho3d_evaluation(ho3d):
    (record,), _ = read("ho3d", ho3d, "evaluation")
    np.testing.assert_allclose(record.wrist, [0, -0.1, 0.5])
    assert record.box.tolist() == [1, 2, 30, 20] and record.keypoints3d is None
    raw = np.zeros((21, 3)) + [0.0, 0.1, -0.5]
    raw[16] += [0.02, 0, 0]
    put(ho3d / "HO3D_v3" / "evaluation_xyz.json", [raw.tolist()])
    put(ho3d / "HO3D_v3" / "evaluation_verts.json", [np.tile(raw[0], (778, 1)).tolist()])
    (record,), _ = read("ho3d", ho3d, "evaluation")
    np.testing.assert_allclose(record.keypoints3d[HAND21.index("thumb_tip")], [0.02, -0.1, 0.5])
    np.testing.assert_allclose(record.vertices[5], [0, -0.1, 0.5])


def test_ho3d_faults(ho3d):
    meta = ho3d / "HO3D_v3" / "train" / "ABF10" / "meta" / "0000.pkl"
    meta.write_bytes(meta.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"ho3d: .*0000.pkl: is not a data pickle"):
        read("ho3d", ho3d, "train")
    found, listed = read("ho3d", ho3d, "train", skip_bad=True)
    assert [record.name for record in found] == ["train/ABF10/0001"] and len(listed) == 1
    put(ho3d / "HO3D_v3" / "train.txt", "../0000\nABF10/0001")
    found, listed = read("ho3d", ho3d, "train", skip_bad=True)
    assert len(found) == 1 and "not inside the release" in listed[0]
    (ho3d / "HO3D_v3" / "train.txt").unlink()
    with pytest.raises(MissingError, match=r"train.txt: no such .*HO3D_v3.zip"):
        read("ho3d", ho3d, "train")


class Evil:
    """Runs code when a plain unpickler reads it."""

    def __reduce__(self):
        return (print, ("run",))


def test_ho3d_runs_no_code(ho3d, capsys):
    put(ho3d / "HO3D_v3" / "train" / "ABF10" / "meta" / "0000.pkl", {"camMat": Evil()})
    with pytest.raises(InputError, match="nothing in it was run"):
        read("ho3d", ho3d, "train")
    assert "run" not in capsys.readouterr().out


# HInt


@pytest.fixture
def hint(tmp_path):
    folder = tmp_path / "HInt_annotation" / "TEST_newdays_img"
    for name in ("ND_a_frame1_r", "ND_b_frame2_l"):
        points = [[float(i + 1), 2.0 * i] for i in range(21)]
        label = {"keypoints": points, "occlusion": [0] * 20 + [1], "bbox": [[1.0, 2.0, 30.0, 22.0]]}
        put(folder / f"{name}.json", [label])
        put(folder / f"{name}.jpg", 0)
    return tmp_path


def test_hint(hint):
    found, _ = read("hint", hint, "TEST_newdays_img")
    assert [record.right for record in found] == [True, False]
    record = found[0]
    assert record.name == "TEST_newdays_img/ND_a_frame1_r" and record.box.tolist() == [1, 2, 30, 22]
    assert record.keypoints[4].tolist() == [5, 8, 1] and record.keypoints3d is None
    assert record.occluded.nonzero()[0].tolist() == [20]


def test_hint_faults(hint):
    folder = hint / "HInt_annotation" / "TEST_newdays_img"
    (folder / "ND_a_frame1_r.json").write_text('[{"keypoints": [')
    with pytest.raises(InputError, match=r"ND_a_frame1_r.json: is not whole JSON"):
        read("hint", hint, "TEST_newdays_img")
    found, listed = read("hint", hint, "TEST_newdays_img", skip_bad=True)
    assert len(found) == 1 and len(listed) == 1
    (folder / "ND_b_frame2_l.jpg").unlink()
    with pytest.raises(MissingError, match=r"no readable record .*ND_a_frame1_r.json"):
        read("hint", hint, "TEST_newdays_img", skip_bad=True)
    with pytest.raises(MissingError, match=r"VAL_epick_img: no such .*HInt_annotation_partial.zip"):
        read("hint", hint, "VAL_epick_img")


# DexYCB


@pytest.fixture
def dexycb(tmp_path):
    pytest.importorskip("yaml")
    root = tmp_path / "dex-ycb"
    cameras = find("dexycb").read.__globals__["CAMERAS"]
    color = "color: {fx: 100.0, fy: 200.0, ppx: 16.0, ppy: 12.0}\ndepth: {fx: 1.0}\n"
    for camera in cameras:
        put(root / "calibration" / "intrinsics" / f"{camera}_640x480.yml", color)
    put(root / "calibration" / "mano_x_left" / "mano.yml", f"betas: {list(range(10))}\n")
    subject = root / "20200928-subject-07"
    for i in range(100):
        text = f"num_frames: {3 if i == 1 else 0}\nmano_sides: [left]\nmano_calib: [x_left]\n"
        put(subject / f"20200709_{i:06d}" / "meta.yml", text)
    for camera in cameras:
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


# All


def test_registry(capsys):
    assert not set(RELEASES) & set(SOURCES)
    with pytest.raises(InputError, match="did you mean freihand"):
        find("freihnd")
    for release in RELEASES.values():
        assert release.folder in release.layout and release.licence and release.citation
    assert main.main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name} " in text for name in RELEASES)
    assert main.main(["data", "list", "ho3d"]) == 0
    assert find("ho3d").layout in capsys.readouterr().out
    words = ["data", "build", "hint", "--manual-dir", "x", "--data-dir", "y"]
    assert main.main(words) == 1
    assert "is not built" in capsys.readouterr().err
