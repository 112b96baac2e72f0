"""tools/evaluate_photos.py: the figures on a made-up body whose right answers are known."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import fake_people, install_fake_recover
from PIL import Image

TOOL = Path(__file__).parent.parent / "tools" / "evaluate_photos.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("evaluate_photos", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def square_person():
    """Two people; the second is a square whose image is exactly the pixels 20..40 x 10..30 of a 60 x 40 photo."""
    people = fake_people(2)
    corners = np.array([[20, 10], [40, 10], [40, 30], [20, 30]], float)
    depth = 3.0
    square = np.concatenate([(corners - [30, 20]) * depth / 60, np.full((4, 1), depth)], axis=1)
    names = np.array(["left_shoulder", "right_shoulder", "left_hip", "right_hip", *(f"k{i}" for i in range(19))])
    keypoints = np.tile([30.0, 20, 0.9], (2, 23, 1))
    keypoints[:, :4, :2] = [[25, 10], [35, 10], [25, 30], [35, 30]]  # torso: 20 px
    return dataclasses.replace(
        people,
        boxes=np.array([[0, 0, 10, 10], [20, 10, 40, 30]]),
        vertices=np.stack([square + [0, 0, 50], square]),
        faces=np.array([[0, 1, 2], [0, 2, 3]]),
        keypoint_names=names,
        keypoints2d=keypoints,
        projected_keypoints=keypoints[..., :2],
    )


def test_iou_counts_pixels_of_the_right_person(tool):
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    box = np.array([19, 9, 41, 31])
    assert tool.score(square_person(), box, mask).iou == pytest.approx(1, abs=0.01)
    assert tool.score(square_person(), box, np.roll(mask, 10, axis=1)).iou == pytest.approx(1 / 3, abs=0.02)


def test_pck_and_error(tool):
    people = square_person()
    projected = people.projected_keypoints.copy()
    projected[1, 4:10] += [0, 1.9]  # within a tenth of the 20 px torso
    projected[1, 10:15] += [2.1, 0]  # outside
    keypoints = people.keypoints2d.copy()
    keypoints[1, 15, 2], projected[1, 15] = 0.1, 1000  # unseen
    people = dataclasses.replace(people, projected_keypoints=projected, keypoints2d=keypoints)
    score = tool.score(people, np.array([20, 10, 40, 30]), np.ones((40, 60), bool))
    assert score.pck == pytest.approx(17 / 22)
    assert score.error_px == pytest.approx((6 * 1.9 + 5 * 2.1) / 22, rel=1e-5)
    assert score.error_box == pytest.approx(score.error_px / 20, rel=1e-5)


def test_box_overlap(tool):
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], float)
    assert tool.box_overlap(boxes, np.array([0, 0, 2, 2.0])) == pytest.approx([1, 1 / 3, 0])


def test_the_whole_tool(tool, tmp_path, monkeypatch, capsys):
    calls = install_fake_recover(monkeypatch)
    calls.result = square_person()
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    for name in ("a", "b"):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{name}.jpg")
        Image.fromarray(mask).save(tmp_path / f"{name}.mask.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"a": [20, 10, 40, 30], "b": [20, 10, 40, 30]}))
    out = tmp_path / "out"
    assert tool.main(["--photos", str(tmp_path), "--out", str(out), "--refine-steps", "7"]) == 0
    assert [options.refine_steps for options in calls.options] == [0, 7, 7] * 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["photo", "---", "a", "b", "mean"]
    assert sorted(p.name for p in out.iterdir()) == ["a_refined.png", "a_sampled.png", "b_refined.png", "b_sampled.png", "photos.json"]
    results = json.loads((out / "photos.json").read_text())
    assert results[1]["name"] == "b" and results[1]["refined"]["pck"] == 1.0 and results[1]["found"] == 2


def test_a_directory_without_boxes(tool, tmp_path, monkeypatch, capsys):
    install_fake_recover(monkeypatch)
    assert tool.main(["--photos", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "boxes.json: cannot be read" in capsys.readouterr().err
