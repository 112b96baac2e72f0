"""Silhouettes of meshes and how well two masks agree."""

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


def mask_iou(a: Bool[np.ndarray, "H W"], b: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union; 0 when both are empty. Raises ValueError when the sizes differ."""
    if a.shape != b.shape:
        raise ValueError(f"masks of {a.shape} and {b.shape} cannot be compared: give masks of one size")
    return float(np.sum(a & b) / max(np.sum(a | b), 1))
