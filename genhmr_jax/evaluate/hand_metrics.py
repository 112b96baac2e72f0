"""The measures of FreiHAND's eval.py (Zimmermann et al. 2019): F-scores and the area under PCK.

Verified against github.com/lmb-freiburg/freihand (5ea4ab9): `align_w_scale` and `calculate_fscore`
of eval.py, and `EvalUtil` of utils/eval_util.py. HO-3D uses the same code.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

AUC_LIMIT = 0.05  # metres
F_THRESHOLDS = (0.005, 0.015)  # metres
_AUC_STEPS = 100
_NOT_ZERO = 1e-8  # added to norms, as in align_w_scale


def f_score(
    predicted: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "M 3"], threshold: float
) -> float:
    """Harmonic mean of precision and recall of two sets of vertices, 0..1.

    Precision is the share of predicted vertices within `threshold` of a target vertex, and recall
    the share of target vertices within it of a predicted vertex. The two sets need no common
    vertices.

    Args:
      predicted: metres; align it first for the F-score of aligned meshes.
      target: metres.
      threshold: metres; 0.005 and 0.015 in FreiHAND's tables.

    Raises:
      ValueError: an empty set, or points that are not finite.
    """
    return f_scores(predicted, target, (threshold,))[0]


def f_scores(
    predicted: Float[np.ndarray, "N 3"],
    target: Float[np.ndarray, "M 3"],
    thresholds: Sequence[float] = F_THRESHOLDS,
) -> tuple[float, ...]:
    """`f_score` at several thresholds (metres), from one search for the closest vertices.

    Raises:
      ValueError: an empty set, or points that are not finite.
    """
    if not len(predicted) or not len(target):
        raise ValueError("an empty mesh has no F-score: give at least one vertex")
    to_target, to_predicted = (
        cKDTree(target).query(predicted)[0],
        cKDTree(predicted).query(target)[0],
    )
    scores = []
    for threshold in thresholds:
        precision, recall = np.mean(to_target < threshold), np.mean(to_predicted < threshold)
        total = precision + recall
        scores.append(float(2 * precision * recall / total) if total > 0 else 0.0)
    return tuple(scores)


def aligned(
    predicted: Float[np.ndarray, "*b K 3"],
    target: Float[np.ndarray, "*b K 3"],
    points: Float[np.ndarray, "*b V 3"] | None = None,
) -> Float[np.ndarray, "*b V 3"]:
    """Points after the best similarity transform of `predicted` to `target`, as FreiHAND's code.

    It is `align_w_scale`, in float64. Unlike `geometry.metrics.procrustes` it also allows
    reflections: the error of a mirror image is 0. Both agree for all but very poor predictions.

    Args:
      predicted: metres.
      target: metres, with the same points.
      points: the points to move; default: `predicted`.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    points = predicted if points is None else np.asarray(points, np.float64)
    centre_p, centre_t = predicted.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    p, t = predicted - centre_p, target - centre_t
    norm_p, norm_t = (np.linalg.norm(x, axis=(-2, -1), keepdims=True) + _NOT_ZERO for x in (p, t))
    u, s, vt = np.linalg.svd(np.swapaxes(p / norm_p, -1, -2) @ (t / norm_t))
    scale = s.sum(-1)[..., None, None] * norm_t / norm_p
    return (points - centre_p) @ (u @ vt) * scale + centre_t


def auc(errors: Float[np.ndarray, "*b K"], limit: float = AUC_LIMIT) -> float:
    """Area under the curve of PCK from 0 to `limit`, divided by `limit`, 0..1.

    It is integrated by trapezoids over 100 thresholds. PCK at a threshold is the share of errors
    that are not above it, first of each keypoint and then their mean, as in FreiHAND's code; with
    as many errors of each keypoint this is the share of all errors.

    Args:
      errors: distances of keypoints, metres.
      limit: metres.

    Raises:
      ValueError: no errors.
    """
    flat = np.sort(np.asarray(errors, np.float64).ravel())
    if not len(flat):
        raise ValueError("no errors: give at least one keypoint")
    thresholds = np.linspace(0.0, limit, _AUC_STEPS)
    pck = np.searchsorted(flat, thresholds, side="right") / len(flat)
    return float(np.trapezoid(pck, thresholds) / limit)
