"""The user's hands: our own form, OpenPose's, and what is refused."""

import json

import numpy as np
import pytest

from genhmr_jax.data.annotations.user import as_image_file, read_hands
from genhmr_jax.io.errors import InputError

POINTS = np.stack([np.arange(21) * 3.0 + 10, np.arange(21) * 2.0 + 20, np.full(21, 0.8)], 1)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_our_own_form(tmp_path):
    hands = [
        {"keypoints": POINTS.tolist(), "right": True},
        {"keypoints": POINTS[:, :2].tolist(), "right": False},
        {"box": [5, 6, 70, 90]},
    ]
    file = write(tmp_path / "hands.json", {"a": hands, "b.jpg": hands[0], "c": []})
    given = read_hands(file)
    first, second, third = given.of(as_image_file("photos/a.jpg")).values
    np.testing.assert_allclose(first.keypoints, POINTS, rtol=1e-6)
    assert first.right is True and second.right is False and third.right is None
    assert (second.keypoints[:, 2] == 1).all()
    assert third.box.tolist() == [5, 6, 70, 90] and third.keypoints is None
    assert len(given.of(as_image_file("b.jpg")).values) == 1
    assert given.of(as_image_file("c.png")).values == []
    with pytest.raises(InputError, match="no hand given for 'd'"):
        given.of(as_image_file("d.jpg"))


def test_openpose(tmp_path):
    person = {
        "pose_keypoints_2d": [],
        "hand_left_keypoints_2d": POINTS.ravel().tolist(),
        "hand_right_keypoints_2d": [0] * 63,
    }
    nobody = {"pose_keypoints_2d": [1.0] * 75}
    write(tmp_path / "a_keypoints.json", {"people": [person, nobody]})
    (tmp_path / "b_keypoints.json").write_text("{")
    given = read_hands(tmp_path)
    (hand,) = given.of(as_image_file("a.jpg")).values
    assert hand.right is False
    np.testing.assert_allclose(hand.keypoints, POINTS, rtol=1e-6)
    with pytest.raises(InputError, match="b_keypoints.json: is not JSON"):
        given.of(as_image_file("b.jpg"))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"keypoints": POINTS.tolist()}, "does not say whether it is a right hand"),
        ({"keypoints": POINTS[:20].tolist(), "right": True}, "is not 21 x 3 or 21 x 2 numbers"),
        ({"keypoints": POINTS.tolist(), "right": 1}, "right is neither true nor false"),
        ({"box": [5, 6, 5, 90]}, "a box has no area"),
        ({"right": True}, "has neither keypoints nor a box"),
    ],
)
def test_what_is_refused(tmp_path, record, said):
    with pytest.raises(InputError, match=said):
        read_hands(write(tmp_path / "hands.json", {"a": [record]}))
