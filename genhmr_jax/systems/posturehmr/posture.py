"""The forward process: meshes between the template and a person (PostureHMR, eq. 2-4).

State k of T has the share s = 1 - k / T of the person: k = 0 is the person and k = T the template.
With the pose theta (axis-angle), the shape beta, and the blend shapes B_S and B_P:

    theta_k = s theta
    R_k     = template + s (B_S(beta) + B_P(theta))     vertices before skinning
    J_k     = joints of template + s B_S(beta)          joints before skinning
    M_k     = LBS(R_k, J_k, theta_k)

The paper prints eq. 3 with the posed vertices in place of the unposed ones, and with the names of
pose and shape exchanged; this is the reading of the text. A pose that is scaled rotates each joint
about a fixed axis. The paper's pose has no root rotation. Here the root turns, about one axis too,
from the template as it stands upright before the camera (y of the body up, y of the camera down).
All meshes are relative to the pelvis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import lbs
from smpl_jax.rotations import axis_angle_to_matrix, matrix_to_axis_angle

from genhmr_jax.data.views import TO_CAMERA
from genhmr_jax.systems.posturehmr.spec import PostureSpec

NOISE = 0.3
"""Metres: standard deviation of the vertices at the start of the process "noise"."""


class Person(NamedTuple):
    """The bodies at which the process ends: rotations, the root's to the camera, and shapes."""

    rotmats: Float[Array, "*b 24 3 3"]
    betas: Float[Array, "*b 10"]


def posture(
    body: smpl_jax.SmplModel, person: Person, share: Float[Array, "*b"]
) -> Float[Array, "*b V 3"]:
    """Meshes of the kinematic process, relative to the pelvis.

    Args:
      body: whole or reduced.
      person: the target.
      share: s of each body; 0 is the template and 1 the person.
    """
    # 1. Rotations: each joint turns about the axis of its target rotation.
    start = jnp.broadcast_to(jnp.eye(3), person.rotmats.shape)
    start = start.at[..., 0, :, :].set(TO_CAMERA)
    turn = matrix_to_axis_angle(start.mT @ person.rotmats)
    rotmats = start @ axis_angle_to_matrix(share[..., None, None] * turn)
    # Near a half turn the way to an axis and back is exact to 5e-6 only.
    rotmats = jnp.where(share[..., None, None, None] == 1.0, person.rotmats, rotmats)
    # 2. The skeleton, whose bones follow the shape.
    betas = share[..., None] * person.betas
    shift = jnp.einsum(
        "...s,sjc->...jc", betas, body.joint_shapedirs, precision=jax.lax.Precision.HIGHEST
    )
    rest = body.joint_template + shift
    world, joints = lbs.pose_skeleton(body.parents, rest, rotmats)
    # 3. The mesh. Blend shapes are linear in their features.
    features = share[..., None] * lbs.pose_features(person.betas, person.rotmats)
    motions = lbs.rest_to_world(rest, world, joints)
    vertices = lbs.deform(body.template, body.blocks, features, motions)
    return vertices - joints[..., :1, :]


def template(body: smpl_jax.SmplModel) -> Float[Array, "V 3"]:
    """The template, upright before the camera, relative to the pelvis."""
    return (body.template.T - body.joint_template[0]) @ np.asarray(TO_CAMERA).T


def start(spec: PostureSpec, body: smpl_jax.SmplModel, keys: Array) -> Float[Array, "B V 3"]:
    """State T, from which the reverse process begins.

    Args:
      keys: (B,), for the process "noise".
    """
    if spec.process == "noise":
        draw = lambda key: NOISE * jax.random.normal(key, (body.num_vertices, 3))
        return jax.vmap(draw)(keys)
    return jnp.broadcast_to(template(body), (keys.shape[0], body.num_vertices, 3))


def state(
    spec: PostureSpec,
    body: smpl_jax.SmplModel,
    person: Person,
    first: Float[Array, "B V 3"],
    share: Float[Array, "B"],
) -> Float[Array, "B V 3"]:
    """States of a process.

    Args:
      spec: its kind.
      body: whole or reduced.
      person: the target.
      first: of `start`.
      share: s of each body.
    """
    if spec.process == "kinematic":
        return posture(body, person, share)
    target = posture(body, person, jnp.ones_like(share))
    return first + share[:, None, None] * (target - first)
