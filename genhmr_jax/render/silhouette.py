"""Silhouettes of meshes."""

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.render.rasterizer import rasterize


def silhouette(
    vertices: Float[np.ndarray, "V 3"] | Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    width: int,
    height: int,
) -> Bool[np.ndarray, "H W"]:
    """The pixels that one mesh, or any of several meshes, covers.

    Args:
      vertices: camera coordinates, metres.
      faces: vertex indices.
      focal: px.
      width, height: of the image, px.
    """
    mask = np.zeros((height, width), bool)
    for mesh in np.reshape(vertices, (-1, *np.shape(vertices)[-2:])):
        mask |= rasterize(mesh, faces, focal, width, height)[0] >= 0
    return mask
