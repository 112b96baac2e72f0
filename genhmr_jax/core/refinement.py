"""2D pose-guided refinement (GenHMR §4): the second stage of inference.

A sampled body fits the detected 2D keypoints only approximately. The refinement changes its token
embeddings Y, so that the projected joints fit them:

    Y+ = argmin_Y  E(theta(Y), shape, camera)

theta(Y) are the joint rotations that the frozen tokenizer decodes, and E is the objective of
core/fit_objective.py. Shape and camera are optimised too.

The paper makes 10 gradient steps. Here a step is one of Levenberg and Marquardt: with the gradient
g and the curvature H of E by rotations, shape and camera, and the Jacobian D of the decoder, it
minimises the quadratic model plus mu |dY|^2. The embeddings have more dimensions than the
rotations, so the step is solved for in the space of rotations. With G = D D^T

    (H G + mu) q = -g,    dY = D^T q

G is also the metric of shape and camera, where it is diagonal; a zero in it keeps a parameter
fixed. A step that lowers E is kept, and mu decreases; otherwise it is undone, and mu increases. So
the result is never worse than the start. The first step changes only the camera: a body at a wrong
location would bend to reach its keypoints. The loop is one `lax.scan`. All rows of a batch are
refined at the same time and independently.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core.fit_objective import Objective, ObjectiveSpec, Pose, camera_of, weak_of
from genhmr_jax.core.inputs import Decode
from genhmr_jax.core.least_squares import solved, tangent, where_rows
from genhmr_jax.core.silhouette_term import Silhouette
from genhmr_jax.geometry.body_jacobian import CROSS
from genhmr_jax.geometry.camera import CropCamera

Parts = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""Independent parts of a decoder: (joints, rows of the embeddings that determine them)."""

_BATCH = 16  # rows of the decoder's Jacobian that are computed together


@dataclasses.dataclass(frozen=True)
class RefineSpec(ObjectiveSpec):
    """Settings of the refinement; with `steps` 0 it returns the start."""

    steps: int = 10
    camera_steps: int = 1  # number of first steps that change only the camera
    # mu of the first step. With less, 10 steps come closer to the minimum, but not to the truth:
    # the last part of the fit follows the errors of keypoints and mask (docs/experiments.md).
    damping: float = 5e-5
    accepted: float = 0.75  # factor of mu after a step that lowers the loss
    rejected: float = 4.0  # and after another
    decoder_every: int = 5  # steps for which a Jacobian of the decoder is used


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Refined:
    """The best iterate of each row, and the losses.

    Attributes:
      embeddings: (B, L, D) token embeddings Y.
      betas: (B, 10) shape coefficients.
      weak_camera: (B, 3) scale and translation (s, tx, ty) of the crop's camera.
      loss: (steps + 1, B) of the start and after each step; it does not increase.
    """

    embeddings: jax.Array
    betas: jax.Array
    weak_camera: jax.Array
    loss: jax.Array


class _Point(NamedTuple):
    """An iterate: embeddings (B, L, D), betas (B, 10), camera (B, 3) as in Pose."""

    embeddings: Array
    betas: Array
    camera: Array


class _Model(NamedTuple):
    """The quadratic model of the objective: loss (B,), gradient (B, P), curvature (B, P, P)."""

    loss: Array
    gradient: Array
    curvature: Array


def refine(
    decode: Decode,
    body: smpl_jax.SmplModel,
    embeddings: Float[Array, "B L D"],
    betas: Float[Array, "B 10"],
    weak_camera: Float[Array, "B 3"],
    keypoints: Float[Array, "B K 3"],
    view: CropCamera,
    silhouette: Silhouette | None = None,
    spec: RefineSpec = RefineSpec(),
    parts: Parts | None = None,
    certainty: Float[Array, "B"] | None = None,
) -> Refined:
    """Refine a batch.

    Args:
      decode: token embeddings -> rotation matrices (the frozen tokenizer).
      body: the body reduced to the vertices that are keypoints (geometry.keypoints.keypoint_model);
        with a silhouette also to vertices all over its surface (surface_model there).
      embeddings, betas, weak_camera: the start.
      keypoints: DETECTED keypoints, x and y in px and confidence; those of confidence 0, and those
        that are not finite, have no influence.
      view: the photo's camera and the crops of the B people.
      silhouette: of their masks, if there are any.
      spec: settings.
      parts: of the decoder, which make its Jacobian cheaper. None: any rotation may depend on any
        embedding.
      certainty: of the keypoints and masks, 0..1 (core/fit_objective.py); None: 1.
    """
    # In float32, whatever the type of the decoder.
    kind, network = embeddings.dtype, decode
    decode = lambda embeddings: network(embeddings.astype(kind)).astype(jnp.float32)
    given = (embeddings, betas, weak_camera)
    embeddings, betas, weak_camera = (x.astype(jnp.float32) for x in given)
    camera = camera_of(weak_camera)
    start = _Point(embeddings, betas, camera)
    pose = Pose(decode(embeddings), betas, camera)
    objective = Objective(body, pose, keypoints, view, silhouette, spec, certainty)
    batch, joints = len(betas), body.num_joints
    size = 3 * joints + betas.shape[1] + 3
    # The diagonal of G beside D D^T, and the parameters of the first steps.
    others = np.where(np.arange(size) < 3 * joints, 0.0, 1.0).astype(np.float32)
    only_camera = np.where(np.arange(size) < size - 3, 0.0, 1.0).astype(np.float32)

    precise = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def modelled(x: _Point) -> _Model:
        """The quadratic model at x."""
        pose = Pose(decode(x.embeddings), x.betas, x.camera)

        def total(pose: Pose) -> tuple[Array, Any]:
            loss, fit = objective.losses(pose)
            return jnp.sum(loss), (loss, fit)

        # Rows are independent, so that the gradient of the sum of their losses consists of the
        # gradients of the rows.
        gradient, (loss, fit) = jax.grad(total, has_aux=True)(pose)
        turn = tangent(gradient.rotmats, pose.rotmats).reshape(batch, -1)
        gradient = [turn, gradient.betas, gradient.camera]
        return _Model(loss, jnp.concatenate(gradient, -1), objective.curvature(pose, fit))

    def linearised(embeddings: Array) -> tuple[Array, Array]:
        """The Jacobian D of the decoder (B, 3 joints, L D), and G (B, P, P)."""
        jacobian = decoder_jacobian(decode, embeddings, joints, parts)
        own = precise("bix,bjx->bij", jacobian, jacobian)
        rest = ((0, 0), (0, size - 3 * joints), (0, size - 3 * joints))
        return jacobian, jnp.pad(own, rest) + np.diag(others)

    def step(carry: tuple, t: Array) -> tuple[tuple, jax.Array]:
        trial, x, model, decoder, damping = carry

        # 1. Keep the trial where it is better.
        found = modelled(trial)
        better = found.loss < model.loss
        x, model = where_rows(better, trial, x), where_rows(better, found, model)
        damping = damping * jnp.where(better, spec.accepted, spec.rejected)

        # 2. The Jacobian of the decoder changes slowly. While only the camera moves it is not
        # needed.
        due = (t >= spec.camera_steps) & ((t - spec.camera_steps) % spec.decoder_every == 0)
        decoder = jax.lax.cond(due, lambda: linearised(x.embeddings), lambda: decoder)
        jacobian, metric = decoder

        # 3. The next trial.
        moves = jnp.where(t < spec.camera_steps, only_camera, 1.0)
        matrix = precise("bij,bjk->bik", model.curvature, metric * moves)
        matrix = matrix + damping[:, None, None] * jnp.eye(size)
        q = moves * solved(matrix, -model.gradient)
        change = precise("bix,bi->bx", jacobian, q[:, : 3 * joints]).reshape(x.embeddings.shape)
        q = others * q
        trial = _Point(
            x.embeddings + change,
            x.betas + q[:, 3 * joints : -3],
            x.camera + q[:, -3:],
        )
        return (trial, x, model, decoder, damping), model.loss

    # The first trial is the start, which is better than nothing.
    zeros = lambda *shape: jnp.zeros((batch, *shape))
    nothing = _Model(zeros() + jnp.inf, zeros(size), zeros(size, size))
    decoder = zeros(3 * joints, embeddings[0].size), zeros(size, size) + np.diag(others)
    carry = (start, start, nothing, decoder, zeros() + spec.damping / spec.accepted)
    (_, x, *_), trace = jax.lax.scan(step, carry, jnp.arange(spec.steps + 1))
    return Refined(x.embeddings.astype(kind), x.betas, weak_of(x.camera), trace)


def decoder_jacobian(
    decode: Decode, embeddings: Float[Array, "B L D"], joints: int, parts: Parts | None
) -> Float[Array, "B R E"]:
    """The Jacobian of the joint rotations (R = 3 x joints, as in geometry.body_jacobian).

    E = L D. Joints of different parts share one pass through the decoder (the compression of sparse
    Jacobians by Curtis, Powell and Reid 1974).
    """
    length = embeddings.shape[1]
    parts = parts or ((tuple(range(joints)), tuple(range(length))),)
    # 1. The passes: number of each joint in its part, and the embeddings of the part.
    number, own = np.zeros(joints, int), np.zeros((joints, length), np.float32)
    for members, rows in parts:
        number[list(members)] = range(len(members))
        own[np.ix_(members, rows)] = 1.0
    passes = (np.arange(number.max() + 1)[:, None] == number).astype(np.float32)
    # 2. R -> exp([a]x) R changes R by [a]x R, and a is read from a change by E_k R / 2.
    rotmats, pull = jax.vjp(decode, embeddings)
    seeds = 0.5 * jnp.einsum("sj,kxy,bjyz->skbjxz", passes, CROSS, rotmats)
    seeds = seeds.reshape(-1, *rotmats.shape)
    found = jax.lax.map(lambda seed: pull(seed)[0], seeds, batch_size=_BATCH)
    found = found.reshape(-1, 3, *embeddings.shape)[number] * own[:, None, None, :, None]
    return jnp.moveaxis(found, 2, 0).reshape(len(embeddings), 3 * joints, -1)
