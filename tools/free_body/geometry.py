"""Small rotations and frames in NumPy, batched over leading axes."""

import numpy as np
from scipy.spatial.transform import Rotation

MIRROR = np.array([-1.0, 1.0, 1.0])  # left <-> right: x changes sign


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def skew(vector: np.ndarray) -> np.ndarray:
    """The matrix of the cross product with (..., 3)."""
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    return np.stack(
        [np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2
    )


def frame(along: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Orthonormal frame (..., 3, 3) with columns: along, normal made orthogonal to it, their cross
    product."""
    along = unit(along)
    normal = unit(normal - np.sum(normal * along, -1, keepdims=True) * along)
    return np.stack([along, normal, np.cross(along, normal)], -1)


def turn_onto(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes one direction to another."""
    source = unit(source)
    target = unit(np.broadcast_to(target, source.shape))
    k = skew(np.cross(source, target))
    return np.eye(3) + k + k @ k / (1 + np.sum(source * target, -1))[..., None, None]


def exponential(vector: np.ndarray) -> np.ndarray:
    """Axis-angle -> matrix."""
    return Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(*vector.shape[:-1], 3, 3)


def between(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The rotation a share of the way from start to end."""
    step = Rotation.from_matrix((end @ np.swapaxes(start, -1, -2)).reshape(-1, 3, 3)).as_rotvec()
    return exponential(share * step).reshape(start.shape) @ start


def apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", matrix, vector)


def symmetric(field: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of a field (..., V, 3) and its mirror image; mirror is each vertex's partner."""
    return 0.5 * (field + field[..., mirror, :] * MIRROR)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    normals = np.zeros_like(vertices)
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for corner in range(3):
        np.add.at(normals, faces[:, corner], weighted)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
