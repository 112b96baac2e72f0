"""Protocols of hands against numbers computed by hand in float64; files for the servers."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from genhmr_jax.data.hands.releases import HandRecord
from genhmr_jax.evaluate import hand_predictions, hand_protocols
from genhmr_jax.evaluate.hand_metrics import aligned, auc
from genhmr_jax.evaluate.hand_protocols import HandPoints, true_points
from genhmr_jax.geometry.hand import HAND21, MANO_21
from genhmr_jax.io.errors import InputError

AUC_OF_10MM = 79.5 / 99  # thresholds are k 50 / 99 mm: PCK is 0 up to k = 19 and 1 from k = 20


def mesh():
    """778 vertices of a grid with distances of 40 mm."""
    i = np.arange(778)
    return 0.04 * np.stack([i % 10, i // 10 % 10, i // 100], -1) + [0.0, 0.0, 1.0]


@pytest.fixture
def truth():
    keypoints = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 21, 3)) + [0.0, 0.0, 1.0]
    return HandPoints(keypoints, np.stack([mesh(), mesh()]))


def moved(points, scale=1.0, turn=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)):
    """All points after one similarity transform."""
    change = lambda x: scale * (x @ Rotation.from_rotvec(turn).as_matrix().T) + shift
    return HandPoints(change(points.keypoints), change(points.vertices))


def test_freihand_of_a_shift(truth):
    result = hand_protocols.freihand(moved(truth, shift=(0.006, 0.008, 0.0)), truth)
    expected = {"mpjpe_mm": 10, "auc_j": AUC_OF_10MM, "mpvpe_mm": 10, "auc_v": AUC_OF_10MM}
    expected |= {"f_5": 0, "f_15": 1}
    # Rounding leaves errors above the first threshold, which is 0.
    area = 98.5 / 99
    expected |= {"pa_mpjpe_mm": 0, "pa_auc_j": area, "pa_mpvpe_mm": 0, "pa_auc_v": area}
    expected |= {"pa_f_5": 1, "pa_f_15": 1}
    assert result.keys() == expected.keys()
    # The official code adds 1e-8 to norms, which leaves 1e-6 mm.
    assert result == pytest.approx(expected, abs=1e-5)


def test_freihand_of_a_similarity(truth):
    result = hand_protocols.freihand(moved(truth, 2.0, (0.3, -1.0, 2.0), (0.1, 0, 0)), truth)
    assert result["pa_mpjpe_mm"] < 1e-4 and result["pa_mpvpe_mm"] < 1e-4
    assert result["mpjpe_mm"] > 500 and result["auc_j"] == 0


def test_freihand_is_a_mean_over_hands_and_keypoints(truth):
    keypoints = truth.keypoints.copy()
    keypoints[0, 3] += [0.0, 0.042, 0.0]
    result = hand_protocols.freihand(HandPoints(keypoints), truth)
    # 42 mm is 83.16 thresholds: 15.5 / 99 of the area is left for that one of 42 keypoints.
    assert result["mpjpe_mm"] == pytest.approx(1.0) and len(result) == 4
    assert result["auc_j"] == pytest.approx((41 + 15.5 / 99) / 42)


def test_freihand_with_another_mesh(truth):
    """F-scores after the alignment of the keypoints: 100 of 778 vertices, so precision 1."""
    twice = moved(truth, 2.0, (0.0, 0.5, 0.0))
    predicted = HandPoints(twice.keypoints, twice.vertices[:, :100])
    result = hand_protocols.freihand(predicted, truth)
    recall = 100 / 778
    assert result["pa_f_5"] == pytest.approx(2 * recall / (1 + recall))
    assert "mpvpe_mm" not in result and result["f_5"] < 0.1


def test_aligned_is_the_official_transform():
    """As align_w_scale of FreiHAND, step by step, with scipy's orthogonal_procrustes."""
    rng = np.random.default_rng(1)
    target, predicted = rng.normal(size=(21, 3)), rng.normal(size=(21, 3))
    a, b = target - target.mean(0), predicted - predicted.mean(0)
    rotation, scale = orthogonal_procrustes(a / np.linalg.norm(a), b / np.linalg.norm(b))
    expected = b / np.linalg.norm(b) @ rotation.T * scale * np.linalg.norm(a) + target.mean(0)
    np.testing.assert_allclose(aligned(predicted, target), expected, atol=1e-7)
    many = aligned(np.stack([predicted, target]), np.stack([target, target]))
    np.testing.assert_allclose(many, [expected, target], atol=1e-7)
    # A reflection is allowed.
    np.testing.assert_allclose(aligned(target * [-1, 1, 1], target), target, atol=1e-7)
    assert np.isfinite(aligned(np.zeros((21, 3)), target)).all()


def test_auc_by_hand():
    assert auc(np.full((3, 21), 0.01)) == pytest.approx(AUC_OF_10MM, abs=1e-12)
    assert auc(np.array([0.0])) == 1.0  # not above the threshold 0
    # 25 mm is between thresholds 49 and 50.
    assert auc(np.array([0.025, 0.2])) == pytest.approx(0.5 * 49.5 / 99)


def test_ho3d_alignment_of_scale_and_translation():
    target, predicted = np.zeros((1, 21, 3)), np.zeros((1, 21, 3))
    middle = HAND21.index("middle_mcp")
    assert MANO_21[4] == "middle1"  # joint 4 of the official align_sc_tr
    target[0, middle], predicted[0, middle] = [0.1, 0, 0], [0, 0.2, 0]
    predicted += [0.3, 0.4, 0.5]
    result = hand_protocols.ho3d(HandPoints(predicted), HandPoints(target))
    # Scaled by 1/2, the joint is at (0, 0.1, 0): an error of 100 sqrt(2) mm for one of 21.
    assert result["st_mpjpe_mm"] == pytest.approx(100 * np.sqrt(2) / 21)
    assert result["st_auc_j"] == pytest.approx(20 / 21)
    zero = hand_protocols.scale_aligned(np.zeros((1, 21, 3)), target)
    np.testing.assert_array_equal(zero, np.zeros((1, 21, 3)))


def test_ho3d_has_the_measures_of_freihand(truth):
    predicted = moved(truth, shift=(0.006, 0.008, 0.0))
    result = hand_protocols.ho3d(predicted, truth)
    assert result["st_mpjpe_mm"] == pytest.approx(0, abs=1e-9)
    assert hand_protocols.freihand(predicted, truth).items() <= result.items()


def test_dexycb(truth):
    keypoints = truth.keypoints + [0.0, 0.0, 0.01]
    keypoints[:, 0] -= [0.0, 0.0, 0.021]
    result = hand_protocols.dexycb(HandPoints(keypoints), truth)
    assert result["mpjpe_mm"] == pytest.approx((20 * 10 + 11) / 21)
    assert result["rr_mpjpe_mm"] == pytest.approx(20 * 21 / 21)
    assert 0 < result["pa_mpjpe_mm"] < result["mpjpe_mm"]


def test_numbers_of_hands(truth):
    one = HandPoints(truth.keypoints[:1], truth.vertices[:1])
    for measure in (hand_protocols.freihand, hand_protocols.ho3d, hand_protocols.dexycb):
        with pytest.raises(ValueError, match="1 predictions of 2 hands"):
            measure(one, truth)
    with pytest.raises(ValueError, match="hands"):
        hand_protocols.freihand(HandPoints(truth.keypoints, truth.vertices[:1]), truth)
    with pytest.raises(ValueError, match="not finite"):
        hand_protocols.ho3d(HandPoints(truth.keypoints * np.nan), truth)


def record(**fields):
    box = np.array([0.0, 0.0, 100.0, 50.0])
    return HandRecord(**({"name": "a", "image": Path("a.jpg"), "right": True, "box": box} | fields))


def test_hint_pck():
    points = np.concatenate([np.zeros((21, 2)), np.ones((21, 1))], -1)
    hidden = np.arange(21) >= 20
    unknown = points.copy()
    unknown[1, 2] = 0
    records = [
        record(keypoints=points, occluded=hidden),
        record(keypoints=unknown, occluded=hidden),
    ]
    predicted = np.zeros((2, 21, 2))
    predicted[0, 0] = [3.0, 4.0]  # 5 px: not above 0.05 of the longer side
    predicted[1, 0] = [5.0, 1.0]
    predicted[0, 20] = [12.0, 0.0]
    predicted[1, 1] = [99.0, 0.0]  # not labelled
    result = hand_protocols.hint_pck(predicted, records)
    # First the share of each keypoint, then the mean over keypoints.
    assert result["all_0.05"] == pytest.approx((19 + 0.5 + 0.5) / 21)
    assert result["visible_0.05"] == pytest.approx((19 + 0.5) / 20)
    assert result["occluded_0.05"] == 0.5 and result["occluded_0.15"] == 1
    assert result["all_0.1"] == pytest.approx(20.5 / 21)
    with pytest.raises(InputError, match="no 2D keypoints"):
        hand_protocols.hint_pck(predicted[:1], [record()])
    with pytest.raises(ValueError, match="2 predictions of 1 hands"):
        hand_protocols.hint_pck(predicted, records[:1])
    assert "occluded_0.05" not in hand_protocols.hint_pck(predicted[:1], [record(keypoints=points)])


def test_true_points(truth):
    records = [
        record(keypoints3d=points, vertices=vertices)
        for points, vertices in zip(truth.keypoints, truth.vertices, strict=True)
    ]
    np.testing.assert_array_equal(true_points(records).keypoints, truth.keypoints)
    np.testing.assert_array_equal(true_points(records).vertices, truth.vertices)
    without = [record(keypoints3d=truth.keypoints[0])]
    assert true_points(without, vertices=False).vertices is None
    with pytest.raises(InputError, match="has no vertices"):
        true_points(without)
    with pytest.raises(InputError, match="no 21 labelled 3D keypoints"):
        true_points([record()])
    with pytest.raises(InputError, match="there are none"):
        true_points([])


def test_predictions_of_freihand(truth, tmp_path):
    path = tmp_path / "pred.json"
    hand_predictions.write_predictions(path, truth, "freihand", samples=2)
    content = json.loads(path.read_text())
    assert len(content) == 2 and np.shape(content[0]) == (2, 21, 3)
    np.testing.assert_allclose(content[0], truth.keypoints, atol=1e-7)
    np.testing.assert_allclose(content[1], truth.vertices, atol=1e-7)
    found = hand_predictions.read_predictions(path, "freihand")
    np.testing.assert_array_equal(found.keypoints, content[0])


def test_predictions_of_ho3d(truth, tmp_path):
    """MANO's order and OpenGL's axes."""
    path = tmp_path / "pred.json"
    hand_predictions.write_predictions(path, truth, "ho3d", samples=2)
    content = json.loads(path.read_text())
    flip = np.array([1, -1, -1])
    for name, place in (("wrist", 0), ("index_mcp", 1), ("thumb_cmc", 13), ("thumb_tip", 16)):
        expected = truth.keypoints[1, HAND21.index(name)] * flip
        np.testing.assert_allclose(content[0][1][place], expected, atol=1e-7)
    np.testing.assert_allclose(content[1][0][7], truth.vertices[0, 7] * flip, atol=1e-7)
    # HaMeR's order of its submission, hamer/utils/pose_utils.py.
    order = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20]
    np.testing.assert_allclose(content[0][0], truth.keypoints[0, order] * flip, atol=1e-7)
    found = hand_predictions.read_predictions(path, "ho3d")
    np.testing.assert_allclose(found.keypoints, truth.keypoints, atol=1e-7)
    assert hand_protocols.ho3d(found, truth)["mpvpe_mm"] < 1e-3


def test_predictions_refused(truth, tmp_path):
    path, write = tmp_path / "pred.json", hand_predictions.write_predictions
    with pytest.raises(InputError, match="has 2 hands, but freihand needs 3960"):
        write(path, truth, "freihand")
    with pytest.raises(InputError, match="choose freihand or ho3d"):
        write(path, truth, "hint", 2)
    with pytest.raises(InputError, match="MANO's 778"):
        write(path, HandPoints(truth.keypoints, truth.vertices[:, :9]), "ho3d", 2)
    with pytest.raises(InputError, match="no vertices"):
        write(path, HandPoints(truth.keypoints), "ho3d", 2)
    with pytest.raises(InputError, match="hand 0 is behind the camera"):
        write(path, moved(truth, -1.0), "ho3d", 2)
    with pytest.raises(InputError, match="not finite"):
        write(path, HandPoints(truth.keypoints * np.nan, truth.vertices), "ho3d", 2)
    with pytest.raises(InputError, match=r"is not a .json"):
        write(tmp_path / "pred.txt", truth, "ho3d", 2)
    assert not list(tmp_path.iterdir())
    path.write_text("[1]")
    with pytest.raises(InputError, match="is not a list of keypoints and vertices"):
        hand_predictions.read_predictions(path, "ho3d")
