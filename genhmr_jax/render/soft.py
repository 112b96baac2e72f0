"""Differentiable silhouettes of planar meshes, and a loss that compares them with masks.

Points are in crop coordinates: the crop is [-1, 1]^2, x right, y down. Pixel j of n is at
(2 j + 1) / n - 1, its centre.

`soft_silhouette` is that of SoftRasterizer (Liu et al., "Soft Rasterizer", ICCV 2019): a triangle t
covers a pixel at the distance d from its boundary with the probability

    p_t = sigmoid(+-d^2 / sigma),    + inside, - outside,

and the mesh covers it with 1 - prod_t (1 - p_t) = 1 - exp(-sum_t softplus(+-d^2 / sigma)).

A triangle changes only pixels close to it. So each is drawn into a window of the image, and the
windows are summed; the smallest of a few sizes is used that holds every triangle. Chunks of
triangles follow each other, and the backward pass computes them again, which bounds the memory.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

SIGMA = 1e-4  # with which the authors of SoftRasterizer train at 64 x 64
BAND = 4  # px of the trimap at 64 x 64, on both sides of the edge
EPSILON = 1e-6  # of an intersection over union
_WINDOWS = (16, 32)  # px: sides that are tried before the whole image
_NEGLIGIBLE = 20.0  # d^2 / sigma from which a triangle is not drawn: p_t is below 3e-9
_WORK = 1 << 16  # pixels of windows that are computed together
_AWAY = 1e3  # coordinates of the triangles that fill the last chunk

Plane = tuple[Array, Array]  # x and y of one corner of each triangle


def soft_silhouette(
    points: Float[Array, "B C 2"],
    faces: Int[Array, "F 3"],
    size: int = 64,
    sigma: float = SIGMA,
) -> Float[Array, "B size size"]:
    """The probability 0..1 that the mesh covers each pixel; differentiable by the points.

    Args:
      points: crop coordinates. A row that is not finite becomes NaN.
      faces: point indices, in either orientation; a triangle without area is a line.
      size: px, of the side of the image.
      sigma: squared crop coordinates: the softness of the edge.
    """

    def uncovered(corners: Sequence[Plane], x: Array, y: Array) -> Array:
        squared, inside = distance(corners, x, y)
        return jax.nn.softplus(jnp.where(inside, squared, -squared) / sigma)

    total = _summed(uncovered, points, faces, size, reach=(_NEGLIGIBLE * sigma) ** 0.5)
    return -jnp.expm1(-total)


def hard_silhouette(
    points: Float[Array, "B C 2"], faces: Int[Array, "F 3"], size: int = 64
) -> Float[Array, "B size size"]:
    """1 where the centre of a pixel is in any triangle, else 0. It has no gradient."""

    def covered(corners: Sequence[Plane], x: Array, y: Array) -> Array:
        return inside_of(corners, x, y).astype(points.dtype)

    total = _summed(covered, jax.lax.stop_gradient(points), faces, size, reach=0.0)
    return (total > 0).astype(points.dtype)


def trimap_band(mask: Float[Array, "B H W"], width: int = BAND) -> Float[Array, "B H W"]:
    """1 at the pixels within `width` px of the edge of a mask (0/1), else 0.

    It is the dilated mask without the eroded one, both by max-pooling. The border of the image is
    no edge.
    """
    shape = (1, 2 * width + 1, 2 * width + 1)
    pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, shape, (1, 1, 1), "SAME")
    return pool(mask) + pool(-mask)


def trimap_loss(
    predicted: Float[Array, "B H W"], mask: Float[Array, "B H W"], band: Float[Array, "B H W"]
) -> Float[Array, "B"]:
    """2 - IoU(P, G) - IoU(P, G in the band): the trimap loss of PostureHMR.

    "PostureHMR: Posture Transformation for 3D Human Mesh Recovery", CVPR 2024. IoU is the soft
    sum PG / sum (P + G - PG). An empty union counts as equality.

    Args:
      predicted: P, soft, 0..1.
      mask: G, the true mask, 0 or 1.
      band: 0 or 1, of `trimap_band`.
    """

    def overlap(weight: Array | float) -> Float[Array, "B"]:
        both = predicted * mask
        shared = jnp.sum(weight * both, (1, 2))
        union = jnp.sum(weight * (predicted + mask - both), (1, 2))
        return (shared + EPSILON) / (union + EPSILON)

    return 2.0 - overlap(1.0) - overlap(band)


def inside_of(corners: Sequence[Plane], x: Array, y: Array) -> Bool[Array, "*pixels"]:
    """Whether pixels are in a triangle or on its boundary; never if it has no area."""
    (x0, y0), (x1, y1), (x2, y2) = corners
    side = jnp.sign((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
    inside = side != 0
    for (ax, ay), (bx, by) in _edges(corners):
        inside &= side * ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) >= 0
    return inside


def distance(
    corners: Sequence[Plane], x: Array, y: Array
) -> tuple[Float[Array, "*pixels"], Bool[Array, "*pixels"]]:
    """The squared distance of pixels from the boundary of a triangle, and whether they are inside.

    The nearest point of an edge is a + t (b - a). The distance does not change with t there, or t
    is at an end, so t needs no gradient.
    """
    squared = None
    for (ax, ay), (bx, by) in _edges(corners):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        length = ex * ex + ey * ey
        inverse = 1.0 / jnp.where(length > 0, length, 1.0)
        t = jax.lax.stop_gradient(jnp.clip((px * ex + py * ey) * inverse, 0.0, 1.0))
        gap = (px - t * ex) ** 2 + (py - t * ey) ** 2
        squared = gap if squared is None else jnp.minimum(squared, gap)
    return squared, inside_of(jax.lax.stop_gradient(corners), x, y)


def _edges(corners: Sequence[Plane]) -> list[tuple[Plane, Plane]]:
    a, b, c = corners
    return [(a, b), (b, c), (c, a)]


def _summed(
    value: Callable[[Sequence[Plane], Array, Array], Array],
    points: Float[Array, "B C 2"],
    faces: Int[Array, "F 3"],
    size: int,
    reach: float,
) -> Float[Array, "B size size"]:
    """The sum over all triangles of a value at each pixel.

    Args:
      value: the corners of triangles and x and y of pixels, which broadcast -> the value.
      points, faces, size: as for `soft_silhouette`.
      reach: crop coordinates; the value is 0 at a larger distance from the triangle.
    """
    corner = points[:, jnp.asarray(faces)]
    # 1. The first and the last pixel that a triangle reaches, within the image.
    fixed = jax.lax.stop_gradient(corner)
    pixel = lambda at: jnp.clip((at + 1) * size / 2 - 0.5, 0, size - 1)
    first, last = jnp.floor(pixel(fixed.min(2) - reach)), jnp.ceil(pixel(fixed.max(2) + reach))
    extent = jnp.max(last - first, initial=0.0) + 1
    # 2. The smallest window that holds all triangles; the whole image if a point is NaN.
    windows = [window for window in _WINDOWS if window < size]
    draw = [_windowed(value, size, window) for window in (*windows, size)]
    chosen = sum((~(extent <= window)).astype(jnp.int32) for window in windows)
    return jax.lax.switch(chosen, draw, corner, first) if windows else draw[0](corner, first)


def _windowed(
    value: Callable[[Sequence[Plane], Array, Array], Array], size: int, window: int
) -> Callable[[Array, Array], Array]:
    """A function that draws triangles (B, F, 3, 2) from their first pixels (B, F, 2) on."""
    # An update adds one window to one image, at (image, row, column).
    layout = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2),
        inserted_window_dims=(0,),
        scatter_dims_to_operand_dims=(0, 1, 2),
    )
    offset, whole = np.arange(window), window == size

    def draw(corner: Array, first: Array) -> Array:
        batch, count = corner.shape[:2]
        together = max(1, min(count, _WORK // (batch * window**2)))
        fill = ((0, 0), (0, -count % together))
        start = jnp.zeros_like(first) if whole else jnp.minimum(first, size - window)
        corner = jnp.pad(corner, (*fill, (0, 0), (0, 0)), constant_values=_AWAY)
        start = jnp.pad(start, (*fill, (0, 0))).astype(jnp.int32)
        chunked = lambda x: jnp.moveaxis(x.reshape(batch, -1, together, *x.shape[2:]), 1, 0)
        image = jnp.tile(jnp.arange(batch)[:, None, None], (1, together, 1))

        @jax.checkpoint
        def add(total: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
            corner, start = chunk
            # x and y apart: XLA's loop over slices of one array takes four times as long on a CPU.
            centre = lambda i: (2 * (start[..., i, None] + offset) + 1).astype(corner.dtype) / size
            x, y = centre(0)[:, :, None, :] - 1, centre(1)[:, :, :, None] - 1
            plane = lambda i: (corner[:, :, i, 0, None, None], corner[:, :, i, 1, None, None])
            found = value([plane(0), plane(1), plane(2)], x, y)
            if whole:
                return total + jnp.sum(found, 1), None
            at = jnp.concatenate([image, start[..., ::-1]], -1).reshape(-1, 3)
            found = found.reshape(-1, window, window)
            total = jax.lax.scatter_add(total, at, found, layout, mode="promise_in_bounds")
            return total, None

        empty = jnp.zeros((batch, size, size), corner.dtype)
        return jax.lax.scan(add, empty, (chunked(corner), chunked(start)))[0]

    return draw
