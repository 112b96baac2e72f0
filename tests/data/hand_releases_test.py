"""Readers of FreiHAND, HO-3D and HInt, on tiny releases in the official layouts."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.cli import main
from genhmr_jax.data.hands.releases import RELEASES, find, full_pose
from genhmr_jax.data.hands.releases import reading as files
from genhmr_jax.data.hands.releases.freihand import records
from genhmr_jax.data.sources import SOURCES, MissingError
from genhmr_jax.geometry.hand import HAND21, MANO_21, HandPca
from genhmr_jax.io.errors import InputError
from support.hand_release_fixtures import K, hand, put, read

FLIP = np.array([1.0, -1.0, -1.0])


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
    with pytest.raises(MissingError, match=r"training_K.json: no such .*uni-freiburg.de"):
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
    with pytest.raises(MissingError, match=r"train.txt: no such .*shreyashampali/ho3d"):
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


@pytest.mark.parametrize("folder", ["HInt_annotation", "HInt_annotation_partial"])
def test_hint_hamer(tmp_path, folder):
    points = np.concatenate([np.arange(42.0).reshape(21, 2), np.ones((21, 1))], -1)
    points[3, 2] = 0.3
    arrays = {
        "imgname": np.array([b"a_l.jpg", b"b_r.jpg", b"../c.jpg"]),
        "center": np.tile([16.0, 12.0], (3, 1)),
        "scale": np.tile([20.0, 10.0], (3, 1)),
        "right": np.array([0.0, 1.0, 1.0]),
        "hand_keypoints_2d": np.stack([points] * 3),
    }
    for name in "a_l", "b_r":
        put(tmp_path / folder / "TEST_newdays_img" / f"{name}.jpg", 0)
    file = tmp_path / "hamer_evaluation_data" / "TEST_newdays_img_vis.npz"
    file.parent.mkdir()
    np.savez(file, **arrays)
    found, listed = read("hint_hamer", tmp_path, "TEST_newdays_img_vis", skip_bad=True)
    assert [record.right for record in found] == [False, True] and "sample 2" in listed[0]
    record = found[0]
    assert record.name == "TEST_newdays_img_vis/a_l" and record.box.tolist() == [6, 7, 26, 17]
    assert record.keypoints[2].tolist() == [4, 5, 1] and record.keypoints[3].tolist() == [0, 0, 0]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"TEST_newdays_img_vis.npz: is not a whole npz"):
        read("hint_hamer", tmp_path, "TEST_newdays_img_vis")
    with pytest.raises(MissingError, match=r"img_all.npz: no such .*hamer_evaluation_data.tar.gz"):
        read("hint_hamer", tmp_path, "TEST_newdays_img_all")


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
