"""How deep the skin of one finger lies inside another, to check the capsules of the prior."""

import numpy as np
from jaxtyping import Float, Int

from genhmr_jax.geometry.hand import FINGERS


def skin_penetration(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    owner: Int[np.ndarray, "V"],
) -> float:
    """How deep a vertex of one finger lies inside another finger, metres.

    A vertex is inside if the skin of the other finger winds around it (Jacobson et al. 2013); its
    depth is the distance to the nearest vertex there. The vertices are those of the outer two bones
    of each finger: at the first bones the fingers are joined.

    Args:
      vertices: of the posed hand.
      faces: of the hand, counter-clockwise from outside.
      owner: index in HAND_JOINTS of the joint that moves each vertex most.
    """
    deepest = 0.0
    for other in FINGERS.values():
        skin = faces[np.all(np.isin(owner[faces], other), axis=1)]
        corners = vertices[skin]
        for finger in FINGERS.values():
            if finger == other:
                continue
            points = vertices[np.isin(owner, finger[1:])]
            low, high = corners.min((0, 1)), corners.max((0, 1))
            points = points[np.all((points > low) & (points < high), axis=1)]
            inside = points[_winding(points, corners) > 0.5]
            if len(inside):
                gaps = inside[:, None] - vertices[np.unique(skin)]
                deepest = max(deepest, float(np.linalg.norm(gaps, axis=-1).min(1).max()))
    return deepest


def _winding(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(N,) how often triangles (F, 3, 3) wind around each point: solid angles over 4 pi."""
    a, b, c = np.moveaxis(corners[None] - points[:, None, None], 2, 0)
    dot = lambda u, v: np.einsum("nfi,nfi->nf", u, v)
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    volume = dot(a, np.cross(b, c))
    below = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb
    return np.arctan2(volume, below).sum(1) / (2 * np.pi)
