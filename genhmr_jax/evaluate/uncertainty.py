"""Whether the confidence predicts the error.

The measures are rank correlation, calibration, sparsification, and the error of the most confident
of K hypotheses. Functions of arrays return plain numbers. The confidence c (0..1) is
`People.joint_confidence`, the probability that the error of a joint is at most NEAR_MM. Errors are
in mm.
"""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from genhmr_jax.core.confidence import NEAR
from genhmr_jax.evaluate.tables import line
from genhmr_jax.io.atomic import atomic_path

BINS = 10
NEAR_MM = 1000 * NEAR
CHOICES = ("best", "most_confident", "first", "any")
"""Rules that choose one of K hypotheses, see `hypotheses`."""


def rank_correlation(confidence: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"]) -> float:
    """Spearman's correlation of 1 - c and the error; NaN if either is constant.

    It is 1 if lower confidence always means a larger error.
    """
    confidence, error = np.ravel(confidence), np.ravel(error)
    if len(error) < 2 or not np.ptp(confidence) or not np.ptp(error):
        return float("nan")
    return float(stats.spearmanr(-confidence, error).statistic)


def by_quantile(
    confidence: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"], bins: int = BINS
) -> list[dict[str, float]]:
    """Means of groups of equal size, from the least to the most confident.

    Each is {"confidence", "error_mm", "within", "count"}, where "within" is the share of errors of
    at most NEAR_MM. Groups are formed by rank; equal confidences keep their order.
    """
    order = np.argsort(np.ravel(confidence), kind="stable")
    confidence, error = np.ravel(confidence)[order], np.ravel(error)[order]
    parts = [part for part in np.array_split(np.arange(len(error)), bins) if len(part)]
    return [
        {
            "confidence": float(confidence[part].mean()),
            "error_mm": float(error[part].mean()),
            "within": float((error[part] <= NEAR_MM).mean()),
            "count": len(part),
        }
        for part in parts
    ]


def calibration_error(groups: list[dict[str, float]]) -> float:
    """Expected calibration error of "within NEAR_MM" (Naeini et al. 2015).

    It is the mean of |confidence - within| over groups of `by_quantile`.
    """
    gaps = [abs(group["confidence"] - group["within"]) for group in groups]
    return float(np.average(gaps, weights=[group["count"] for group in groups]))


def sparsification(
    score: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    """The sparsification curve, k = 0..N-1.

    Its values are the mean error after the k rows with the highest scores are removed, divided by
    the mean error of all rows.

    Args:
      score: -c, or the error itself for the oracle.
      error: not all zero.
    """
    error = np.ravel(error)[np.argsort(-np.ravel(score), kind="stable")]
    remaining = np.cumsum(error[::-1])[::-1] / np.arange(len(error), 0, -1)
    return remaining / error.mean()


def sparsification_area(confidence: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"]) -> float:
    """AUSE (Ilg et al. 2018): the mean gap between the curves by confidence and by error.

    It is 0 if the orders agree; `chance_area` is the value of a random confidence.
    """
    if not np.any(error):
        return float("nan")
    by_confidence = sparsification(-np.ravel(confidence), error)
    return float(np.mean(by_confidence - sparsification(error, error)))


def chance_area(error: Float[np.ndarray, "N"]) -> float:
    """AUSE of a random confidence, whose expected curve is constantly 1."""
    return float(np.mean(1.0 - sparsification(error, error))) if np.any(error) else float("nan")


def expected_pick(
    errors: Float[np.ndarray, "N K"], score: Float[np.ndarray, "N K"], count: int
) -> Float[np.ndarray, "N"]:
    """Expected error of the hypothesis with the highest score among `count` of the K hypotheses.

    The expectation is over all subsets of `count` hypotheses, and is exact. The hypothesis of rank
    i (0 is the highest) has the highest score in C(K - 1 - i, count - 1) of the C(K, count)
    subsets. A score of -errors gives best-of-count.

    Raises:
      ValueError: count is not from 1 to K.
    """
    total = errors.shape[1]
    if not 1 <= count <= total:
        raise ValueError(f"{count} of {total} hypotheses cannot be chosen: 1 to {total}")
    order = np.argsort(-score, axis=1, kind="stable")
    chance = np.ones(1)
    for i in range(1, total):  # times the ratio C(K-1-i, c-1) / C(K-i, c-1)
        chance = np.append(chance, chance[-1] * max(total - i - count + 1, 0) / (total - i))
    return np.take_along_axis(errors, order, 1) @ (chance * count / total)


def measure(
    confidence: Float[np.ndarray, "N 24"], errors: Float[np.ndarray, "N 24"], names: tuple[str, ...]
) -> dict[str, Any]:
    """All figures of N people: {"joints", "people", "per_joint": {name: figures}}.

    "joints" is over all joints of all people, "people" over the means of each person. All hold
    "mean_error_mm", "spearman", "ause" and "ause_chance". The first two also hold "deciles"
    (`by_quantile`), and "joints" the "calibration_error".

    Args:
      confidence: of each joint.
      errors: of each joint, mm.
      names: of the 24 joints.
    """
    pooled = _figures(confidence, errors) | {"deciles": by_quantile(confidence, errors)}
    means = confidence.mean(1), errors.mean(1)
    people = _figures(*means) | {"deciles": by_quantile(*means)}
    return {
        "joints": pooled | {"calibration_error": calibration_error(pooled["deciles"])},
        "people": people,
        "per_joint": {
            name: _figures(confidence[:, i], errors[:, i]) for i, name in enumerate(names)
        },
    }


def _figures(confidence: np.ndarray, error: np.ndarray) -> dict[str, float]:
    return {
        "mean_error_mm": float(np.mean(error)),
        "spearman": rank_correlation(confidence, error),
        "ause": sparsification_area(confidence, error),
        "ause_chance": chance_area(error),
    }


def hypotheses(
    errors: Float[np.ndarray, "N K"], confidence: Float[np.ndarray, "N K"]
) -> list[dict[str, float]]:
    """Mean error of the hypothesis that each rule chooses among k = 1, 2, 4, ... K hypotheses.

    Args:
      errors: of each hypothesis, mm, the best first, as `People` orders them.
      confidence: their mean confidence.

    Returns:
      {"k", "best", "most_confident", "first", "any"} for each k, mm.
    """
    total = errors.shape[1]
    counts = sorted({min(2**i, total) for i in range(total.bit_length() + 1)})
    by_rank = np.tile(-np.arange(total, dtype=float), (len(errors), 1))
    scores = {"best": -errors, "most_confident": confidence, "first": by_rank}
    pick = lambda name, count: float(expected_pick(errors, scores[name], count).mean())
    return [
        {"k": count, **{name: pick(name, count) for name in scores}, "any": float(errors.mean())}
        for count in counts
    ]


def plot(
    report: dict[str, Any],
    confidence: Float[np.ndarray, "N 24"],
    errors: Float[np.ndarray, "N 24"],
    file: pathlib.Path,
) -> bool:
    """Plot calibration, sparsification and the choice among hypotheses.

    Args:
      report: of `measure`; it may have "hypotheses" of `hypotheses`.
      confidence: of each joint.
      errors: of each joint, mm.
      file: the PNG to write.

    Returns:
      False if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # an optional extra: genhmr_jax[plots]
    except ImportError:
        return False
    figure = Figure(figsize=(12, 3.6), layout="constrained", dpi=110)
    left, middle, right = figure.subplots(1, 3)

    # 1. Calibration: error and share of small errors over the confidence.
    column = lambda name: [group[name] for group in report["joints"]["deciles"]]
    left.plot(column("confidence"), column("error_mm"), "o-", label="mean error, mm")
    left.set(xlabel="confidence of the joint (deciles)", ylabel="error, mm", title="calibration")
    share = left.twinx()
    share.plot(column("confidence"), column("within"), "s--", color="C1")
    share.plot([0, 1], [0, 1], ":", color="grey")
    share.set(ylabel=f"share within {NEAR_MM:.0f} mm (dashed)", ylim=(0, 1.02), xlim=(0, 1))

    # 2. Sparsification: error of the rest after the least confident joints are removed.
    for label, score in (("by confidence", -confidence.ravel()), ("by error", errors.ravel())):
        curve = sparsification(score, errors)
        middle.plot(np.arange(len(curve)) / len(curve), curve, label=label)
    middle.axhline(1.0, color="grey", linestyle=":", label="by chance")
    title = f"sparsification: AUSE {_ause(report)}"
    middle.set(xlabel="share of joints removed", ylabel="error of the rest / of all", title=title)
    middle.legend(fontsize=8)

    # 3. Error of the chosen hypothesis.
    rows = report.get("hypotheses", [])
    for name in CHOICES if rows else ():
        values, label = [row[name] for row in rows], name.replace("_", " ")
        right.plot([row["k"] for row in rows], values, "o-", markersize=4, label=label)
        right.legend(fontsize=8)
    right.set(xlabel="hypotheses K", ylabel="PA-MPJPE, mm", title="the one chosen of K")
    with atomic_path(file) as temporary:
        figure.savefig(temporary)
    return True


def _ause(report: dict[str, Any], of: str = "joints") -> str:
    figures = report[of]
    return f"{figures['ause']:.3f} (chance {figures['ause_chance']:.3f})"


def table(report: dict[str, Any]) -> str:
    """The Markdown tables of `measure`, and of `hypotheses` if there are any."""
    joints, people = report["joints"], report["people"]
    deciles = joints["deciles"]
    lines = [
        f"Confidence and PA error: Spearman {joints['spearman']:.3f} over joints, "
        f"{people['spearman']:.3f} over people; AUSE {_ause(report)} over joints, "
        f"{_ause(report, 'people')} over people; calibration error of 'within {NEAR_MM:.0f} mm' "
        f"{joints['calibration_error']:.3f}.",
        "",
        line("decile of confidence", *range(1, len(deciles) + 1)),
        "|---" * (len(deciles) + 1) + "|",
        line("confidence", *(f"{d['confidence']:.2f}" for d in deciles)),
        line("error of the joint, mm", *(f"{d['error_mm']:.0f}" for d in deciles)),
        line(f"share within {NEAR_MM:.0f} mm", *(f"{d['within']:.2f}" for d in deciles)),
        "",
        "| joint | error, mm | Spearman | AUSE | chance |",
        "|---|---|---|---|---|",
    ]
    for name, row in report["per_joint"].items():
        area = f"{row['ause']:.3f} | {row['ause_chance']:.3f}"
        lines.append(f"| {name} | {row['mean_error_mm']:.1f} | {row['spearman']:.2f} | {area} |")
    if rows := report.get("hypotheses"):
        lines += ["", line("PA-MPJPE, mm, of K hypotheses", *(f"K={row['k']}" for row in rows))]
        lines += ["|---" * (len(rows) + 1) + "|"]
        for name in CHOICES:
            lines.append(line(name.replace("_", " "), *(f"{row[name]:.1f}" for row in rows)))
    return "\n".join(lines)
