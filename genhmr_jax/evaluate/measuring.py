"""What is measured: labels and predictions of a batch as points, their errors under a protocol, and
the motion of a person in a video."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from smpl_jax.keypoints import SMPL24

from genhmr_jax.evaluate.bodies import Bodies, Posed
from genhmr_jax.evaluate.protocols import MAJOR_JOINTS, STILL_JOINTS, Protocol
from genhmr_jax.geometry import metrics


def joint_errors(
    predicted: Float[np.ndarray, "*b 24 3"], truth: Float[np.ndarray, "*b 24 3"]
) -> dict[str, Float[np.ndarray, "*b 24"]]:
    """Error of each joint, mm: "mpjpe" relative to the pelvis (joint 0), "pa_mpjpe" after one
    similarity transform a person.

    Their means over the joints are MPJPE and PA-MPJPE. Joints in metres.
    """
    plain, aligned = _joint_errors(jnp.asarray(predicted), jnp.asarray(truth))
    return {"mpjpe": np.asarray(plain, np.float64), "pa_mpjpe": np.asarray(aligned, np.float64)}


def joint_means(errors: Float[np.ndarray, "N 24"]) -> dict[str, float]:
    """Name of each joint -> its mean error over the people, rounded; mm in, mm out."""
    return dict(zip(SMPL24, np.round(errors.mean(0), 2).tolist(), strict=True))


def all_points(protocol: Protocol, bodies: Bodies, posed: Posed) -> Float[Array, "B K 3"]:
    """The points of posed bodies that the protocol defines, metres."""
    if protocol.points == "skeleton":
        return posed.joints
    return _regress(bodies.regressors[protocol.points], posed.vertices)


def compared_points(protocol: Protocol, points: Float[Array, "B K 3"]) -> Float[Array, "B J 3"]:
    """Those of `all_points` that the protocol compares, relative to the pelvis, metres."""
    return _chosen(points, protocol.joints, protocol.pelvis)


@dataclasses.dataclass(frozen=True)
class Truth:
    """The labels of B rows: as compared points, and as bodies where they are bodies.

    Attributes:
      points: (B, J, 3) relative to the pelvis, metres.
      mask: (B, J) 0 where a point is not labelled.
      weight: (B,) 0 for rows that lack the label.
      posed, pelvis: the label's body and its pelvis (B, 3), or None.
    """

    points: Float[Array, "B J 3"]
    mask: Float[Array, "B J"]
    weight: Float[np.ndarray, "B"]
    posed: Posed | None = None
    pelvis: Float[Array, "B 3"] | None = None


def truth(protocol: Protocol, bodies: Bodies, rows: Mapping[str, Any]) -> Truth:
    """The labels of a batch under a protocol.

    Args:
      bodies: that the protocol needs.
      rows: fields of PERSON_FIELDS (data/sources/records.py) stacked: global_orient, body_pose,
        betas, gender, has_pose, has_betas, keypoints3d, joints24_3d.
    """
    if protocol.truth == "keypoints3d":
        return _labelled(
            np.asarray(rows["keypoints3d"]), protocol.truth_joints, protocol.truth_pelvis
        )
    known = np.asarray(rows["has_pose"]) * np.asarray(rows["has_betas"])
    pose = np.concatenate([rows["global_orient"], rows["body_pose"]], -1)
    posed = bodies.pose(pose, rows["betas"], rows["gender"])
    points = all_points(protocol, bodies, posed)
    found = compared_points(protocol, points)
    result = Truth(
        found, jnp.ones(found.shape[:2]), known, posed, _mean_point(points, protocol.pelvis)
    )
    if protocol.truth == "body":
        return result
    # Rows with labelled joints keep them; the others have those of the labelled body.
    own = _labelled(np.asarray(rows["joints24_3d"]), protocol.joints, protocol.pelvis)
    has = jnp.asarray(own.weight > 0)
    return Truth(
        points=jnp.where(has[:, None, None], own.points, result.points),
        mask=jnp.where(has[:, None], own.mask, result.mask),
        weight=np.maximum(own.weight, known),
        posed=posed,
        pelvis=result.pelvis,
    )


def measure(
    protocol: Protocol, bodies: Bodies, predicted: Posed, label: Truth
) -> dict[str, Float[np.ndarray, "B"]]:
    """Errors of each row: mpjpe_mm, pa_mpjpe_mm, and those that the protocol adds.

    The errors of rows of weight 0 have no meaning.
    """
    points = all_points(protocol, bodies, predicted)
    compared = compared_points(protocol, points)
    found = _point_errors(compared, label.points, label.mask, "pck" in protocol.measures)
    if protocol.mesh and label.posed is not None:
        roots = _mean_point(points, protocol.pelvis), label.pelvis
        angles = "angles" in protocol.measures
        found |= _mesh_errors(predicted, label.posed, *roots, angles, protocol.joints)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def acceleration_errors(
    predicted: Float[np.ndarray, "T J 3"], target: Float[np.ndarray, "T J 3"], frames: np.ndarray
) -> Float[np.ndarray, "t"]:
    """Acceleration errors of one person in a video, mm per frame squared, of each three
    neighbouring frames.

    Args:
      predicted: the compared points of the frames that have a label, from the pelvis, metres.
      target: the same.
      frames: (T,) their numbers.
    """
    if len(frames) < 3:
        return np.zeros(0)
    order = np.argsort(frames)
    errors, _ = metrics.acceleration_error(predicted[order], target[order])
    frames = np.asarray(frames)[order]
    return 1000 * np.asarray(errors)[frames[2:] - frames[:-2] == 2]


def emdb_jitter(
    joints: Float[np.ndarray, "T 24 3"], frames: np.ndarray, rate: float
) -> Float[np.ndarray, "n"]:
    """The jitter of one person in a video by EMDB's code, 10 m/s^3: one value; no value below 4
    frames.

    compute_jitter of EMDB's evaluation_metrics.py, L137, after evaluation_engine.py has zeroed
    SMPL's translation (L93) and left out the bad frames (L107): a step leads from one good frame to
    the next one, even if bad frames lie between them.

    Args:
      joints: SMPL's joints as posed in the camera, translation zero, of the good frames, metres.
      frames: (T,) their numbers.
      rate: frames per second.
    """
    if len(frames) < 4:
        return np.zeros(0)
    jerk = np.asarray(metrics.jitter(joints[np.argsort(frames)], rate))
    return np.array([np.where(np.isin(np.arange(24), STILL_JOINTS), 0.0, jerk).mean() / 10])


@jax.jit
def _regress(regressor: Array, vertices: Array) -> Array:
    return jnp.einsum("kv,bvi->bki", regressor, vertices, precision=jax.lax.Precision.HIGHEST)


def _mean_point(points: Array, indices: tuple[int, ...]) -> Array:
    return jnp.mean(jnp.asarray(points)[:, np.array(indices)], 1)


def _chosen(points: Array, joints: tuple[int, ...], pelvis: tuple[int, ...]) -> Array:
    return jnp.asarray(points)[:, np.array(joints)] - _mean_point(points, pelvis)[:, None]


def _labelled(points: np.ndarray, joints: tuple[int, ...], pelvis: tuple[int, ...]) -> Truth:
    """Labels from points (B, K, 4) with confidences; a row counts if its pelvis and any of its
    joints are known."""
    known = points[..., 3] > 0
    mask = known[:, np.array(joints)] & known[:, np.array(pelvis)].all(1)[:, None]
    points = np.where(known[..., None], points[..., :3], 0.0).astype(np.float32)
    weight = mask.any(1).astype(np.float64)
    return Truth(_chosen(points, joints, pelvis), jnp.asarray(mask, jnp.float32), weight)


@jax.jit
def _joint_errors(predicted: Array, truth: Array) -> tuple[Array, Array]:
    plain = metrics.distances(metrics.centred(predicted), metrics.centred(truth))
    aligned = metrics.distances(metrics.procrustes(predicted, truth)(predicted), truth)
    return 1000 * plain, 1000 * aligned


@functools.partial(jax.jit, static_argnames="with_pck")
def _point_errors(predicted: Array, target: Array, mask: Array, with_pck: bool) -> dict[str, Array]:
    distance = metrics.distances(predicted, target)
    found = {
        "mpjpe_mm": 1000 * metrics.masked_mean(distance, mask),
        "pa_mpjpe_mm": 1000 * metrics.pa_mpjpe(predicted, target, mask),
    }
    if with_pck:
        found |= {
            "pck150": 100 * metrics.pck(distance, mask=mask),
            "auc": 100 * metrics.auc(distance, mask=mask),
        }
    return found


@functools.partial(jax.jit, static_argnames=("with_angles", "joints"))
def _mesh_errors(
    predicted: Posed,
    target: Posed,
    root: Array,
    true_root: Array,
    with_angles: bool,
    joints: tuple[int, ...],
) -> dict:
    """MVE, PA-MVE; with angles also MPJAE and PA-MPJAE, and then all PA by the joints' transform,
    as in EMDB."""
    meshes = predicted.vertices, target.vertices
    mve = 1000 * metrics.mve(*meshes, (root, true_root))
    if not with_angles:
        return {"mve_mm": mve, "pa_mve_mm": 1000 * metrics.pa_mve(*meshes)}
    index, major = np.array(joints), np.array(MAJOR_JOINTS)
    similarity = metrics.procrustes(predicted.joints[:, index], target.joints[:, index])
    turns = predicted.rotations[:, major], target.rotations[:, major]
    return {
        "mve_mm": mve,
        "pa_mve_mm": 1000 * metrics.pa_mve(*meshes, similarity),
        "mpjae_deg": metrics.mpjae(*turns),
        "pa_mpjae_deg": metrics.mpjae(*turns, similarity),
    }
