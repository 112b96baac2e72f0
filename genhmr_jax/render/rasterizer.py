"""A z-buffer triangle rasteriser in numba: it needs no GL, no display and no system package.

Triangles that cross the near plane are clipped, not dropped. Barycentric coordinates are
perspective-correct and refer to the original triangle, also where it was clipped.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from genhmr_jax.io.compiled import compiled


@compiled
def _clip(a, b, near):
    """Weight of b at which the edge a -> b meets z = near."""
    return (near - a) / (b - a)


@compiled
def _fill(face, corner, weight, focal, cx, cy, face_id, depth, bary):
    """Draw one triangle that is entirely in front of the near plane.

    corner (3, 3): camera coordinates, metres. weight (3, 3): the corners' barycentric coordinates.
    """
    height, width = face_id.shape
    x = np.empty(3)
    y = np.empty(3)
    for i in range(3):
        x[i] = focal * corner[i, 0] / corner[i, 2] + cx
        y[i] = focal * corner[i, 1] / corner[i, 2] + cy
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    if not abs(area) >= 1e-12:  # degenerate, or not a number
        return
    # Clipped as floats: the projection of a corner close to the camera may exceed an integer.
    x0 = int(math.floor(min(max(min(x[0], x[1], x[2]) - 0.5, 0.0), width)))
    x1 = int(math.ceil(max(min(max(x[0], x[1], x[2]) + 0.5, width), 0.0)))
    y0 = int(math.floor(min(max(min(y[0], y[1], y[2]) - 0.5, 0.0), height)))
    y1 = int(math.ceil(max(min(max(y[0], y[1], y[2]) + 0.5, height), 0.0)))
    for row in range(y0, y1):
        py = row + 0.5
        for col in range(x0, x1):
            px = col + 0.5
            w0 = ((x[1] - px) * (y[2] - py) - (x[2] - px) * (y[1] - py)) / area
            w1 = ((x[2] - px) * (y[0] - py) - (x[0] - px) * (y[2] - py)) / area
            w2 = 1.0 - w0 - w1
            if w0 < 0.0 or w1 < 0.0 or w2 < 0.0:
                continue
            inverse = w0 / corner[0, 2] + w1 / corner[1, 2] + w2 / corner[2, 2]
            z = 1.0 / inverse
            if z < depth[row, col]:
                depth[row, col] = z
                face_id[row, col] = face
                a, b, c = w0 / corner[0, 2] * z, w1 / corner[1, 2] * z, w2 / corner[2, 2] * z
                for k in range(3):
                    bary[row, col, k] = a * weight[0, k] + b * weight[1, k] + c * weight[2, k]


@compiled
def _draw(points, faces, focal, cx, cy, near, face_id, depth, bary):
    """Draw all triangles into face_id, depth and bary, clipped at the near plane."""
    corner = np.empty((3, 3))
    polygon = np.empty((4, 3))
    weights = np.empty((4, 3))
    part = np.empty((3, 3))
    part_weight = np.empty((3, 3))
    identity = np.eye(3)
    for face in range(faces.shape[0]):
        behind = 0
        for i in range(3):
            for k in range(3):
                corner[i, k] = points[faces[face, i], k]
            if not corner[i, 2] > near:
                behind += 1
        if behind == 3:
            continue
        if behind == 0:
            _fill(face, corner, identity, focal, cx, cy, face_id, depth, bary)
            continue
        # The polygon of three or four corners in front of z = near (Sutherland-Hodgman).
        count = 0
        for i in range(3):
            j = (i + 1) % 3
            if corner[i, 2] > near:
                polygon[count] = corner[i]
                weights[count] = identity[i]
                count += 1
            if (corner[i, 2] > near) != (corner[j, 2] > near):
                t = _clip(corner[i, 2], corner[j, 2], near)
                polygon[count] = corner[i] + t * (corner[j] - corner[i])
                weights[count] = identity[i] + t * (identity[j] - identity[i])
                count += 1
        for i in range(1, count - 1):
            part[0], part[1], part[2] = polygon[0], polygon[i], polygon[i + 1]
            part_weight[0], part_weight[1], part_weight[2] = weights[0], weights[i], weights[i + 1]
            _fill(face, part, part_weight, focal, cx, cy, face_id, depth, bary)


def rasterize(
    points: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    width: int,
    height: int,
    centre: tuple[float, float] | None = None,
    *,
    near: float = 0.05,
) -> tuple[Int[np.ndarray, "H W"], Float[np.ndarray, "H W"], Float[np.ndarray, "H W 3"]]:
    """Find the visible face of each pixel.

    Args:
      points: camera coordinates, metres (x right, y down, z forward).
      faces: vertex indices; both sides are drawn.
      focal: px.
      width, height: of the image, px.
      centre: principal point in px; default the middle of the image.
      near: metres; closer parts are clipped.

    Returns:
      face_id (H, W) int32, -1 without a face; depth (H, W) metres, inf without a face;
      perspective-correct barycentric coordinates (H, W, 3).
    """
    cx, cy = centre if centre is not None else (width / 2.0, height / 2.0)
    face_id = np.full((height, width), -1, np.int32)
    depth = np.full((height, width), np.inf, np.float32)
    bary = np.zeros((height, width, 3), np.float32)
    points, faces = np.ascontiguousarray(points, np.float64), np.ascontiguousarray(faces, np.int64)
    _draw(points, faces, float(focal), float(cx), float(cy), near, face_id, depth, bary)
    return face_id, depth, bary


def vertex_normals(
    points: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 3"]:
    """Area-weighted unit normals, outward if faces are counter-clockwise from outside."""
    corners = points[faces]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = lambda k: np.bincount(faces.ravel(), np.repeat(face[:, k], 3), len(points))
    normals = np.stack([total(k) for k in range(3)], -1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
