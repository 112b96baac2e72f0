"""Uncertainty measures against plain NumPy forms, and on hand-made cases whose answers are
known."""

import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from genhmr_jax.evaluate import uncertainty

RNG = np.random.default_rng(0)
CONFIDENCE = RNG.uniform(0, 1, 200)
ERROR = 50 + 100 * (1 - CONFIDENCE) + RNG.normal(0, 30, 200).clip(-45, None)
NAMES = tuple(f"joint {i}" for i in range(24))


def ranks(values):
    """1-based ranks, ties averaged, by counting."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def test_rank_correlation_is_pearsons_of_ranks_with_ties():
    confidence = np.round(CONFIDENCE, 1)
    expected = np.corrcoef(ranks(-confidence), ranks(ERROR))[0, 1]
    assert uncertainty.rank_correlation(confidence, ERROR) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(stats.spearmanr(-confidence, ERROR)[0], abs=1e-12)
    assert uncertainty.rank_correlation([0.9, 0.5, 0.1], [1, 2, 3]) == pytest.approx(1)
    assert uncertainty.rank_correlation([0.1, 0.5, 0.9], [1, 2, 3]) == pytest.approx(-1)
    assert np.isnan(uncertainty.rank_correlation([0.5, 0.5], [1, 2])) and np.isnan(
        uncertainty.rank_correlation([0.5], [1])
    )


def test_quantile_groups_by_hand():
    groups = uncertainty.by_quantile(
        np.array([0.4, 0.1, 0.3, 0.2, 0.5]), np.array([40, 210, 110, 90, 50]), bins=2
    )
    assert [g["count"] for g in groups] == [3, 2]
    assert groups[0]["confidence"] == pytest.approx(0.2) and groups[0]["error_mm"] == pytest.approx(
        (210 + 90 + 110) / 3
    )
    assert groups[0]["within"] == pytest.approx(1 / 3) and groups[1] == {
        "confidence": pytest.approx(0.45),
        "error_mm": 45,
        "within": 1,
        "count": 2,
    }
    assert uncertainty.calibration_error(groups) == pytest.approx(
        (3 * abs(0.2 - 1 / 3) + 2 * abs(0.45 - 1)) / 5
    )
    assert len(uncertainty.by_quantile(np.ones(3), np.ones(3), bins=10)) == 3


def sparsification_by_hand(score, error):
    order = np.argsort(-score)
    return np.array([error[order[k:]].mean() for k in range(len(error))]) / error.mean()


def test_sparsification_takes_the_most_doubtful_away_first():
    np.testing.assert_allclose(
        uncertainty.sparsification(-CONFIDENCE, ERROR),
        sparsification_by_hand(-CONFIDENCE, ERROR),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        uncertainty.sparsification(np.array([3, 1, 2]), np.array([6.0, 0, 3])), [1, 0.5, 0]
    )


def test_area_is_zero_for_perfect_doubt_and_the_chance_level_for_none():
    area, chance = (
        uncertainty.sparsification_area(CONFIDENCE, ERROR),
        uncertainty.chance_area(ERROR),
    )
    expected = (
        sparsification_by_hand(-CONFIDENCE, ERROR) - sparsification_by_hand(ERROR, ERROR)
    ).mean()
    assert area == pytest.approx(expected, abs=1e-12) and 0 < area < chance
    assert uncertainty.sparsification_area(-ERROR, ERROR) == pytest.approx(0, abs=1e-12)
    blind = [
        uncertainty.sparsification_area(RNG.permutation(CONFIDENCE), ERROR) for _ in range(300)
    ]
    assert np.mean(blind) == pytest.approx(chance, abs=0.01)
    assert (
        uncertainty.sparsification_area(ERROR, ERROR) > chance
    )  # doubt that is wrong is worse than none
    assert np.isnan(uncertainty.sparsification_area(CONFIDENCE, np.zeros(200))) and np.isnan(
        uncertainty.chance_area(np.zeros(3))
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_expected_pick_is_the_mean_over_all_choices(count):
    errors, score = RNG.uniform(0, 100, (4, 5)), RNG.normal(size=(4, 5))
    expected = [
        np.mean(
            [
                e[max(chosen, key=lambda i: s[i])]
                for chosen in itertools.combinations(range(5), count)
            ]
        )
        for e, s in zip(errors, score, strict=True)
    ]
    np.testing.assert_allclose(uncertainty.expected_pick(errors, score, count), expected)


def test_expected_pick_of_too_many():
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"{count} of 5 hypotheses"):
            uncertainty.expected_pick(np.ones((1, 5)), np.ones((1, 5)), count)


def test_choice_among_hypotheses():
    errors = np.array([[30.0, 10, 20, 40], [5, 7, 6, 8]])
    confidence = np.array([[0.1, 0.2, 0.9, 0.3], [0.5, 0.1, 0.2, 0.3]])
    rows = uncertainty.hypotheses(errors, confidence)
    assert [row["k"] for row in rows] == [1, 2, 4]
    mean = errors.mean()
    assert rows[0] == {
        "k": 1,
        "best": mean,
        "most_confident": mean,
        "first": mean,
        "any": mean,
    }
    assert rows[-1] == {
        "k": 4,
        "best": 7.5,
        "most_confident": 12.5,
        "first": 17.5,
        "any": mean,
    }
    assert rows[1]["best"] == pytest.approx(np.mean([[10, 20, 30, 10, 10, 20], [5, 5, 5, 6, 7, 6]]))
    assert [row["k"] for row in uncertainty.hypotheses(errors[:, :3], confidence[:, :3])] == [
        1,
        2,
        3,
    ]


def people():
    confidence = RNG.uniform(0.1, 0.9, (60, 24))
    return confidence, 200 * (1 - confidence) * RNG.uniform(0.8, 1.2, (60, 24))


def test_all_figures_of_people():
    confidence, errors = people()
    report = uncertainty.measure(confidence, errors, NAMES)
    assert report["joints"]["spearman"] == pytest.approx(
        stats.spearmanr(-confidence.ravel(), errors.ravel())[0]
    )
    assert report["people"]["spearman"] == pytest.approx(
        stats.spearmanr(-confidence.mean(1), errors.mean(1))[0]
    )
    assert report["per_joint"]["joint 3"]["spearman"] == pytest.approx(
        stats.spearmanr(-confidence[:, 3], errors[:, 3])[0]
    )
    assert report["per_joint"]["joint 3"]["mean_error_mm"] == pytest.approx(errors[:, 3].mean())
    deciles = report["joints"]["deciles"]
    assert len(deciles) == 10 and sum(d["count"] for d in deciles) == confidence.size
    assert all(
        a["error_mm"] > b["error_mm"] and a["confidence"] < b["confidence"]
        for a, b in itertools.pairwise(deciles)
    )
    assert (
        0 < report["joints"]["ause"] < report["joints"]["ause_chance"]
        and report["joints"]["calibration_error"] > 0
    )
    text = uncertainty.table(report)
    assert "| joint 3 |" in text and "hypotheses" not in text
    assert "| most confident |" in uncertainty.table(
        report | {"hypotheses": uncertainty.hypotheses(errors, confidence)}
    )


def test_plot(tmp_path, monkeypatch):
    confidence, errors = people()
    report = uncertainty.measure(confidence, errors, NAMES) | {
        "hypotheses": uncertainty.hypotheses(errors, confidence)
    }
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not uncertainty.plot(report, confidence, errors, tmp_path / "none.png") and not list(
        tmp_path.iterdir()
    )
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    assert uncertainty.plot(report, confidence, errors, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
