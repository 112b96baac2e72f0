"""Errors under a protocol: from labels and predictions to points, and from points to errors.

The errors of single frames are here, and those of the motion of a person in a video.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24

from genhmr_jax.evaluate.bodies import Bodies, Posed
from genhmr_jax.evaluate.protocols import MAJOR_JOINTS, STILL_JOINTS, Protocol
from genhmr_jax.geometry import metrics


def joint_errors(
    predicted: Float[np.ndarray, "*b 24 3"], truth: Float[np.ndarray, "*b 24 3"]
) -> dict[str, Float[np.ndarray, "*b 24"]]:
    """The error of each joint, mm, of joints in metres.

    "mpjpe" is relative to the pelvis (joint 0), "pa_mpjpe" after one similarity transform for each
    person. Their means over the joints are MPJPE and PA-MPJPE.
    """
    plain, aligned = _joint_errors(jnp.asarray(predicted), jnp.asarray(truth))
    return {"mpjpe": np.asarray(plain, np.float64), "pa_mpjpe": np.asarray(aligned, np.float64)}


def joint_means(errors: Float[np.ndarray, "N 24"]) -> dict[str, float]:
    """Name of each joint -> its mean error over the people, mm, rounded."""
    return dict(zip(SMPL24, np.round(errors.mean(0), 2).tolist(), strict=True))


def back_to_front(
    predicted: Float[np.ndarray, "*b 3"], truth: Float[np.ndarray, "*b 3"]
) -> Bool[np.ndarray, "*b"]:
    """Whether the root is turned by more than 90 degrees about the vertical of the body.

    The rotation from the true to the predicted root, in the axes of the true one, is the product of
    a turn about y (up along the body) and of a rotation without such a turn (swing and twist). With
    the unit quaternion (w, x, y, z) the turn is 2 atan2(y, w); it exceeds 90 degrees if |y| > |w|.
    A body that only leans in a wrong direction, by any angle, is therefore not back to front.

    Args:
      predicted, truth: global_orient in the same camera, axis-angle, radians.
    """
    shape = np.shape(truth)
    first, second = (Rotation.from_rotvec(np.reshape(r, (-1, 3))) for r in (truth, predicted))
    _, y, _, w = (first.inv() * second).as_quat().T
    return (np.abs(y) > np.abs(w)).reshape(shape[:-1])


def all_points(protocol: Protocol, bodies: Bodies, posed: Posed) -> Float[Array, "B K 3"]:
    """The points that the protocol defines on posed bodies, metres."""
    if protocol.points == "skeleton":
        return posed.joints
    return _regress(bodies.regressors[protocol.points], posed.vertices)


def compared_points(protocol: Protocol, points: Float[Array, "B K 3"]) -> Float[Array, "B J 3"]:
    """The points of `all_points` that the protocol compares, metres from the pelvis."""
    return _chosen(points, protocol.joints, protocol.pelvis)


@dataclasses.dataclass(frozen=True)
class Truth:
    """The labels of B rows as the points that are compared, and as bodies if the labels are bodies.

    Attributes:
      points: (B, J, 3) metres from the pelvis.
      mask: (B, J) 0 where a point has no label.
      weight: (B,) 0 for rows without a label.
      posed, pelvis: the labelled body and its pelvis (B, 3), or None.
    """

    points: Float[Array, "B J 3"]
    mask: Float[Array, "B J"]
    weight: Float[np.ndarray, "B"]
    posed: Posed | None = None
    pelvis: Float[Array, "B 3"] | None = None


def truth(protocol: Protocol, bodies: Bodies, rows: Mapping[str, Any]) -> Truth:
    """The labels of a batch under a protocol.

    Args:
      protocol: the protocol.
      bodies: those that it needs.
      rows: stacked fields of PERSON_FIELDS (data/sources/records.py): global_orient, body_pose,
        betas, gender, has_pose, has_betas, keypoints3d, joints24_3d.
    """
    # 1. Labelled 3D keypoints.
    if protocol.truth == "keypoints3d":
        keypoints = np.asarray(rows["keypoints3d"])
        return _labelled(keypoints, protocol.truth_joints, protocol.truth_pelvis)

    # 2. Points of the labelled body.
    known = np.asarray(rows["has_pose"]) * np.asarray(rows["has_betas"])
    pose = np.concatenate([rows["global_orient"], rows["body_pose"]], -1)
    posed = bodies.pose(pose, rows["betas"], rows["gender"])
    points = all_points(protocol, bodies, posed)
    found, pelvis = compared_points(protocol, points), _mean_point(points, protocol.pelvis)
    result = Truth(found, jnp.ones(found.shape[:2]), known, posed, pelvis)
    if protocol.truth == "body":
        return result

    # 3. Labelled joints replace those of the body where they exist.
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
    """The errors of each row: mpjpe_mm, pa_mpjpe_mm, and those that the protocol adds.

    Those of rows of weight 0 are meaningless.
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
    """The acceleration errors of one person in a video, mm per frame squared.

    There is one value for each three consecutive frames.

    Args:
      predicted: compared points of the frames with a label, metres from the pelvis.
      target: the same points of the labels.
      frames: (T,) numbers of the frames.
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
    """The jitter of one person in a video as in EMDB's code, 10 m/s^3.

    There is one value, or none for less than 4 frames. The formula is compute_jitter of EMDB's
    evaluation_metrics.py, L137. Before that, evaluation_engine.py sets SMPL's translation to zero
    (L93) and removes the bad frames (L107). A step therefore leads from one good frame to the next
    one, even if there are bad frames between them.

    Args:
      joints: SMPL's posed joints in the camera without translation, of the good frames, metres.
      frames: (T,) numbers of the frames.
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
    """Labels of points (B, K, 4), xyz and confidence.

    A row has weight 1 if its pelvis and at least one joint are known.
    """
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
    """MVE and PA-MVE, and with angles also MPJAE and PA-MPJAE.

    With angles, all PA errors use the similarity transform of the joints, as in EMDB.
    """
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
