"""Inverse kinematics: the pose of the skeleton, and the scales of its bodies, from markers.

Over poses of all frames, and one scale for each group of bodies, the fit minimises

    sum_m w_m |x_m - y_m|^2 + REST^2 sum_i q_i^2 + frames' sum of NOISE^2 (s - 1)^2 / SPREAD^2

of markers x at y. The angles stay within their limits.

1. Every frame by itself, with constant scales: Levenberg and Marquardt from the closed form of
   start.py. An angle at its limit is left out of a step that would move it beyond, and the step is
   clipped (a projected Newton method, Bertsekas 1982).
2. The scales: a Gauss-Newton step of poses and scales together. The poses are eliminated frame by
   frame (the Schur complement), so that its cost is linear in the frames. Then 1 again.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from genhmr_jax.core.least_squares import where_rows
from genhmr_jax.geometry.anatomy import ANGLES, COORDINATES, GROUP, GROUPS, LIMITS, PARENTS
from genhmr_jax.geometry.markers import CARRIERS, MARKERS
from genhmr_jax.systems.biopose.kinematics import Placed, Pose, by_pose, by_scales, moved, place
from genhmr_jax.systems.biopose.skeleton import Skeleton
from genhmr_jax.systems.biopose.start import closed_form

CHUNK = 64
"""Frames that are solved together; the last ones are repeated to fill it."""
REST = 1e-3  # metres a radian: it decides only what no marker determines
NOISE, SPREAD = 0.01, 0.1  # metres of a marker; of a scale around 1
_FEWEST = 12  # markers of a frame
_BALLS = ("pelvis_tilt", "arm_flex_r", "arm_flex_l")
"""First angles of the joints whose sequence has a second solution within reach."""


@dataclasses.dataclass(frozen=True)
class IkSpec:
    """Settings: LM steps of a frame, and rounds of scales (0: the scales of the skeleton)."""

    steps: int = 12
    scale_rounds: int = 0
    scale_frames: int = 64  # frames from which scales are found, evenly chosen
    damping: float = 1e-3
    accepted: float = 0.3  # factor of the damping after a step that lowers the loss
    rejected: float = 5.0  # and after another


@dataclasses.dataclass(frozen=True)
class Angles:
    """The answer for F frames, NumPy.

    Attributes:
      values: (F, 47) of COORDINATES: degrees, and metres for ROOT. Without jumps of 360 degrees.
      markers: (F, M, 3) of the skeleton, metres. centres: (F, B, 3) of its joints.
      rmse: (F,) of the markers that were given: root of the mean squared distance, metres.
      scales: (11,) of GROUPS.
    """

    values: Float[np.ndarray, "F 47"]
    markers: Float[np.ndarray, "F M 3"]
    centres: Float[np.ndarray, "F B 3"]
    rmse: Float[np.ndarray, "F"]
    scales: Float[np.ndarray, "G"]

    def column(self, name: str) -> Float[np.ndarray, "F"]:
        """One coordinate over time."""
        return self.values[:, COORDINATES.index(name)]


def solve(
    skeleton: Skeleton, markers: Float[np.ndarray, "F M 3"], spec: IkSpec = IkSpec()
) -> Angles:
    """Joint angles of frames of markers.

    Args:
      skeleton: of the person (systems.biopose.skeleton.skeleton_of).
      markers: in the order of MARKERS, metres; NaN where a marker is not known.
      spec: settings.

    Raises:
      ValueError: another number of markers, no frame, or a frame with too few markers.
    """
    markers = np.asarray(markers, np.float32)
    if markers.ndim != 3 or markers.shape[1:] != (len(MARKERS), 3) or not len(markers):
        raise ValueError(f"markers of shape {markers.shape}: expected (F, {len(MARKERS)}, 3)")
    known = np.isfinite(markers).all(-1)
    if (few := np.flatnonzero(known.sum(1) < _FEWEST)).size:
        raise ValueError(f"frame {few[0]} has fewer than {_FEWEST} markers")
    # Around the middle of each frame: float32 is exact to less than a micrometre there.
    middle = np.nanmean(markers, 1, keepdims=True)
    target, weights = np.where(known[..., None], markers - middle, 0), known.astype(np.float32)
    scales = jnp.ones(len(GROUPS))
    if spec.scale_rounds:
        count = min(spec.scale_frames, len(target))
        chosen = np.linspace(0, len(target) - 1, count).round().astype(int)
        few = [_filled(x[chosen], spec.scale_frames) for x in (target, weights)]
        few[1][count:] = 0
        scales = _scales(skeleton, *few, spec)
    parts = []
    for first in range(0, len(target), CHUNK):
        rows = slice(first, first + CHUNK)
        both = (_filled(x[rows], CHUNK) for x in (target, weights))
        parts.append(_poses(skeleton, *both, scales, spec))
    pose, placed = jax.tree.map(lambda *x: np.concatenate(x)[: len(target)], *parts)
    gap = np.where(known[..., None], placed.markers - target, 0)
    rmse = np.sqrt((gap**2).sum((1, 2)) / known.sum(1))
    values = values_of(dataclasses.replace(pose, translation=pose.translation + middle[:, 0]))
    return Angles(
        values.astype(np.float32), placed.markers + middle, placed.centres + middle, rmse,
        np.asarray(scales),
    )  # fmt: skip


def values_of(pose: Pose) -> Float[np.ndarray, "F 47"]:
    """COORDINATES of the poses of successive frames: degrees and metres, without jumps of 360."""
    root = [np.zeros((len(pose.angles), 3)), pose.translation, np.degrees(pose.angles)]
    values = np.concatenate(root, 1)
    # The pelvis: about z, x and y (AXES). By NumPy: JAX would compile for each number of frames.
    values[:, :3] = Rotation.from_matrix(np.asarray(pose.rotation)).as_euler("ZXY", degrees=True)
    for name in _BALLS:
        column = slice(COORDINATES.index(name), COORDINATES.index(name) + 3)
        values[:, column] = _continuous(values[:, column], COORDINATES[column])
    return values


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and the last one again up to a count."""
    return rows[np.minimum(np.arange(count), len(rows) - 1)]


def _continuous(one: Float[np.ndarray, "F 3"], names: tuple[str, ...]) -> Float[np.ndarray, "F 3"]:
    """Angles of a sequence of three axes without jumps, degrees.

    In each frame the solution, (a, b, c) or (a + 180, 180 - b, c + 180), plus any full turns, is
    that closest to the frame before. There are two such courses, up to full turns: the result is
    the one that exceeds the limits less.
    """
    # The middle axis may be turned against the first and the last one; then 180 - b is -180 - b,
    # which is the same up to a full turn.
    both = np.stack([one, [180, 180, 180] + [1, -1, 1] * one])
    low, high = np.degrees(LIMITS[[ANGLES.index(name) for name in names]]).T
    courses = []
    for first in range(2):
        course = both[first].copy()
        for frame in range(1, len(course)):
            before, pair = course[frame - 1], both[:, frame]
            pair = pair + 360 * np.round((before - pair) / 360)
            course[frame] = pair[np.abs(pair - before).sum(-1).argmin()]
        middle = (course.max(0) + course.min(0)) / 2
        courses.append(course + 360 * np.round(((low + high) / 2 - middle) / 360))
    excess = [np.maximum(low - x, 0) + np.maximum(x - high, 0) for x in courses]
    return courses[int(excess[1].sum() < excess[0].sum())]


@functools.partial(jax.jit, static_argnames="spec")
def _poses(
    skeleton: Skeleton, target: Array, weights: Array, scales: Array, spec: IkSpec
) -> tuple[Pose, Placed]:
    """Poses of frames (F, M, 3) by themselves."""
    sized = _sized(skeleton, scales)
    pose = closed_form(sized, target, weights)
    return _refined(skeleton, target, weights, scales, pose, spec)


@functools.partial(jax.jit, static_argnames="spec")
def _scales(skeleton: Skeleton, target: Array, weights: Array, spec: IkSpec) -> Array:
    """The scales of all frames together."""

    def improved(carry: tuple[Pose, Array], _: None) -> tuple[tuple[Pose, Array], None]:
        pose, scales = carry
        pose, placed = _refined(skeleton, target, weights, scales, pose, spec)
        own, shared = by_pose(placed), by_scales(skeleton, placed)
        gap = weights[..., None] * (placed.markers - target)
        product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        weighed = weights[..., None, None] * own
        h_qq = product("fmip,fmiq->fpq", weighed, own) + REST**2 * jnp.eye(own.shape[-1])
        h_qs = product("fmip,fmig->fpg", weighed, shared)
        h_ss = product("fmig,fmih->gh", weights[..., None, None] * shared, shared)
        g_q, g_s = product("fmip,fmi->fp", own, gap), product("fmig,fmi->g", shared, gap)
        prior = (NOISE / SPREAD) ** 2 * jnp.sum(jnp.any(weights > 0, -1))
        h_ss = h_ss + prior * jnp.eye(len(scales))
        g_s = g_s + prior * (scales - 1)
        factor = jax.scipy.linalg.cho_factor(h_qq)
        both = jax.scipy.linalg.cho_solve(factor, jnp.concatenate([h_qs, g_q[..., None]], -1))
        schur = h_ss - product("fpg,fph->gh", h_qs, both[..., :-1])
        right = g_s - product("fpg,fp->g", h_qs, both[..., -1])
        return (pose, scales - jnp.linalg.solve(schur, right)), None

    ones = jnp.ones(len(GROUPS))
    start = closed_form(skeleton, target, weights)
    (_, scales), _ = jax.lax.scan(improved, (start, ones), None, spec.scale_rounds)
    return scales


def _sized(skeleton: Skeleton, scales: Array) -> Skeleton:
    """The skeleton with its scales."""
    sizes = scales[GROUP]
    offsets = sizes[np.maximum(PARENTS, 0)][:, None] * skeleton.offsets
    return Skeleton(offsets, skeleton.turns, sizes[CARRIERS][:, None] * skeleton.markers)


def _refined(
    skeleton: Skeleton, target: Array, weights: Array, scales: Array, pose: Pose, spec: IkSpec
) -> tuple[Pose, Placed]:
    """Levenberg and Marquardt, frame by frame: poses, and where they place the bodies."""
    low, high = np.asarray(LIMITS[3:], np.float32).T
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def loss_of(pose: Pose, placed: Placed) -> Array:
        far = jnp.sum(weights * jnp.sum((placed.markers - target) ** 2, -1), -1)
        return far + REST**2 * jnp.sum(pose.angles**2, -1)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        trial, pose, placed, loss, damping = carry
        # 1. Keep the trial where it is better.
        there = place(skeleton, trial, scales)
        new = loss_of(trial, there)
        better = new < loss
        pose, placed, loss = where_rows(better, (trial, there, new), (pose, placed, loss))
        damping = damping * jnp.where(better, spec.accepted, spec.rejected)
        # 2. The next trial.
        rows = by_pose(placed)
        gap = weights[..., None] * (placed.markers - target)
        inner = jnp.pad(REST**2 * pose.angles, ((0, 0), (6, 0)))
        slope = product("fmip,fmi->fp", rows, gap) + inner
        curvature = product("fmip,fmiq->fpq", weights[..., None, None] * rows, rows)
        outwards = slope[:, 6:]
        stuck = (pose.angles <= low) & (outwards > 0) | (pose.angles >= high) & (outwards < 0)
        free = 1.0 - jnp.pad(stuck, ((0, 0), (6, 0)))
        curvature = curvature * free[:, :, None] * free[:, None]
        own = jnp.einsum("fpp->fp", curvature)
        extra = damping[:, None] * own + REST**2 + (1 - free)
        curvature = curvature + extra[..., None] * jnp.eye(own.shape[-1])
        factor = jax.scipy.linalg.cho_factor(curvature)
        found = moved(pose, -jax.scipy.linalg.cho_solve(factor, (slope * free)[..., None])[..., 0])
        trial = dataclasses.replace(found, angles=jnp.clip(found.angles, low, high))
        return (trial, pose, placed, loss, damping), None

    # The first trial is the start, which is better than nothing. The last trial is not looked at.
    nothing = jnp.full(len(target), jnp.inf)
    damping = jnp.full(len(target), spec.damping / spec.accepted)
    empty = jax.tree.map(jnp.zeros_like, jax.eval_shape(place, skeleton, pose, scales))
    carry = (pose, pose, empty, nothing, damping)
    (_, pose, placed, *_), _ = jax.lax.scan(step, carry, None, spec.steps + 1)
    return pose, placed
