import numpy as np
import pytest

from genhmr_jax.evaluate.hand_metrics import auc, f_score


def test_f_score_by_hand():
    target = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]])
    predicted = np.array([[0.004, 0, 0], [0.112, 0, 0]])
    # At 5 mm: precision 1/2, recall 1/4. At 15 mm: precision 1, recall 1/2.
    assert f_score(predicted, target, 0.005) == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert f_score(predicted, target, 0.015) == pytest.approx(2 * 0.5 / 1.5)
    assert f_score(predicted, target, 0.001) == 0.0
    assert f_score(target, target, 0.005) == 1.0
    with pytest.raises(ValueError, match="empty"):
        f_score(np.zeros((0, 3)), target, 0.005)


def test_f_score_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 0.1, (80, 3)), rng.uniform(0, 0.1, (60, 3))
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    precision, recall = (distance.min(1) < 0.015).mean(), (distance.min(0) < 0.015).mean()
    expected = 2 * precision * recall / (precision + recall)
    assert f_score(a, b, 0.015) == pytest.approx(expected)


def test_auc():
    """All errors of e give 1 - e / 50 mm, as far as 100 thresholds resolve it."""
    assert auc(np.zeros((3, 21))) == pytest.approx(1.0)
    assert auc(np.full((3, 21), 0.01)) == pytest.approx(0.8, abs=0.01)
    assert auc(np.full((3, 21), 0.06)) == 0.0
    mixed = np.array([[0.01, 0.06]])
    assert auc(mixed) == pytest.approx(auc(mixed[:, :1]) / 2)
    with pytest.raises(ValueError, match="no errors"):
        auc(np.zeros(0))
