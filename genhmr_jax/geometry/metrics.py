"""Error measures of this field, jittable, and their means over streamed batches.

They take any leading batch axes. Units are those of the input: metres in, metres out. A mask
(..., K) is positive for known points; the other points have no influence. A row without known
points gives 0; pass the weight 0 for it to `Means.add`.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from smpl_jax.rotations import geodesic_angle

PCK_THRESHOLD = 0.15  # metres: 3DPCK of MPI-INF-3DHP (Mehta et al. 2017)
AUC_THRESHOLDS = tuple(np.linspace(0.0, PCK_THRESHOLD, 31))  # every 5 mm, as in MPI-INF-3DHP

# By default TPUs multiply in bfloat16, an error of millimetres.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Similarity(NamedTuple):
    """The map x -> scale x rotation + shift of points x as rows."""

    scale: Float[Array, "*b"]
    rotation: Float[Array, "*b 3 3"]
    shift: Float[Array, "*b 3"]

    def __call__(self, points: Float[Array, "*b K 3"]) -> Float[Array, "*b K 3"]:
        """Apply the map to points."""
        rotated = _einsum("...ki,...ij->...kj", points, self.rotation)
        return self.scale[..., None, None] * rotated + self.shift[..., None, :]


def distances(
    predicted: Float[Array, "*b K 3"], target: Float[Array, "*b K 3"]
) -> Float[Array, "*b K"]:
    """Distance of each point from its target."""
    return jnp.linalg.norm(predicted - target, axis=-1)


def masked_mean(
    values: Float[Array, "*b K"], mask: Float[Array, "*b K"] | None = None
) -> Float[Array, "*b"]:
    """Mean over the last axis of the values with a positive mask; 0 if there are none.

    Values without a positive mask may be NaN.
    """
    if mask is None:
        return jnp.mean(values, -1)
    known = jnp.asarray(mask) > 0
    return jnp.sum(jnp.where(known, values, 0.0), -1) / jnp.maximum(jnp.sum(known, -1), 1)


def centred(
    points: Float[Array, "*b K 3"], root: int | Sequence[int] = 0
) -> Float[Array, "*b K 3"]:
    """Points relative to the root: one point, or the mean of several.

    (EMDB's pelvis is the mean of the hips.)
    """
    indices = [root] if isinstance(root, int) else list(root)
    return points - jnp.mean(points[..., np.array(indices), :], -2, keepdims=True)


def mpjpe(
    predicted: Float[Array, "*b K 3"],
    target: Float[Array, "*b K 3"],
    mask: Float[Array, "*b K"] | None = None,
    *,
    root: int | Sequence[int] | None = 0,
) -> Float[Array, "*b"]:
    """Mean per-joint position error, both sets relative to `root`, which must be known.

    With root None the sets are compared as they are.
    """
    if root is not None:
        predicted, target = centred(predicted, root), centred(target, root)
    return masked_mean(distances(predicted, target), mask)


def procrustes(
    predicted: Float[Array, "*b K 3"],
    target: Float[Array, "*b K 3"],
    mask: Float[Array, "*b K"] | None = None,
) -> Similarity:
    """The least-squares similarity transform from the predicted points to the targets.

    Umeyama 1991, eq. 40 to 42: never a reflection. If all points coincide, only the shift has a
    meaning. In float32 the error is below 2e-7 m at human scale. The exception are sets within
    0.1 mm of a line: the rotation about that line is undetermined there.
    """
    # 1. Remove points that are not known, and the mean of both sets.
    if mask is None:
        weight = jnp.ones(predicted.shape[:-1], predicted.dtype)
    else:
        weight = (jnp.asarray(mask) > 0).astype(predicted.dtype)
    predicted, target = (jnp.where(weight[..., None] > 0, x, 0.0) for x in (predicted, target))
    weight = weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1.0)
    centre_p, centre_t = (_einsum("...k,...ki->...i", weight, x) for x in (predicted, target))
    p, t = predicted - centre_p[..., None, :], target - centre_t[..., None, :]
    # 2. The rotation, by the SVD of the covariance; the sign of the last axis avoids a reflection.
    u, s, vt = jnp.linalg.svd(_einsum("...k,...ki,...kj->...ij", weight, p, t))
    mirrored = _determinant(u) * _determinant(vt) < 0
    flip = jnp.where(mirrored[..., None], jnp.array([1.0, 1.0, -1.0], s.dtype), 1.0)
    rotation = _einsum("...ij,...j,...jk->...ik", u, flip, vt)
    # 3. The scale and the shift.
    variance = _einsum("...k,...ki,...ki->...", weight, p, p)
    scale = jnp.sum(s * flip, -1) / jnp.maximum(variance, 1e-12)
    shift = centre_t - scale[..., None] * _einsum("...i,...ij->...j", centre_p, rotation)
    return Similarity(scale, rotation, shift)


def _determinant(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
    """The determinant, as a triple product (no LU decomposition)."""
    return jnp.sum(matrix[..., 0, :] * jnp.cross(matrix[..., 1, :], matrix[..., 2, :]), -1)


def pa_mpjpe(
    predicted: Float[Array, "*b K 3"],
    target: Float[Array, "*b K 3"],
    mask: Float[Array, "*b K"] | None = None,
) -> Float[Array, "*b"]:
    """MPJPE after the best similarity transform (`procrustes`)."""
    known = predicted
    if mask is not None:
        known = jnp.where(jnp.asarray(mask)[..., None] > 0, predicted, 0.0)
    return masked_mean(distances(procrustes(predicted, target, mask)(known), target), mask)


def mve(
    predicted: Float[Array, "*b V 3"],
    target: Float[Array, "*b V 3"],
    roots: tuple[Float[Array, "*b 3"], Float[Array, "*b 3"]],
) -> Float[Array, "*b"]:
    """Mean vertex error (MVE, PVE, V2V), each mesh relative to its root.

    Args:
      predicted: vertices.
      target: the same.
      roots: the root of the predicted body, and that of the target.
    """
    predicted = predicted - roots[0][..., None, :]
    target = target - roots[1][..., None, :]
    return jnp.mean(distances(predicted, target), -1)


def pa_mve(
    predicted: Float[Array, "*b V 3"],
    target: Float[Array, "*b V 3"],
    similarity: Similarity | None = None,
) -> Float[Array, "*b"]:
    """Mean vertex error after a similarity transform.

    The transform is that of the vertices, or the given one (EMDB uses that of the joints).
    """
    similarity = procrustes(predicted, target) if similarity is None else similarity
    return jnp.mean(distances(similarity(predicted), target), -1)


def mpjae(
    predicted: Float[Array, "*b J 3 3"],
    target: Float[Array, "*b J 3 3"],
    similarity: Similarity | None = None,
) -> Float[Array, "*b"]:
    """Mean per-joint angular error, degrees.

    Args:
      predicted: rotations of column vectors relative to the camera, not to the parent joints.
      target: the same.
      similarity: rotates the predicted ones first (PA-MPJAE: `procrustes` of the joints).
    """
    if similarity is not None:
        predicted = _einsum("...ji,...kjl->...kil", similarity.rotation, predicted)
    return jnp.degrees(jnp.mean(geodesic_angle(predicted, target), -1))


def pck(
    distance: Float[Array, "*b K"],
    threshold: float = PCK_THRESHOLD,
    mask: Float[Array, "*b K"] | None = None,
) -> Float[Array, "*b"]:
    """Share of the distances below a threshold (both in the same unit)."""
    return masked_mean((distance < threshold).astype(distance.dtype), mask)


def auc(
    distance: Float[Array, "*b K"],
    thresholds: Sequence[float] = AUC_THRESHOLDS,
    mask: Float[Array, "*b K"] | None = None,
) -> Float[Array, "*b"]:
    """Area under the PCK curve: its mean over the thresholds, 0..1."""
    below = distance[..., None] < jnp.asarray(thresholds, distance.dtype)
    return masked_mean(jnp.mean(below, -1, dtype=distance.dtype), mask)


def acceleration_error(
    predicted: Float[Array, "*b T K 3"],
    target: Float[Array, "*b T K 3"],
    known: Bool[Array, "*b T"] | None = None,
) -> tuple[Float[Array, "*b t"], Bool[Array, "*b t"]]:
    """Acceleration error, mean over joints, in metres per frame squared (HMMR, Kanazawa 2019).

    It is the length of the second difference of the joint errors.

    Args:
      predicted: joints of T successive frames.
      target: the same.
      known: frames with a valid label.

    Returns:
      the errors of the T - 2 inner frames, and whether a frame and both its neighbours are known.
    """
    gap = predicted - target
    second = gap[..., 2:, :, :] - 2 * gap[..., 1:-1, :, :] + gap[..., :-2, :, :]
    errors = jnp.mean(jnp.linalg.norm(second, axis=-1), -1)
    known = jnp.ones(predicted.shape[:-2], bool) if known is None else known
    return errors, known[..., 2:] & known[..., 1:-1] & known[..., :-2]


def jitter(joints: Float[Array, "*b T K 3"], frames_per_second: float) -> Float[Array, "*b t K"]:
    """Jerk of each joint in metres per second cubed, for T - 3 steps (PIP, Yi et al. 2022)."""
    third = (
        joints[..., 3:, :, :]
        - 3 * joints[..., 2:-1, :, :]
        + 3 * joints[..., 1:-2, :, :]
        - joints[..., :-3, :, :]
    )
    return jnp.linalg.norm(third, axis=-1) * frames_per_second**3


def silhouette_iou(
    predicted: Bool[Array, "*b H W"], target: Bool[Array, "*b H W"]
) -> Float[Array, "*b"]:
    """Intersection over union of masks; 0 where both are empty.

    Raises:
      ValueError: the sizes differ.
    """
    if predicted.shape != target.shape:
        shapes = f"{predicted.shape} and {target.shape}"
        raise ValueError(f"masks of {shapes} cannot be compared: give masks of one size")
    both, either = jnp.sum(predicted & target, (-1, -2)), jnp.sum(predicted | target, (-1, -2))
    return both / jnp.maximum(either, 1)


class Means:
    """Means of named measures over streamed batches, in float64.

    Only sums are stored: batches of any size, in any order and on any number of processes give the
    same means.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}  # name -> [sum, weight]

    def add(self, values: Mapping[str, Array], weight: Array | None = None) -> None:
        """Add rows.

        Args:
          values: name -> (B,). A NaN or Inf makes its mean NaN or Inf, unless its weight is 0.
          weight: (B,) weight of each row; default 1.
        """
        for name, column in values.items():
            column = np.asarray(column, np.float64).reshape(-1)
            weights = np.ones(len(column)) if weight is None else weight
            weights = np.asarray(weights, np.float64).reshape(-1)
            for i in np.flatnonzero(weights):
                entry = self._sums.setdefault(name, [0.0, 0.0])
                entry[0] += weights[i] * column[i]
                entry[1] += weights[i]

    def merge(self, other: "Means") -> None:
        """Add all rows of another instance."""
        for name, (total, weight) in other._sums.items():
            entry = self._sums.setdefault(name, [0.0, 0.0])
            entry[0] += total
            entry[1] += weight

    def across_processes(self) -> "Means":
        """The means over the rows of all processes of this run; every process must call it."""
        if jax.process_count() == 1:
            return self
        from jax.experimental import multihost_utils

        # As JSON, which does not change a float64, padded to one length.
        mine = np.frombuffer(json.dumps(self._sums).encode(), np.uint8)
        longest = int(np.max(multihost_utils.process_allgather(np.array(len(mine)))))
        padded = np.pad(mine, (0, longest - len(mine)), constant_values=ord(" "))
        merged = Means()
        for text in np.asarray(multihost_utils.process_allgather(padded), np.uint8):
            other = Means()
            other._sums = json.loads(text.tobytes())
            merged.merge(other)
        return merged

    def means(self) -> dict[str, float]:
        """Name -> mean over the rows; names without a row of positive weight are left out."""
        return {name: float(total / weight) for name, (total, weight) in self._sums.items()}

    def count(self, name: str) -> float:
        """The total weight of the rows of a mean."""
        return float(self._sums.get(name, [0.0, 0.0])[1])
