"""Silhouettes of meshes."""

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.render.rasterizer import rasterize


def silhouette(
    vertices: Float[np.ndarray, "V 3"] | Float[np.ndarray, "P V 3"], faces: Int[np.ndarray, "F 3"], focal: float, width: int, height: int
) -> Bool[np.ndarray, "H W"]:
    """Pixels that one mesh, or any of several, covers. Camera coordinates in metres, focal length in px."""
    mask = np.zeros((height, width), bool)
    for mesh in np.reshape(vertices, (-1, *np.shape(vertices)[-2:])):
        mask |= rasterize(mesh, faces, focal, width, height)[0] >= 0
    return mask
