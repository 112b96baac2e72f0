"""The protocols of datasets of hands: FreiHAND, HO-3D, DexYCB and HInt, as functions of arrays.

All 3D points are metres in the axes of the camera, keypoints in the order of HAND21. The official
codes print centimetres; here all errors are millimetres, as in the tables of papers.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from genhmr_jax.data.hands.releases.record import HandRecord
from genhmr_jax.evaluate.hand_metrics import AUC_LIMIT, aligned, auc, f_scores
from genhmr_jax.geometry.hand import HAND21
from genhmr_jax.io.errors import InputError

PCK_THRESHOLDS = (0.05, 0.1, 0.15)
"""Of HInt: shares of the box (HaMeR's eval.py)."""

_WRIST, _MIDDLE = HAND21.index("wrist"), HAND21.index("middle_mcp")


@dataclasses.dataclass(frozen=True, eq=False)
class HandPoints:
    """Points of N hands, predicted or true; metres in the axes of the camera.

    Attributes:
      keypoints: in the order of HAND21.
      vertices: None if there are none. The true ones are MANO's 778.
    """

    keypoints: Float[np.ndarray, "N 21 3"]
    vertices: Float[np.ndarray, "N V 3"] | None = None


def true_points(records: Iterable[HandRecord], *, vertices: bool = True) -> HandPoints:
    """The labels of records, in their order.

    Args:
      records: of a reader of data.hands.releases.
      vertices: whether to return the vertices too.

    Raises:
      InputError: no records, or a record lacks the labels or knows only some keypoints.
    """
    points, meshes = [], []
    for record in records:
        known = record.keypoints is None or (record.keypoints[:, 2] > 0).all()
        if record.keypoints3d is None or not known:
            remedy = "this split has no public 3D labels: write the predictions for the server"
            raise InputError(record.name, "has no 21 labelled 3D keypoints", remedy)
        if vertices and record.vertices is None:
            remedy = "give the label file of the vertices, or measure without them"
            raise InputError(record.name, "has no vertices", remedy)
        points.append(record.keypoints3d)
        meshes.append(record.vertices)
    if not points:
        raise InputError("records", "there are none", "choose a split with samples")
    return HandPoints(np.stack(points), np.stack(meshes) if vertices else None)


def freihand(predicted: HandPoints, truth: HandPoints) -> dict[str, float]:
    """The measures of FreiHAND's eval.py, `main` (github.com/lmb-freiburg/freihand, 5ea4ab9).

    Papers report pa_mpjpe_mm, pa_mpvpe_mm, pa_f_5 and pa_f_15. Keypoints and vertices are aligned
    separately (`hand_metrics.aligned`).

    A prediction with another mesh than MANO's has no vertex errors, and its F-scores are those
    after the alignment of the keypoints. The official `align_by_trafo` does not divide by the size
    of the prediction there, which looks like an error; here it is divided.

    Returns:
      mpjpe_mm, auc_j, pa_mpjpe_mm, pa_auc_j; with predicted and true vertices f_5, f_15, pa_f_5,
      pa_f_15; and if both have the same number mpvpe_mm, auc_v, pa_mpvpe_mm, pa_auc_v. AUC is that
      of PCK from 0 to 50 mm, F that at 5 and 15 mm, both 0..1.

    Raises:
      ValueError: the numbers of hands differ, there are none, or a point is not finite.
    """
    _same_hands(predicted, truth)
    keypoints, target = _float64(predicted.keypoints), _float64(truth.keypoints)
    result = _errors(keypoints, target, "mpjpe_mm", "auc_j")
    result |= _errors(aligned(keypoints, target), target, "pa_mpjpe_mm", "pa_auc_j")
    if predicted.vertices is None or truth.vertices is None:
        return result
    mesh, true_mesh = _float64(predicted.vertices), _float64(truth.vertices)
    if mesh.shape == true_mesh.shape:
        moved = aligned(mesh, true_mesh)
        result |= _errors(mesh, true_mesh, "mpvpe_mm", "auc_v")
        result |= _errors(moved, true_mesh, "pa_mpvpe_mm", "pa_auc_v")
    else:
        moved = aligned(keypoints, target, mesh)
    for prefix, vertices in (("", mesh), ("pa_", moved)):
        scores = [f_scores(one, true) for one, true in zip(vertices, true_mesh, strict=True)]
        close, far = np.mean(scores, axis=0).tolist()
        result |= {f"{prefix}f_5": close, f"{prefix}f_15": far}
    return result


def ho3d(predicted: HandPoints, truth: HandPoints) -> dict[str, float]:
    """The measures of HO-3D's eval.py, `main` (github.com/shreyashampali/ho3d, 2fd6ee1).

    They are those of `freihand`, and st_mpjpe_mm and st_auc_j after the alignment of scale and
    translation (`scale_aligned`). The official code has no measure that aligns the wrist alone.

    Raises:
      ValueError: the numbers of hands differ, there are none, or a point is not finite.
    """
    result = freihand(predicted, truth)
    target = _float64(truth.keypoints)
    moved = scale_aligned(_float64(predicted.keypoints), target)
    return result | _errors(moved, target, "st_mpjpe_mm", "st_auc_j")


def scale_aligned(
    predicted: Float[np.ndarray, "*b 21 3"], target: Float[np.ndarray, "*b 21 3"]
) -> Float[np.ndarray, "*b 21 3"]:
    """Keypoints with the target's wrist and the target's distance from it to middle_mcp.

    It is `align_sc_tr` of HO-3D's eval.py, whose joint 4 in MANO's order is middle_mcp.
    """
    length = lambda points: np.linalg.norm(
        points[..., _MIDDLE, :] - points[..., _WRIST, :], axis=-1
    )[..., None, None]
    size = length(predicted)
    scaled = predicted * (length(target) / np.where(size > 0, size, 1.0))
    wrist = slice(_WRIST, _WRIST + 1)
    return scaled - scaled[..., wrist, :] + target[..., wrist, :]


def dexycb(predicted: HandPoints, truth: HandPoints) -> dict[str, float]:
    """The measures of DexYCB's `HPEEvaluator.evaluate` (dex_ycb_toolkit/hpe_eval.py).

    Returns:
      mpjpe_mm and auc_j ("absolute"), rr_mpjpe_mm and rr_auc_j (relative to the wrist),
      pa_mpjpe_mm and pa_auc_j ("procrustes"). AUC as in `freihand`.

    Raises:
      ValueError: the numbers of hands differ, there are none, or a point is not finite.
    """
    _same_hands(predicted, truth)
    keypoints, target = _float64(predicted.keypoints), _float64(truth.keypoints)
    relative = lambda points: points - points[:, _WRIST : _WRIST + 1]
    result = _errors(keypoints, target, "mpjpe_mm", "auc_j")
    result |= _errors(relative(keypoints), relative(target), "rr_mpjpe_mm", "rr_auc_j")
    return result | _errors(aligned(keypoints, target), target, "pa_mpjpe_mm", "pa_auc_j")


def hint_pck(
    predicted: Float[np.ndarray, "N 21 2"],
    records: Sequence[HandRecord],
    thresholds: Sequence[float] = PCK_THRESHOLDS,
) -> dict[str, float]:
    """PCK of HInt's 2D keypoints: of all, of the visible and of the occluded ones.

    As `EvaluatorPCK.keypoint_pck_accuracy` of HaMeR (github.com/geopavlakos/hamer, 3a01849,
    hamer/utils/pose_utils.py): a keypoint is correct if its distance is not above the threshold
    times the longer side of the box. PCK is first that of each keypoint, then their mean. There a
    keypoint without a label makes the mean NaN; here it is left out.

    The published numbers use the boxes of HaMeR's own files: read them by `hint_hamer`, whose
    splits _all, _vis and _occ give "all" of each group. The boxes of HInt's release may differ.

    Args:
      predicted: px.
      records: of the reader `hint_hamer` or `hint`, in the same order.
      thresholds: shares of the box.

    Returns:
      "all_0.05", "visible_0.05", "occluded_0.05" and so on, 0..1; a group without keypoints is
      left out.

    Raises:
      InputError: a record has no 2D keypoints.
      ValueError: the numbers of hands differ, or there are none.
    """
    if len(predicted) != len(records) or not len(records):
        raise ValueError(f"{len(predicted)} predictions of {len(records)} hands")
    for record in records:
        if record.keypoints is None:
            raise InputError(record.name, "has no 2D keypoints", "choose the release HInt")
    truth = np.stack([record.keypoints for record in records])
    none = np.zeros(len(HAND21), bool)
    hidden = np.stack([none if record.occluded is None else record.occluded for record in records])
    boxes = np.stack([record.box for record in records])
    side = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    share = np.linalg.norm(_float64(predicted) - truth[..., :2], axis=-1) / side[:, None]
    labelled, result = truth[..., 2] > 0, {}
    groups = {"all": labelled, "visible": labelled & ~hidden, "occluded": labelled & hidden}
    for name, mask in groups.items():
        if mask.any():
            result |= {f"{name}_{limit:g}": _pck(share <= limit, mask) for limit in thresholds}
    return result


def _pck(correct: Bool[np.ndarray, "N 21"], mask: Bool[np.ndarray, "N 21"]) -> float:
    """Mean over the keypoints that occur of the share of correct ones."""
    count = mask.sum(0)
    return float(np.mean((correct & mask).sum(0)[count > 0] / count[count > 0]))


def _errors(
    predicted: Float[np.ndarray, "N K 3"], target: Float[np.ndarray, "N K 3"], mean: str, area: str
) -> dict[str, float]:
    """Mean distance in mm and AUC, by the given names."""
    errors = np.linalg.norm(predicted - target, axis=-1)
    return {mean: 1000 * float(errors.mean()), area: auc(errors, AUC_LIMIT)}


def _float64(points: np.ndarray) -> np.ndarray:
    return np.asarray(points, np.float64)


def _same_hands(predicted: HandPoints, truth: HandPoints) -> None:
    """Raises ValueError if numbers of hands differ or are zero, or a point is not finite."""
    count = len(truth.keypoints)
    lengths = {len(predicted.keypoints), count}
    lengths |= {len(x.vertices) for x in (predicted, truth) if x.vertices is not None}
    if lengths != {count} or not count:
        raise ValueError(f"{len(predicted.keypoints)} predictions of {count} hands")
    for points in (predicted.keypoints, predicted.vertices):
        if points is not None and not np.isfinite(points).all():
            raise ValueError("predicted points are not finite: replace them by a mean hand")
