"""From the last coarse mesh to the parameters of a body and a camera."""

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core.mesh_fit import MeshFit, MeshFitSpec, fit_mesh
from genhmr_jax.geometry.camera import CropCamera

FIT = MeshFitSpec(steps=10, noise=0.02)
"""Of the network's meshes, whose vertices have an error of about 2 cm."""
NEAREST = 0.2
"""Metres: the smallest depth of a pelvis."""


def translation_of(
    mesh: Float[Array, "B V 3"], points: Float[Array, "B V 2"], view: CropCamera
) -> Float[Array, "B 3"]:
    """The translation with which a mesh projects to given points, in the least-squares sense.

    With the pixel (u, v) of the vertex (X, Y, Z), f (X + tx) = (u - cx) (Z + tz) is linear in the
    translation, and so is the equation of v.

    Args:
      mesh: metres, relative to the pelvis.
      points: of its vertices, crop coordinates.
      view: the camera.
    """
    # 1. (u - cx) / f of each vertex.
    half = view.crop[:, None, 2:] / 2
    slope = points * half + view.crop[:, None, :2] - view.centre[:, None]
    slope = slope / view.focal[:, None, None]
    # 2. t_xy - slope t_z = slope Z - XY. The mean over the vertices gives t_xy for any t_z.
    right = slope * mesh[..., 2:] - mesh[..., :2]
    mean = lambda x: jnp.mean(x, 1, keepdims=True)
    off, gap = slope - mean(slope), right - mean(right)
    depth = -jnp.sum(off * gap, (1, 2)) / jnp.maximum(jnp.sum(off**2, (1, 2)), 1e-9)
    depth = jnp.maximum(depth, NEAREST)
    across = jnp.mean(right, 1) + jnp.mean(slope, 1) * depth[:, None]
    return jnp.concatenate([across, depth[:, None]], -1)


def fitted(body: smpl_jax.SmplModel, mesh: Float[Array, "B V 3"]) -> MeshFit:
    """Pose and shape of coarse meshes; the gradient does not go through the fit."""
    return fit_mesh(body, jax.lax.stop_gradient(mesh), spec=FIT)
