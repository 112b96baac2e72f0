"""The losses of both stages (PostureHMR, §3.4; VirtualMarker, lib/core/loss.py). Lengths are in mm.

Every function returns one value for each row; the tasks weigh and add them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genhmr_jax.core.losses import row_mean
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate

MM = 1000.0
EPS = 1e-8


def mesh_terms(
    displacement: Float[Array, "B V 3"],
    current: Float[Array, "B V 3"],
    target: Float[Array, "B V 3"],
    faces: Int[Array, "F 3"],
    regressor: Float[Array, "24 V"],
) -> dict[str, Float[Array, "B"]]:
    """The terms of a step of the reverse process.

    Args:
      displacement: predicted, metres.
      current: the mesh before the step.
      target: the mesh after it.
      faces, regressor: of the coarse body.
    """
    reached = current + displacement
    gap = MM * (reached - target)
    return {
        "posture": jnp.mean(jnp.sum(gap**2, -1), -1),
        "vertices": row_mean(jnp.abs(gap)),
        "joints": row_mean(jnp.abs(regressor @ gap)),
        "normals": normal_term(reached, target, faces),
        "edges": MM * edge_term(reached, target, faces),
    }


def _edges(vertices: Float[Array, "B V 3"], faces: Int[Array, "F 3"]) -> Float[Array, "3 B F 3"]:
    """The edges 0 to 1, 0 to 2 and 1 to 2 of every face."""
    a, b, c = (vertices[:, faces[:, corner]] for corner in range(3))
    return jnp.stack([b - a, c - a, c - b])


def _unit(x: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """x over its length; finite for a vector of length 0, and so is the gradient."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + EPS**2)


def normal_term(
    reached: Float[Array, "B V 3"], target: Float[Array, "B V 3"], faces: Int[Array, "F 3"]
) -> Float[Array, "B"]:
    """Mean |cosine| between each edge and the true normal of its face: 0 for the same surface."""
    true = _edges(target, faces)
    normal = _unit(jnp.cross(_unit(true[0]), _unit(true[1])))
    cosine = jnp.sum(_unit(_edges(reached, faces)) * normal, -1)
    return jnp.mean(jnp.abs(cosine), (0, 2))


def edge_term(
    reached: Float[Array, "B V 3"], target: Float[Array, "B V 3"], faces: Int[Array, "F 3"]
) -> Float[Array, "B"]:
    """Mean difference of the lengths of the edges, metres."""
    length = lambda vertices: jnp.sqrt(jnp.sum(_edges(vertices, faces) ** 2, -1) + EPS**2)
    return jnp.mean(jnp.abs(length(reached) - length(target)), (0, 2))


def mesh2d_terms(
    estimate: Mesh2dEstimate, points: Float[Array, "B P 2"], vertices: Float[Array, "B C 2"]
) -> dict[str, Float[Array, "B"]]:
    """The terms of the first stage but that of the silhouette, in half sides of the crop.

    "points" and "mesh" are L1 distances. "confidence" is the negative log-likelihood of the
    distance of a point under a Laplace distribution of the predicted spread; its gradient only
    reaches the spread.
    """
    gap = jnp.abs(estimate.points - points)
    distance = jax.lax.stop_gradient(jnp.sum(gap, -1))
    likelihood = distance * jnp.exp(-estimate.spread) + estimate.spread
    return {
        "points": row_mean(gap),
        "mesh": row_mean(jnp.abs(estimate.vertices - vertices)),
        "confidence": jnp.mean(likelihood, -1),
    }
