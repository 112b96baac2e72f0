"""Does confidence predict error? Rank correlation, calibration, sparsification, and best-of-K against the most confident of K.

Arrays in, plain numbers out. Confidence c (0..1) is `People.joint_confidence`: the probability that a joint is right; errors are mm.
"""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.systems.genhmr.system import NEAR

BINS = 10
NEAR_MM = 1000 * NEAR  # "right": what a confidence is the probability of


def rank_correlation(confidence: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"]) -> float:
    """Spearman's correlation of doubt (1 - c) and error: 1 where the less confident is always the worse; NaN where either is constant."""
    confidence, error = np.ravel(confidence), np.ravel(error)
    if len(error) < 2 or not np.ptp(confidence) or not np.ptp(error):
        return float("nan")
    return float(stats.spearmanr(-confidence, error).statistic)


def by_quantile(confidence: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"], bins: int = BINS) -> list[dict[str, float]]:
    """Means of equally large groups, from the least to the most confident: {"confidence", "error_mm", "within", "count"}.

    "within": share of errors of at most NEAR_MM. Groups are cut by rank; equal confidences keep their order.
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
    """Expected calibration error of "within NEAR_MM" (Naeini et al. 2015): mean of |confidence - within| over groups of `by_quantile`."""
    gaps = [abs(group["confidence"] - group["within"]) for group in groups]
    return float(np.average(gaps, weights=[group["count"] for group in groups]))


def sparsification(score: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Mean error of what remains after the k highest-scored are taken away, k = 0..N-1, over the mean error of all.

    Args:
      score: what is taken away first; the doubt, or for the oracle the error itself.
      error: not all zero.
    """
    error = np.ravel(error)[np.argsort(-np.ravel(score), kind="stable")]
    remaining = np.cumsum(error[::-1])[::-1] / np.arange(len(error), 0, -1)
    return remaining / error.mean()


def sparsification_area(confidence: Float[np.ndarray, "N"], error: Float[np.ndarray, "N"]) -> float:
    """AUSE (Ilg et al. 2018): mean gap between the curves by doubt and by error; 0 for perfect doubt. Chance: `chance_area`."""
    if not np.any(error):
        return float("nan")
    return float(np.mean(sparsification(-np.ravel(confidence), error) - sparsification(error, error)))


def chance_area(error: Float[np.ndarray, "N"]) -> float:
    """AUSE of a doubt that knows nothing: its curve is flat at 1 in expectation."""
    return float(np.mean(1.0 - sparsification(error, error))) if np.any(error) else float("nan")


def expected_pick(errors: Float[np.ndarray, "N K"], score: Float[np.ndarray, "N K"], count: int) -> Float[np.ndarray, "N"]:
    """Expected error of the one with the highest score among `count` of the K hypotheses, over all choices of `count` out of K.

    The hypothesis at rank i (0 is the highest) is the one picked in C(K - 1 - i, count - 1) of the C(K, count) choices; a score of
    -errors gives best-of-count. No further sampling is needed, and no chance is left.

    Raises:
      ValueError: count is not from 1 to K.
    """
    total = errors.shape[1]
    if not 1 <= count <= total:
        raise ValueError(f"{count} of {total} hypotheses cannot be chosen: 1 to {total}")
    order = np.argsort(-score, axis=1, kind="stable")
    chance = np.ones(1)
    for i in range(1, total):  # ratio of neighbouring binomials: C(K-1-i, c-1) / C(K-i, c-1)
        chance = np.append(chance, chance[-1] * max(total - i - count + 1, 0) / (total - i))
    return np.take_along_axis(errors, order, 1) @ (chance * count / total)


def measure(confidence: Float[np.ndarray, "N 24"], errors: Float[np.ndarray, "N 24"], names: tuple[str, ...]) -> dict[str, Any]:
    """All figures of N people: {"joints": all joints pooled, "people": their means, "per_joint": {name: ...}}.

    Each holds "mean_error_mm", "spearman", "ause", "ause_chance"; the first two also "deciles" (`by_quantile`), and "joints" the
    "calibration_error".

    Args:
      confidence: of each joint.
      errors: of each joint, mm.
      names: of the 24 joints.
    """
    pooled = _figures(confidence, errors) | {"deciles": by_quantile(confidence, errors)}
    people = _figures(confidence.mean(1), errors.mean(1)) | {"deciles": by_quantile(confidence.mean(1), errors.mean(1))}
    return {
        "joints": pooled | {"calibration_error": calibration_error(pooled["deciles"])},
        "people": people,
        "per_joint": {name: _figures(confidence[:, i], errors[:, i]) for i, name in enumerate(names)},
    }


def _figures(confidence: np.ndarray, error: np.ndarray) -> dict[str, float]:
    return {
        "mean_error_mm": float(np.mean(error)),
        "spearman": rank_correlation(confidence, error),
        "ause": sparsification_area(confidence, error),
        "ause_chance": chance_area(error),
    }


def hypotheses(errors: Float[np.ndarray, "N K"], confidence: Float[np.ndarray, "N K"]) -> list[dict[str, float]]:
    """Mean error, mm, of the one chosen among k = 1, 2, 4, ... K hypotheses: {"k", "best", "most_confident", "lowest_loss", "any"}.

    Args:
      errors: of each hypothesis, ordered by refinement loss (the lowest first), as `People` has them.
      confidence: their mean confidence.
    """
    total = errors.shape[1]
    counts = sorted({min(2**i, total) for i in range(total.bit_length() + 1)})
    by_loss = np.tile(-np.arange(total, dtype=float), (len(errors), 1))
    scores = {"best": -errors, "most_confident": confidence, "lowest_loss": by_loss}
    return [
        {"k": count}
        | {name: float(expected_pick(errors, score, count).mean()) for name, score in scores.items()}
        | {"any": float(errors.mean())}
        for count in counts
    ]


def plot(report: dict[str, Any], confidence: Float[np.ndarray, "N 24"], errors: Float[np.ndarray, "N 24"], file: pathlib.Path) -> bool:
    """Draws calibration, sparsification and the choice among hypotheses into a PNG. False where matplotlib is not installed.

    Args:
      report: of `measure`, and "hypotheses" of `hypotheses` where there are any.
      confidence: of each joint.
      errors: of each joint, mm.
      file: to write.
    """
    try:
        from matplotlib.figure import Figure  # an optional extra: genhmr_jax[plots]
    except ImportError:
        return False
    figure = Figure(figsize=(12, 3.6), layout="constrained", dpi=110)
    left, middle, right = figure.subplots(1, 3)
    deciles = report["joints"]["deciles"]
    left.plot([d["confidence"] for d in deciles], [d["error_mm"] for d in deciles], "o-", label="mean error, mm")
    left.set(xlabel="confidence of the joint (deciles)", ylabel="error, mm", title="calibration")
    share = left.twinx()
    share.plot([d["confidence"] for d in deciles], [d["within"] for d in deciles], "s--", color="C1")
    share.plot([0, 1], [0, 1], ":", color="grey")
    share.set(ylabel=f"share within {NEAR_MM:.0f} mm (dashed)", ylim=(0, 1.02), xlim=(0, 1))
    doubt = -confidence.ravel()
    for label, score in (("by doubt", doubt), ("by error (oracle)", errors.ravel())):
        curve = sparsification(score, errors)
        middle.plot(np.arange(len(curve)) / len(curve), curve, label=label)
    middle.axhline(1.0, color="grey", linestyle=":", label="by chance")
    middle.set(xlabel="share of joints taken away", ylabel="error of the rest / of all", title=f"sparsification: AUSE {_ause(report)}")
    middle.legend(fontsize=8)
    for name in ("best", "most_confident", "lowest_loss", "any") if report.get("hypotheses") else ():
        rows = report["hypotheses"]
        right.plot([row["k"] for row in rows], [row[name] for row in rows], "o-", markersize=4, label=name.replace("_", " "))
        right.legend(fontsize=8)
    right.set(xlabel="hypotheses K", ylabel="PA-MPJPE, mm", title="the one chosen of K")
    with atomic_path(file) as temporary:
        figure.savefig(temporary)
    return True


def _ause(report: dict[str, Any]) -> str:
    figures = report["joints"]
    return f"{figures['ause']:.3f} (chance {figures['ause_chance']:.3f})"


def table(report: dict[str, Any]) -> str:
    """Markdown: what `measure` found, for people; the figures of each joint; the choice among hypotheses."""
    joints, people = report["joints"], report["people"]
    lines = [
        f"Confidence and PA error: Spearman {joints['spearman']:.3f} over joints, {people['spearman']:.3f} over people; AUSE "
        f"{_ause(report)} over joints, {people['ause']:.3f} (chance {people['ause_chance']:.3f}) over people; calibration error of "
        f"'within {NEAR_MM:.0f} mm' {joints['calibration_error']:.3f}.",
        "",
        "| decile of confidence | " + " | ".join(str(i + 1) for i in range(len(joints["deciles"]))) + " |",
        "|---" * (len(joints["deciles"]) + 1) + "|",
        "| confidence | " + " | ".join(f"{d['confidence']:.2f}" for d in joints["deciles"]) + " |",
        "| error of the joint, mm | " + " | ".join(f"{d['error_mm']:.0f}" for d in joints["deciles"]) + " |",
        f"| share within {NEAR_MM:.0f} mm | " + " | ".join(f"{d['within']:.2f}" for d in joints["deciles"]) + " |",
        "",
        "| joint | error, mm | Spearman | AUSE | chance |",
        "|---|---|---|---|---|",
    ]
    for name, row in report["per_joint"].items():
        lines.append(f"| {name} | {row['mean_error_mm']:.1f} | {row['spearman']:.2f} | {row['ause']:.3f} | {row['ause_chance']:.3f} |")
    if rows := report.get("hypotheses"):
        lines += ["", "| PA-MPJPE, mm, of K hypotheses | " + " | ".join(f"K={row['k']}" for row in rows) + " |"]
        lines += ["|---" * (len(rows) + 1) + "|"]
        for name in ("best", "most_confident", "lowest_loss", "any"):
            lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(f"{row[name]:.1f}" for row in rows) + " |")
    return "\n".join(lines)
