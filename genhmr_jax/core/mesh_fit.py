"""Pose, shape and translation of a body from the vertices of its mesh.

For vertices t_n the fit minimises, over rotations R_j, betas and a translation,

    E = 1/V sum_n |v_n - t_n|^2 + s^2 / V (sum_j |R_j - 1|^2 / (2 POSE^2) + |betas|^2)

without the root in the sum over j. It is the most probable body for vertices with a normal error of
s metres in each coordinate, rotations of about POSE radians and betas of about 1. With a small s
the priors decide only what the vertices do not determine, such as the twist of a hand that has two
of them.

1. The start has a closed form: the rotation of each joint in the world is the one that best turns
   its vertices from the rest pose to the target (Kabsch 1976, with the skinning weights), found by
   the quaternion method of Horn (1987).
2. A step is one of Levenberg and Marquardt on all parameters together, with the exact gradient and
   the curvature of geometry/body_jacobian.py: (H + mu diag H) q = -g. A step that lowers E is kept,
   and mu decreases; otherwise it is undone, and mu increases.

All rows of a batch are fitted at the same time and independently.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import SmplModel, rotations
from smpl_jax.blocks import vertex_tables

from genhmr_jax.core.least_squares import solved, tangent, where_rows
from genhmr_jax.geometry.body_jacobian import body_jacobian

POSE = 0.5  # radians: a usual rotation of a joint
# Weight of the parent's rotation in the start, m^2: that of one vertex at this distance squared.
_LIKE_PARENT = 0.02**2
_SQUARINGS = 16  # of a matrix, to find its largest eigenvector
_SURE = 1e-12  # keeps the scale of the system above zero

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class MeshFitSpec:
    """Settings of the fit; with `steps` 0 it returns the closed form."""

    steps: int = 20
    noise: float = 1e-3  # s, metres: the error of the vertices, such as 0.02 for a network's
    damping: float = 1e-2  # mu of the first step
    # With less damping the steps are too long for this curvature, which leaves terms out.
    accepted: float = 0.5  # factor of mu after a step that lowers the loss
    rejected: float = 3.0  # and after another


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeshFit:
    """The fitted bodies; a row whose vertices are not finite is NaN.

    Attributes:
      rotmats: (B, 24, 3, 3) rotation of each joint relative to its parent.
      betas: (B, S) shape coefficients.
      translation: (B, 3) metres, of smpl_jax.forward.
      error: (B,) mean distance of the vertices, metres.
      loss: (steps + 1, B) E in m^2 at the start and after each step; it does not increase.
    """

    rotmats: jax.Array
    betas: jax.Array
    translation: jax.Array
    error: jax.Array
    loss: jax.Array


class _Point(NamedTuple):
    """An iterate: (B, J, 3, 3), (B, S), (B, 3)."""

    rotmats: Array
    betas: Array
    translation: Array


class _Model(NamedTuple):
    """The quadratic model of E: loss (B,), gradient (B, P), curvature (B, P, P)."""

    loss: Array
    gradient: Array
    curvature: Array


def fit_mesh(
    body: SmplModel, vertices: Float[Array, "B V 3"], *, spec: MeshFitSpec = MeshFitSpec()
) -> MeshFit:
    """Fit bodies to meshes.

    Args:
      body: the body, or a subset of its vertices.
      vertices: those of this body, metres.
      spec: settings.

    Raises:
      ValueError: another number of vertices.
    """
    if vertices.ndim != 3 or vertices.shape[1:] != (body.num_vertices, 3):
        expected = f"(B, {body.num_vertices}, 3)"
        raise ValueError(f"vertices of shape {vertices.shape}: this body needs {expected}")
    vertices = vertices.astype(body.template.dtype)
    batch, size = len(vertices), 3 * body.num_joints + body.num_betas + 3
    # Around the origin, float32 is exact to less than a micrometre.
    middle = jnp.mean(vertices, 1)
    target = vertices - middle[:, None]

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        trial, x, model, damping = carry
        # 1. Keep the trial where it is better.
        found = _modelled(body, target, trial, spec)
        better = found.loss < model.loss
        x, model = where_rows(better, trial, x), where_rows(better, found, model)
        damping = damping * jnp.where(better, spec.accepted, spec.rejected)
        # 2. The next trial. The system is solved in units in which the diagonal of H is 1.
        scale = jax.lax.rsqrt(jnp.einsum("bii->bi", model.curvature) + _SURE)
        matrix = model.curvature * scale[:, :, None] * scale[:, None]
        matrix = matrix + damping[:, None, None] * jnp.eye(size)
        trial = _moved(x, scale * solved(matrix, -model.gradient * scale))
        return (trial, x, model, damping), model.loss

    # The first trial is the start, which is better than nothing.
    zeros = lambda *shape: jnp.zeros((batch, *shape), target.dtype)
    nothing = _Model(zeros() + jnp.inf, zeros(size), zeros(size, size))
    start = closed_form(body, target)
    carry = (start, start, nothing, zeros() + spec.damping / spec.accepted)
    (_, x, *_), trace = jax.lax.scan(step, carry, None, spec.steps + 1)
    gap = smpl_jax.forward(body, *x[1::-1], x.translation).vertices - target
    fit = MeshFit(
        x.rotmats, x.betas, x.translation + middle, jnp.mean(jnp.linalg.norm(gap, axis=-1), -1),
        trace.T,
    )  # fmt: skip
    fit = where_rows(jnp.isfinite(vertices).all((1, 2)), fit, jax.tree.map(_nan, fit))
    return dataclasses.replace(fit, loss=fit.loss.T)


def _nan(x: Array) -> Array:
    return jnp.full_like(x, jnp.nan)


def closed_form(body: SmplModel, vertices: Float[Array, "B V 3"]) -> _Point:
    """The start: the rotation of each joint alone, betas 0, and the centroids on each other."""
    weights = vertex_tables(body.blocks, body.num_joints, jnp.arange(body.num_vertices))[1]
    rest, count = body.template.T, jnp.sum(weights, 0) + _SURE
    # 1. sum_n w_n (t_n - mean t)(r_n - mean r)^T of each joint.
    mean = _einsum("nj,nx->jx", weights, rest) / count[:, None]
    arms = weights[..., None] * (rest[:, None] - mean)
    spread = _einsum("bnx,njy->bjxy", vertices, arms)
    # 2. The rotations from the root outwards, relative to the world and to the parents. A joint
    # with few vertices, or with vertices on a line, follows its parent.
    world, local = [], []
    for joint, parent in enumerate(body.parents):
        above = world[parent] if parent >= 0 else jnp.tile(jnp.eye(3), (len(vertices), 1, 1))
        world.append(nearest_rotation(spread[:, joint] + _LIKE_PARENT * above))
        local.append(_einsum("byx,byz->bxz", above, world[-1]))
    rotmats = jnp.stack(local, 1)
    # 3. The translation.
    betas = jnp.zeros((len(vertices), body.num_betas), vertices.dtype)
    posed = smpl_jax.forward(body, betas, rotmats).vertices
    return _Point(rotmats, betas, jnp.mean(vertices - posed, 1))


def nearest_rotation(m: Float[Array, "B 3 3"]) -> Float[Array, "B 3 3"]:
    """The rotation R with the largest tr(R^T M).

    For the unit quaternion q of R it is q^T K q with a symmetric 4x4 matrix K that is linear in M
    (Horn, "Closed-form solution of absolute orientation using unit quaternions", 1987), so q is the
    eigenvector of the largest eigenvalue. Here it comes from high powers of K + |K|, the same on
    every device. M of any size is allowed; of M = 0 it is the identity.
    """
    m = [[m[..., i, j] for j in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    a, b, c = m[0][0], m[1][1], m[2][2]
    rows = [
        [a + b + c, wx, wy, wz],
        [wx, a - b - c, xy, xz],
        [wy, xy, b - a - c, yz],
        [wz, xz, yz, c - a - b],
    ]
    power = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    power = _scaled(power)
    squares = jnp.sum(power * power, (-1, -2), keepdims=True)
    # The root of 0 has no gradient.
    length = jnp.where(squares > 0.0, jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0)), 0.0)
    power = power + length * jnp.eye(4)

    def squared(_: Array, k: Array) -> Array:
        k = _scaled(k)
        return jnp.sum(k[..., :, :, None] * k[..., None, :, :], -2)

    power = jax.lax.fori_loop(0, _SQUARINGS, squared, power)
    # It is q q^T now; its row with the largest diagonal entry is the most exact one.
    best = jnp.argmax(jnp.einsum("bii->bi", power), -1)
    return rotations.quaternion_to_matrix(power[jnp.arange(len(best)), best])


def _scaled(k: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
    """k with the largest entry 1, so that no power of it overflows; zero stays zero."""
    largest = jnp.max(jnp.abs(k), (-1, -2), keepdims=True)
    return k / jnp.where(largest > 0.0, largest, 1.0)


def _modelled(body: SmplModel, target: Array, x: _Point, spec: MeshFitSpec) -> _Model:
    """The quadratic model of E at x."""
    count = body.num_vertices
    prior = spec.noise**2 / count
    turns = np.where(np.array(body.parents) < 0, 0.0, prior / POSE**2)  # none for the root

    def total(x: _Point) -> tuple[Array, tuple]:
        output = smpl_jax.forward(body, x.betas, x.rotmats, x.translation)
        loss = jnp.sum((output.vertices - target) ** 2, (1, 2)) / count
        turned = jnp.sum((x.rotmats - jnp.eye(3)) ** 2, (-1, -2)) / 2
        loss = loss + turned @ turns + prior * jnp.sum(x.betas**2, -1)
        return jnp.sum(loss), (loss, output)

    # 1. The gradient of the sum of the independent rows consists of those of the rows.
    gradient, (loss, output) = jax.grad(total, has_aux=True)(x)
    turn = tangent(gradient.rotmats, x.rotmats).reshape(len(target), -1)
    gradient = jnp.concatenate([turn, gradient.betas, gradient.translation], -1)
    # 2. The curvature 2 J^T J, one coordinate of the vertices after the other. A small rotation by
    # a changes |R - 1|^2 / 2 by |a|^2.
    jacobian = body_jacobian(body, x.rotmats, output.joints)
    moving = jacobian.vertices(jnp.tile(jnp.arange(count), (len(target), 1)))
    diagonal = jnp.concatenate(
        [jnp.repeat(turns, 3), jnp.full(body.num_betas, prior), jnp.zeros(3)]
    )
    curvature = 2 * jnp.diag(diagonal)
    for axis in range(3):
        along = jnp.broadcast_to(jnp.eye(3)[axis], output.vertices.shape)
        rows = jnp.concatenate([jacobian.rows(along, output.vertices, moving), along], -1)
        curvature = curvature + 2 / count * _einsum("bni,bnj->bij", rows, rows)
    return _Model(loss, gradient, curvature)


def _moved(x: _Point, q: Float[Array, "B P"]) -> _Point:
    """x after a step: rotations R -> exp([a]x) R, the rest by addition."""
    batch, joints = x.rotmats.shape[:2]
    turn = rotations.axis_angle_to_matrix(q[:, : 3 * joints].reshape(batch, joints, 3))
    rotmats = rotations.compose(turn, x.rotmats)
    return _Point(rotmats, x.betas + q[:, 3 * joints : -3], x.translation + q[:, -3:])
