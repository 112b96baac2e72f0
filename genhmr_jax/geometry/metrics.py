"""Error measures of this field, for any leading batch axes, with masks, jittable; and the means of them over streamed batches.

Units are those of the input: metres in, metres out. A mask (..., K) says which points are known: the others have no influence. A row
without known points gives 0; give `Means.add` the weight 0 for it.
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
AUC_THRESHOLDS = tuple(np.linspace(0.0, PCK_THRESHOLD, 31))  # every 5 mm, as there

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)  # TPUs would multiply in bfloat16: millimetres


class Similarity(NamedTuple):
    """x -> scale x rotation + shift, for points as rows: scale (...,), rotation (..., 3, 3), shift (..., 3)."""

    scale: Float[Array, "*b"]
    rotation: Float[Array, "*b 3 3"]
    shift: Float[Array, "*b 3"]

    def __call__(self, points: Float[Array, "*b K 3"]) -> Float[Array, "*b K 3"]:
        """The points moved."""
        turned = _einsum("...ki,...ij->...kj", points, self.rotation)
        return self.scale[..., None, None] * turned + self.shift[..., None, :]


def distances(predicted: Float[Array, "*b K 3"], target: Float[Array, "*b K 3"]) -> Float[Array, "*b K"]:
    """Distance of each point from its target."""
    return jnp.linalg.norm(predicted - target, axis=-1)


def masked_mean(values: Float[Array, "*b K"], mask: Float[Array, "*b K"] | None = None) -> Float[Array, "*b"]:
    """Mean over the last axis of the values whose mask is not 0; 0 where there is none. What is masked may be NaN."""
    if mask is None:
        return jnp.mean(values, -1)
    known = jnp.asarray(mask) > 0
    return jnp.sum(jnp.where(known, values, 0.0), -1) / jnp.maximum(jnp.sum(known, -1), 1)


def centred(points: Float[Array, "*b K 3"], root: int | Sequence[int] = 0) -> Float[Array, "*b K 3"]:
    """Points relative to the root: one of them, or the mean of several (EMDB's pelvis is the mean of the hips)."""
    indices = [root] if isinstance(root, int) else list(root)
    return points - jnp.mean(points[..., np.array(indices), :], -2, keepdims=True)


def mpjpe(
    predicted: Float[Array, "*b K 3"],
    target: Float[Array, "*b K 3"],
    mask: Float[Array, "*b K"] | None = None,
    *,
    root: int | Sequence[int] | None = 0,
) -> Float[Array, "*b"]:
    """Mean per-joint position error after both are centred at `root` (which must be known); None: as they are."""
    if root is not None:
        predicted, target = centred(predicted, root), centred(target, root)
    return masked_mean(distances(predicted, target), mask)


def procrustes(predicted: Float[Array, "*b K 3"], target: Float[Array, "*b K 3"], mask: Float[Array, "*b K"] | None = None) -> Similarity:
    """The similarity transform that brings the predicted points nearest to the targets, in least squares.

    Umeyama 1991, eq. 40 to 42: a reflection is never used. Points that all coincide are shifted alone. In float32 errors are right to
    2e-7 m at human scale; only where both sets lie within 0.1 mm of a line is the turn about that line lost, and with it that distance.
    """
    weight = jnp.ones(predicted.shape[:-1], predicted.dtype) if mask is None else (jnp.asarray(mask) > 0).astype(predicted.dtype)
    predicted, target = (jnp.where(weight[..., None] > 0, x, 0.0) for x in (predicted, target))
    weight = weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1.0)
    centre_p, centre_t = (_einsum("...k,...ki->...i", weight, x) for x in (predicted, target))
    p, t = predicted - centre_p[..., None, :], target - centre_t[..., None, :]
    u, s, vt = jnp.linalg.svd(_einsum("...k,...ki,...kj->...ij", weight, p, t))
    mirrored = _handedness(u) * _handedness(vt) < 0
    flip = jnp.where(mirrored[..., None], jnp.array([1.0, 1.0, -1.0], s.dtype), 1.0)
    rotation = _einsum("...ij,...j,...jk->...ik", u, flip, vt)
    variance = _einsum("...k,...ki,...ki->...", weight, p, p)
    scale = jnp.sum(s * flip, -1) / jnp.maximum(variance, 1e-12)
    return Similarity(scale, rotation, centre_t - scale[..., None] * _einsum("...i,...ij->...j", centre_p, rotation))


def _handedness(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
    """The determinant, without an LU decomposition."""
    return jnp.sum(matrix[..., 0, :] * jnp.cross(matrix[..., 1, :], matrix[..., 2, :]), -1)


def pa_mpjpe(
    predicted: Float[Array, "*b K 3"], target: Float[Array, "*b K 3"], mask: Float[Array, "*b K"] | None = None
) -> Float[Array, "*b"]:
    """MPJPE after the best similarity transform (`procrustes`)."""
    known = predicted if mask is None else jnp.where(jnp.asarray(mask)[..., None] > 0, predicted, 0.0)
    return masked_mean(distances(procrustes(predicted, target, mask)(known), target), mask)


def mve(
    predicted: Float[Array, "*b V 3"], target: Float[Array, "*b V 3"], roots: tuple[Float[Array, "*b 3"], Float[Array, "*b 3"]]
) -> Float[Array, "*b"]:
    """Mean vertex error (MVE, PVE, V2V) after the two roots (of the predicted and of the true body) are brought together."""
    return jnp.mean(distances(predicted - roots[0][..., None, :], target - roots[1][..., None, :]), -1)


def pa_mve(predicted: Float[Array, "*b V 3"], target: Float[Array, "*b V 3"], similarity: Similarity | None = None) -> Float[Array, "*b"]:
    """Mean vertex error after a similarity transform: that of the vertices themselves, or a given one (EMDB takes that of the joints)."""
    similarity = procrustes(predicted, target) if similarity is None else similarity
    return jnp.mean(distances(similarity(predicted), target), -1)


def mpjae(
    predicted: Float[Array, "*b J 3 3"], target: Float[Array, "*b J 3 3"], similarity: Similarity | None = None
) -> Float[Array, "*b"]:
    """Mean per-joint angular error, degrees, of rotations relative to the camera (not to the parent joints).

    Args:
      predicted: matrices that turn column vectors.
      target: the same.
      similarity: turns the predicted ones first (PA-MPJAE: `procrustes` of the joints).
    """
    if similarity is not None:
        predicted = _einsum("...ji,...kjl->...kil", similarity.rotation, predicted)
    return jnp.degrees(jnp.mean(geodesic_angle(predicted, target), -1))


def pck(distance: Float[Array, "*b K"], threshold: float = PCK_THRESHOLD, mask: Float[Array, "*b K"] | None = None) -> Float[Array, "*b"]:
    """Share of points nearer than a threshold to their target (both in the same unit)."""
    return masked_mean((distance < threshold).astype(distance.dtype), mask)


def auc(
    distance: Float[Array, "*b K"], thresholds: Sequence[float] = AUC_THRESHOLDS, mask: Float[Array, "*b K"] | None = None
) -> Float[Array, "*b"]:
    """Area under the PCK curve: its mean over the thresholds, 0..1 (MPI-INF-3DHP: every 5 mm from 0 to 150 mm)."""
    nearer = jnp.mean(distance[..., None] < jnp.asarray(thresholds, distance.dtype), -1, dtype=distance.dtype)
    return masked_mean(nearer, mask)


def acceleration_error(
    predicted: Float[Array, "*b T K 3"], target: Float[Array, "*b T K 3"], known: Bool[Array, "*b T"] | None = None
) -> tuple[Float[Array, "*b t"], Bool[Array, "*b t"]]:
    """Error of the second difference of each joint, mean over joints (HMMR, Kanazawa et al. 2019); metres per frame squared.

    Args:
      predicted: joints of T successive frames.
      target: the same.
      known: frames whose label is good.

    Returns:
      the errors of the T - 2 inner frames, and whether a frame and both its neighbours are known.
    """
    gap = predicted - target
    errors = jnp.mean(jnp.linalg.norm(gap[..., 2:, :, :] - 2 * gap[..., 1:-1, :, :] + gap[..., :-2, :, :], axis=-1), -1)
    known = jnp.ones(predicted.shape[:-2], bool) if known is None else known
    return errors, known[..., 2:] & known[..., 1:-1] & known[..., :-2]


def jitter(joints: Float[Array, "*b T K 3"], frames_per_second: float) -> Float[Array, "*b t K"]:
    """Jerk of each joint: the third difference, metres per second cubed, of T - 3 steps (PIP, Yi et al. 2022)."""
    third = joints[..., 3:, :, :] - 3 * joints[..., 2:-1, :, :] + 3 * joints[..., 1:-2, :, :] - joints[..., :-3, :, :]
    return jnp.linalg.norm(third, axis=-1) * frames_per_second**3


def silhouette_iou(predicted: Bool[Array, "*b H W"], target: Bool[Array, "*b H W"]) -> Float[Array, "*b"]:
    """Intersection over union of masks; 0 where both are empty.

    Raises:
      ValueError: the sizes differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"masks of {predicted.shape} and {target.shape} cannot be compared: give masks of one size")
    both, either = jnp.sum(predicted & target, (-1, -2)), jnp.sum(predicted | target, (-1, -2))
    return both / jnp.maximum(either, 1)


class Means:
    """Means of named measures over batches that come one after another, in float64.

    The sums are kept, not the rows: batches of any size, in any order and on any number of processes give the same means.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}  # name -> [sum, weight]

    def add(self, values: Mapping[str, Array], weight: Array | None = None) -> None:
        """Adds rows.

        Args:
          values: name -> (B,). A value that is not finite makes its mean not finite, unless its weight is 0.
          weight: (B,), how much each row counts; default 1.
        """
        for name, column in values.items():
            column = np.asarray(column, np.float64).reshape(-1)
            weights = np.ones(len(column)) if weight is None else np.asarray(weight, np.float64).reshape(-1)
            for i in np.flatnonzero(weights):
                entry = self._sums.setdefault(name, [0.0, 0.0])
                entry[0] += weights[i] * column[i]
                entry[1] += weights[i]

    def merge(self, other: "Means") -> None:
        """Adds all that another one has seen."""
        for name, (total, weight) in other._sums.items():
            entry = self._sums.setdefault(name, [0.0, 0.0])
            entry[0] += total
            entry[1] += weight

    def across_processes(self) -> "Means":
        """What all processes of this run have seen; every process must call it."""
        if jax.process_count() == 1:
            return self
        from jax.experimental import multihost_utils

        mine = np.frombuffer(json.dumps(self._sums).encode(), np.uint8)  # float64 goes through JSON unchanged
        longest = int(np.max(multihost_utils.process_allgather(np.array(len(mine)))))
        everyone = multihost_utils.process_allgather(np.pad(mine, (0, longest - len(mine)), constant_values=ord(" ")))
        merged = Means()
        for text in np.asarray(everyone, np.uint8):
            other = Means()
            other._sums = json.loads(text.tobytes())
            merged.merge(other)
        return merged

    def means(self) -> dict[str, float]:
        """Name -> mean over the rows; names that no row counted for are left out."""
        return {name: float(total / weight) for name, (total, weight) in self._sums.items()}

    def count(self, name: str) -> float:
        """The weight of all rows that a mean is made of."""
        return float(self._sums.get(name, [0.0, 0.0])[1])
