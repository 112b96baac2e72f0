"""Refinement of a person over a window of frames: the 2D refinement with a motion prior.

Every frame has the objective E_t of the 2D refinement (core/fit_objective.py), of its token
embeddings Y_t and its camera, without the silhouette term, which made a steady body less accurate
(docs/experiments.md). The shape is the same in all frames and does not change. The motion prior
penalises the accelerations of the joints, and the velocity of feet that rest on the ground:

    sum_t w_t E_t + acceleration * sum_t mean_j || a_tj ||^2 + contact * sum_t c_tf || v_tf ||^2

a_tj and v_tf are differences over frames, scaled to 1/30 s, in metres. The frames may have
different intervals. The weight w_t is the certainty of the detector (detect/pose_estimate.py), so
that the frames around an uncertain one determine its pose. Where a person was not detected, E_t has
no keypoints, and the prior alone determines the pose.

A step is one of Levenberg and Marquardt, as in core/refinement.py. There, with the Jacobian D of
the decoder, G = D D^T and the curvature H of a frame, dY = D^T q. Here the frames are coupled, so
that the equations are solved in symmetric form: with G = S S^T the unknowns z of all frames satisfy

    (S^T (H + B) S + mu) z = -S^T g,    q = S^-T z

B is the curvature of the motion prior, which couples each frame with the two on either side. Pairs
of frames make the matrix block-tridiagonal.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Bool, Float
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.block_tridiagonal import solve_chain
from genhmr_jax.core.fit_objective import Fit, Objective, ObjectiveSpec, Pose, camera_of, weak_of
from genhmr_jax.core.inputs import Decode
from genhmr_jax.core.least_squares import tangent
from genhmr_jax.core.refinement import Parts, decoder_jacobian
from genhmr_jax.geometry.body_jacobian import body_jacobian
from genhmr_jax.geometry.camera import CropCamera

FRAME = 1 / 30
"""Seconds: the unit of time of the motion prior."""
FEET = [SMPL24.index("left_foot"), SMPL24.index("right_foot")]
# Added to G, which may be singular; the second one is relative to its largest diagonal entry, and
# above the rounding errors of float32.
REGULAR, RELATIVE = 1e-6, 1e-5

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class MotionSpec(ObjectiveSpec):
    """Settings of the refinement over frames (docs/experiments.md)."""

    steps: int = 8
    acceleration: float = 0.05
    contact: float = 0.3
    damping: float = 1e-4  # mu of the first step
    accepted: float = 0.3  # factor of mu after a step that lowers the loss
    rejected: float = 6.0  # and after another
    decoder_every: int = 4  # steps for which a Jacobian of the decoder is used


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """T frames of one person; T is even.

    Attributes:
      times: (T,) seconds, increasing.
      known: (T,) whether a frame exists; the others are padding at the end.
      free: (T,) whether a frame may change.
      embeddings: (T, L, D) token embeddings, the start.
      prior: (T, L, D) embeddings of the sampled poses, to which the prior of the pose refers.
      betas: (T, 10) the shape, the same in all frames.
      weak_camera: (T, 3) the start.
      keypoints: (T, K, 3) px and confidence; 0 where not detected.
      view: the camera and the crops.
      contact: (T, 2) weight with which the left and the right foot rest from this frame to the
        next one.
      weight: (T,) w_t of a frame's own objective.
    """

    times: Float[Array, "T"]
    known: Bool[Array, "T"]
    free: Bool[Array, "T"]
    embeddings: Float[Array, "T L D"]
    prior: Float[Array, "T L D"]
    betas: Float[Array, "T 10"]
    weak_camera: Float[Array, "T 3"]
    keypoints: Float[Array, "T K 3"]
    view: CropCamera
    contact: Float[Array, "T 2"]
    weight: Float[Array, "T"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RefinedMotion:
    """embeddings: (T, L, D). weak_camera: (T, 3). loss: (steps + 1,), it does not increase."""

    embeddings: Float[Array, "T L D"]
    weak_camera: Float[Array, "T 3"]
    loss: Float[Array, "S"]


class Differences(NamedTuple):
    """Weights of the frames in the differences over frames.

    Attributes:
      second: (T, 3) of the frames t - 1, t, t + 1 in the acceleration of frame t; 0 at the ends.
      first: (T, 2) of the frames t, t + 1 in the velocity of frame t; 0 at the end.
    """

    second: Float[Array, "T 3"]
    first: Float[Array, "T 2"]


def differences(times: Float[Array, "T"], known: Bool[Array, "T"]) -> Differences:
    """The weights of divided differences, in units of FRAME."""
    interval = jnp.maximum(jnp.diff(times), 1e-3) / FRAME
    before, after = interval[:-1], interval[1:]
    second = jnp.stack([1 / before, -1 / before - 1 / after, 1 / after], -1)
    second = second * (2 / (before + after))[:, None]
    second = second * (known[:-2] & known[2:])[:, None]
    first = jnp.stack([-1 / interval, 1 / interval], -1) * known[1:, None]
    return Differences(jnp.pad(second, ((1, 1), (0, 0))), jnp.pad(first, ((0, 1), (0, 0))))


class _Point(NamedTuple):
    embeddings: Array
    camera: Array


class _Model(NamedTuple):
    """The quadratic model: loss (), gradient (T, P), and blocks (T, P, P) for t, t - 1, t - 2."""

    loss: Array
    gradient: Array
    own: Array
    before: Array
    second: Array


def refine_motion(
    decode: Decode,
    body: smpl_jax.SmplModel,
    window: Window,
    spec: MotionSpec = MotionSpec(),
    parts: Parts | None = None,
) -> RefinedMotion:
    """Refine one window.

    Args:
      decode: token embeddings -> rotation matrices.
      body: reduced to surface points, as for core.refinement.refine.
      window: its frames.
      spec: settings.
      parts: of the decoder, see core.refinement.refine.
    """
    kind, network = window.embeddings.dtype, decode
    decode = lambda embeddings: network(embeddings.astype(kind)).astype(jnp.float32)
    camera = camera_of(window.weak_camera)
    prior = Pose(decode(window.prior), window.betas, camera)
    objective = Objective(body, prior, window.keypoints, window.view, None, spec)
    steps = differences(window.times, window.known)
    joints, frames = body.num_joints, len(camera)
    turns = 3 * joints
    chosen = np.append(np.arange(turns), [-3, -2, -1])  # without the shape

    def modelled(x: _Point) -> _Model:
        pose = Pose(decode(x.embeddings), window.betas, x.camera)

        def total(pose: Pose) -> tuple[Array, Fit]:
            of_frames, fit = objective.losses(pose)
            loss = jnp.sum(jnp.where(window.known, window.weight * of_frames, 0.0))
            return loss + motion_loss(fit.joints, steps, window.contact, spec), fit

        # 1. Loss and gradient.
        (loss, fit), by = jax.value_and_grad(total, has_aux=True)(pose)
        gradient = [tangent(by.rotmats, pose.rotmats).reshape(frames, -1), by.camera]
        # 2. The curvature of each frame, and that of the motion prior.
        curvature = objective.curvature(pose, fit)[:, chosen[:, None], chosen]
        curvature = curvature * (window.known * window.weight)[:, None, None]
        moving = _joint_motions(body, pose, fit)
        own, before, second = _coupling(moving, steps, window.contact, spec)
        gradient = jnp.concatenate(gradient, -1)
        return _Model(loss, gradient, curvature + own, before, second)

    def linearised(embeddings: Array) -> tuple[Array, Array]:
        """The Jacobian D of the decoder, and S (T, P, P)."""
        jacobian = decoder_jacobian(decode, embeddings, joints, parts)
        metric = _einsum("bix,bjx->bij", jacobian, jacobian)
        largest = jnp.max(jnp.sum(jacobian**2, -1), -1)[:, None, None]
        root = jnp.linalg.cholesky(metric + (REGULAR + RELATIVE * largest) * jnp.eye(turns))
        root = jnp.pad(root, ((0, 0), (0, 3), (0, 3)))
        return jacobian, root + np.diag(np.arange(turns + 3) >= turns).astype(np.float32)

    def step(carry: tuple, t: Array) -> tuple[tuple, Array]:
        trial, x, model, decoder, damping = carry
        # 1. Keep the trial if it is better.
        found = modelled(trial)
        better = found.loss < model.loss
        keep = lambda new, old: jnp.where(better, new, old)
        x, model = jax.tree.map(keep, trial, x), jax.tree.map(keep, found, model)
        damping = damping * jnp.where(better, spec.accepted, spec.rejected)
        # 2. The Jacobian of the decoder changes slowly.
        due = (t % spec.decoder_every == 0) & (t < spec.steps)
        decoder = jax.lax.cond(due, lambda: linearised(x.embeddings), lambda: decoder)
        jacobian, root = decoder
        # 3. The next trial.
        free = root * window.free[:, None, None]
        z = _solved(model, free, damping)
        q = jax.scipy.linalg.solve_triangular(root, z[..., None], lower=True, trans=1)[..., 0]
        q = q * window.free[:, None]
        change = _einsum("bix,bi->bx", jacobian, q[:, :turns]).reshape(x.embeddings.shape)
        trial = _Point(x.embeddings + change, x.camera + q[:, turns:])
        return (trial, x, model, decoder, damping), model.loss

    size = turns + 3
    start = _Point(window.embeddings.astype(jnp.float32), camera)
    blocks = jnp.zeros((frames, size, size))
    nothing = _Model(jnp.float32(jnp.inf), jnp.zeros((frames, size)), blocks, blocks, blocks)
    jacobian = jnp.zeros((frames, turns, window.embeddings[0].size))
    carry = (start, start, nothing, (jacobian, blocks), jnp.float32(spec.damping / spec.accepted))
    (_, x, *_), losses = jax.lax.scan(step, carry, jnp.arange(spec.steps + 1))
    return RefinedMotion(x.embeddings.astype(kind), weak_of(x.camera), losses)


def motion_loss(
    joints: Float[Array, "T J 3"],
    steps: Differences,
    contact: Float[Array, "T 2"],
    spec: MotionSpec,
) -> Float[Array, ""]:
    """The motion prior of joints, metres."""
    shifted = lambda by: jnp.roll(joints, -by, 0)
    around = jnp.stack([shifted(-1), joints, shifted(1)], 1)
    acceleration = _einsum("tk,tkjx->tjx", steps.second, around)
    loss = spec.acceleration * jnp.sum(jnp.mean(jnp.sum(acceleration**2, -1), -1))
    feet = jnp.stack([joints, shifted(1)], 1)[:, :, np.array(FEET)]
    velocity = _einsum("tk,tkfx->tfx", steps.first, feet)
    return loss + spec.contact * jnp.sum(contact * jnp.sum(velocity**2, -1))


def _joint_motions(body: smpl_jax.SmplModel, pose: Pose, fit: Fit) -> Float[Array, "T J 3 P"]:
    """Derivatives of the joints by rotations and camera."""
    rows, count = len(pose.betas), body.num_joints
    jacobian = body_jacobian(body, pose.rotmats, fit.joints)
    moving = jacobian.skeleton()
    axes = [jnp.broadcast_to(axis, (rows, count, 3)) for axis in jnp.eye(3)]
    turns = jnp.stack([jacobian.rows(axis, fit.joints, moving) for axis in axes], 2)
    by_scale = jnp.pad(pose.camera[:, 1:], ((0, 0), (0, 1))) - fit.translation
    by_camera = jnp.stack([by_scale, *jnp.tile(jnp.eye(2, 3)[:, None], (rows, 1))], -1)
    by_camera = jnp.broadcast_to(by_camera[:, None], (rows, count, 3, 3))
    return jnp.concatenate([turns[..., : 3 * count], by_camera], -1)


def _coupling(
    moving: Float[Array, "T J 3 P"],
    steps: Differences,
    contact: Float[Array, "T 2"],
    spec: MotionSpec,
) -> tuple[Array, Array, Array]:
    """The curvature of the motion prior: blocks (T, P, P) of frame t with t, t - 1 and t - 2."""
    frames, joints = moving.shape[:2]
    every = moving.reshape(frames, -1, moving.shape[-1])
    feet = moving[:, np.array(FEET)]
    back = lambda x, by: jnp.roll(x, by, 0)  # of frame t - by, at t

    def product(by: int) -> Array:
        return _einsum("tni,tnj->tij", every, back(every, by))

    def of_feet(weight: Array, by: int) -> Array:
        return _einsum("tf,tfxi,tfxj->tij", weight, feet, back(feet, by))

    # 1. Accelerations: the one of frame s has the frames s - 1, s, s + 1 with the weights w.
    w = 2 * spec.acceleration / joints
    a = steps.second
    own = back(a[:, 2] ** 2, 1) + a[:, 1] ** 2 + back(a[:, 0] ** 2, -1)
    before = a[:, 0] * a[:, 1] + back(a[:, 1] * a[:, 2], 1)
    second = back(a[:, 0] * a[:, 2], 1)
    blocks = [w * c[:, None, None] * product(by) for by, c in enumerate((own, before, second))]
    # 2. Velocities of resting feet, from frame s to s + 1.
    v = 2 * spec.contact * contact
    own = v * steps.first[:, :1] ** 2 + back(v * steps.first[:, 1:] ** 2, 1)
    before = back(v * steps.first[:, :1] * steps.first[:, 1:], 1)
    return blocks[0] + of_feet(own, 0), blocks[1] + of_feet(before, 1), blocks[2]


def _solved(model: _Model, root: Float[Array, "T P P"], damping: Array) -> Float[Array, "T P"]:
    """The step z of all frames; `root` is S, and zero for frames that must not change."""
    frames, size = model.gradient.shape
    back = lambda by: jnp.roll(root, by, 0)
    transformed = lambda block, by: _einsum("bki,bkl,blj->bij", root, block, back(by))
    own = transformed(model.own, 0) + damping * jnp.eye(size)
    before, second = transformed(model.before, 1), transformed(model.second, 2)
    # Pairs of frames (2n, 2n + 1): the matrix becomes block-tridiagonal.
    even, odd = slice(0, None, 2), slice(1, None, 2)
    pair = lambda a, b, c, d: jnp.concatenate(
        [jnp.concatenate([a, b], -1), jnp.concatenate([c, d], -1)], -2
    )
    diagonal = pair(own[even], jnp.swapaxes(before[odd], 1, 2), before[odd], own[odd])
    zero = jnp.zeros_like(own[even])
    below = pair(second[even], before[even], zero, second[odd])
    right = -_einsum("bki,bk->bi", root, model.gradient).reshape(frames // 2, -1)
    return solve_chain(diagonal, below, right).reshape(frames, size)
