"""The z-buffer of rasterizer.py in JAX, for machines whose accelerator is faster than their cores.

Each triangle covers pixels of a window around it. The smallest depth of each pixel is found by a
scatter-min, and its face by another one. There are two differences from rasterizer.py: it computes
in float32, so that a pixel whose centre is on an edge may belong to the other triangle; and
triangles that reach behind the near plane are left out, not clipped.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

WORK = 1 << 22  # window pixels that are processed together, which limits the memory
CHUNK = 1024  # triangles that are processed together, at most


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
    """`rasterizer.rasterize` on JAX's default device: the visible face of each pixel."""
    centre = np.asarray(centre if centre is not None else (width / 2.0, height / 2.0), np.float32)
    points = np.asarray(points, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        corners = (points[:, :2] / points[:, 2:] * focal + centre)[faces]
    drawn = (points[faces, 2] > near).all(-1) & np.isfinite(corners).all((1, 2))
    extent = np.ptp(corners[drawn], axis=1) if drawn.any() else np.zeros((1, 2))
    # Powers of two give few shapes and few compilations. A window is not larger than the image.
    needed = min(int(np.ceil(extent.max())) + 2, max(width, height))
    window = 1 << max(needed - 1, 1).bit_length()
    together = max(1, min(WORK // window**2, CHUNK, len(faces)))
    camera = (jnp.float32(focal), centre, jnp.float32(near))
    static = (width, height, window, together)
    found = _rasterize(points, np.asarray(faces, np.int32), *camera, *static)
    return tuple(np.asarray(x) for x in jax.device_get(found))


@functools.partial(jax.jit, static_argnames=("width", "height", "window", "together"))
def _rasterize(
    points: Float[Array, "V 3"],
    faces: Int[Array, "F 3"],
    focal: Array,
    centre: Array,
    near: Array,
    width: int,
    height: int,
    window: int,
    together: int,
) -> tuple[Int[Array, "H W"], Float[Array, "H W"], Float[Array, "H W 3"]]:
    """Rasterise in chunks of `together` triangles, each with a window of `window`^2 pixels."""
    # 1. Chunks of triangles. Padded triangles are at z = 0, behind the near plane.
    count = faces.shape[0]
    padding = -count % together
    corner = jnp.pad(points[faces], ((0, padding), (0, 0), (0, 0)))
    numbers = jnp.arange(count + padding, dtype=jnp.int32)
    chunks = corner.reshape(-1, together, 3, 3), numbers.reshape(-1, together)
    pixels = width * height

    def covered(corner: Float[Array, "C 3 3"]) -> tuple[Array, Array]:
        """Index and depth of each triangle at each pixel of its window.

        The index is `pixels`, beyond all, where the triangle does not cover the pixel.
        """
        z = corner[..., 2]
        flat = corner[..., :2] / jnp.where(z > near, z, 1.0)[..., None] * focal + centre
        start = jnp.clip(jnp.floor(flat.min(1) - 0.5), 0, jnp.array([width, height]))
        start = start.astype(jnp.int32)
        offset = jnp.arange(window)
        col = start[:, 0, None, None] + offset[None, None, :]
        row = start[:, 1, None, None] + offset[None, :, None]
        weight = _weights(flat, col + 0.5, row + 0.5)
        depth = 1.0 / jnp.einsum("kcij,ck->cij", weight, 1.0 / jnp.where(z > near, z, 1.0))
        inside = (weight >= 0).all(0) & (col < width) & (row < height)
        inside &= (z > near).all(1)[:, None, None]
        return jnp.where(inside, row * width + col, pixels), depth

    # 2. The smallest depth of each pixel.
    def nearest(depth: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
        at, z = covered(chunk[0])
        return depth.at[at].min(z, mode="drop"), None

    depth, _ = jax.lax.scan(nearest, jnp.full(pixels, jnp.inf), chunks)

    # 3. The first face that has this depth.
    def first(face: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
        at, z = covered(chunk[0])
        mine = jnp.where(z <= depth.at[at].get(mode="fill", fill_value=-1.0), at, pixels)
        number = jnp.broadcast_to(chunk[1][:, None, None], mine.shape)
        return face.at[mine].min(number, mode="drop"), None

    no_face = jnp.iinfo(jnp.int32).max
    face, _ = jax.lax.scan(first, jnp.full(pixels, no_face), chunks)

    # 4. The barycentric coordinates of each pixel in its face.
    drawn = face < no_face
    mine = points[faces[jnp.where(drawn, face, 0)]]
    flat = mine[..., :2] / mine[..., 2:] * focal + centre
    index = jnp.arange(pixels)
    x, y = (index % width + 0.5)[:, None, None], (index // width + 0.5)[:, None, None]
    weight = _weights(flat, x, y)[:, :, 0, 0].T
    bary = weight / mine[..., 2]
    bary = jnp.where(drawn[:, None], bary / jnp.sum(bary, -1, keepdims=True), 0.0)
    return (
        jnp.where(drawn, face, -1).reshape(height, width),
        depth.reshape(height, width),
        bary.reshape(height, width, 3),
    )


def _weights(corner: Float[Array, "C 3 2"], x: Array, y: Array) -> Float[Array, "3 C I J"]:
    """Barycentric coordinates in the image of the pixels x, y; NaN in a degenerate triangle.

    x and y have the shape (C, I, J) after broadcasting.
    """
    (x0, y0), (x1, y1), (x2, y2) = [
        (corner[:, i, 0, None, None], corner[:, i, 1, None, None]) for i in range(3)
    ]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    area = jnp.where(jnp.abs(area) < 1e-12, jnp.nan, area)  # comparisons with NaN are false
    first = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
    second = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
    return jnp.stack([first, second, 1.0 - first - second])
