"""The measures of FreiHAND's eval.py (Zimmermann et al. 2019): F-scores and the area under PCK."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

AUC_LIMIT = 0.05  # metres
_AUC_STEPS = 100


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
    if not len(predicted) or not len(target):
        raise ValueError("an empty mesh has no F-score: give at least one vertex")
    precision = np.mean(cKDTree(target).query(predicted)[0] < threshold)
    recall = np.mean(cKDTree(predicted).query(target)[0] < threshold)
    total = precision + recall
    return float(2 * precision * recall / total) if total > 0 else 0.0


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
