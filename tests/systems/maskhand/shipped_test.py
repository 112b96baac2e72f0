"""The model of hands that comes with the package, on a photo of a hand."""

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.cli import main
from genhmr_jax.recover.hands import HandMeshes
from genhmr_jax.recover.photo import default_checkpoint
from support.paths import ROOT

PHOTO = ROOT / "tests" / "support" / "hand.png"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("hands")
    assert main.main(["hands", str(PHOTO), "--out", str(out), "--save", "obj"]) == 0
    return out


def test_its_size():
    weights = sum(file.stat().st_size for file in default_checkpoint("maskhand").iterdir())
    eyes = default_checkpoint("maskhand").parent / "eyes"
    detector = ("palmdetection-full", "handlandmark-lite")
    weights += sum((eyes / f"{name}.npz").stat().st_size for name in detector)
    assert weights <= 8 * 2**20


def test_the_files(results):
    names = {path.name for path in results.iterdir()}
    assert names == {"hand_hands.npz", "hand_hands_overlay.png", "hand_hands_0.obj"}


def test_an_open_hand(results):
    """An open right hand whose palm is towards the camera, fingers up."""
    hands = HandMeshes.load(results / "hand_hands.npz")
    assert len(hands) == 1 and hands.right[0]
    height = np.ptp(hands.boxes[0][1::2])
    assert hands.reprojection_error()[0] < 0.06 * height
    at = dict(zip(hands.joint_names, hands.joints[0], strict=True))
    assert at["middle3"][1] < at["middle1"][1] < at["wrist"][1], "fingers up"
    assert at["thumb3"][0] > at["index1"][0] > at["pinky1"][0], "its thumb is on the right"
    # The fingers are straight.
    fingers = hands.hand_pose[0].reshape(15, 3)[:12]
    assert np.degrees(np.linalg.norm(fingers, axis=-1)).mean() < 30
    assert 0.15 < np.ptp(hands.vertices[0], axis=0).max() < 0.3


def test_a_photo_without_a_hand(tmp_path, capsys):
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "grey.png")
    words = ["hands", str(tmp_path / "grey.png"), "--out", str(tmp_path / "out"), "--no-people"]
    assert main.main(words) == 1
    assert "grey.png: no hand was found" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
