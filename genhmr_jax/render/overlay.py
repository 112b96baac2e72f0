"""The overlay picture: meshes over the photo, and the same people from the side."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from genhmr_jax.render.rasterizer import rasterize, vertex_normals

COLOURS = np.array([
    [94, 158, 224], [240, 150, 90], [120, 196, 120], [200, 120, 200],
    [230, 200, 90], [110, 200, 200], [220, 110, 120], [150, 150, 230],
]) / 255.0  # fmt: skip
# Direction to the light in camera coordinates: above, left, and behind the camera.
LIGHT = np.array([-0.35, -0.6, -0.72])
MAX_SIDE = 1600  # px of the longer side of the written picture
SAMPLES = 2  # per pixel and axis
BACKGROUND = np.array([0.93, 0.94, 0.95])  # colour of the side view's background


def shade(
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    width: int,
    height: int,
    centre: tuple[float, float],
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Shade meshes, which occlude each other.

    Returns:
      premultiplied colour (H, W, 3) in 0..1 and coverage (H, W), both anti-aliased.
    """
    s = SAMPLES
    colour = np.zeros((height * s, width * s, 3), np.float32)
    nearest = np.full((height * s, width * s), np.inf, np.float32)
    for person, points in enumerate(np.asarray(vertices, np.float64)):
        # 1. The pixels in which this mesh is in front of the others.
        face, depth, bary = rasterize(
            points, faces, focal * s, width * s, height * s, (centre[0] * s, centre[1] * s)
        )
        front = (face >= 0) & (depth < nearest)
        # 2. Their normals, towards the camera: both sides of a face are drawn.
        corners = faces[face[front]]
        normal = np.einsum("nk,nkc->nc", bary[front], vertex_normals(points, faces)[corners])
        position = np.einsum("nk,nkc->nc", bary[front], points[corners])
        towards = -position / np.linalg.norm(position, axis=-1, keepdims=True)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        facing = np.sum(normal * towards, -1, keepdims=True)
        normal = np.where(facing < 0, -normal, normal)
        # 3. Their colours: ambient and diffuse light, a highlight, and a darker rim.
        diffuse = np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)[:, None]
        rim = (1 - np.abs(facing)) ** 3
        base = COLOURS[person % len(COLOURS)] * (0.38 + 0.67 * diffuse)
        colour[front] = np.clip(base + 0.08 * diffuse**20 - 0.15 * rim, 0, 1)
        nearest[front] = depth[front]
    cover = np.isfinite(nearest).astype(np.float32)
    average = lambda x: x.reshape(height, s, width, s, -1).mean((1, 3))
    return average(colour * cover[..., None]), average(cover)[..., 0]


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    centre: tuple[float, float] | None = None,
    *,
    opacity: float = 0.85,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw meshes over the photo.

    Args:
      image: the photo.
      vertices: camera coordinates, metres.
      faces: vertex indices.
      focal: px.
      centre: principal point, px (default: the middle of the photo).
      opacity: of the meshes.
    """
    height, width = image.shape[:2]
    colour, cover = shade(vertices, faces, focal, width, height, centre or (width / 2, height / 2))
    mixed = image / 255.0 * (1 - opacity * cover[..., None]) + opacity * colour
    return (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)


def side_view(
    vertices: Float[np.ndarray, "P V 3"], faces: Int[np.ndarray, "F 3"], width: int, height: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw all people from the left of the photo, on a plain background.

    They are rotated by 90 degrees about the vertical: points closer to the camera of the photo are
    further right.
    """
    if not len(vertices):
        return np.tile((BACKGROUND * 255).astype(np.uint8), (height, width, 1))
    middle = np.median(np.reshape(vertices, (-1, 3)), axis=0)
    centred = np.asarray(vertices) - middle
    rotated = np.stack([-centred[..., 2], centred[..., 1], centred[..., 0]], -1)
    extent = np.abs(rotated).max((0, 1))
    radius = 1.08 * max(extent[0] / width, extent[1] / height) * 2
    distance = 40.0 * extent.max()  # large: almost no perspective
    focal = distance / max(radius, 1e-6)
    colour, cover = shade(
        rotated + [0, 0, distance], faces, focal, width, height, (width / 2, height / 2)
    )
    mixed = BACKGROUND * (1 - cover[..., None]) + colour
    return (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)


def overlay_with_side(
    image: UInt8[np.ndarray, "H W 3"],
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    centre: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Photo, overlay and side view in one picture of at most MAX_SIDE px; see `overlay`."""
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / (3 * width), MAX_SIDE / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    small = image
    if scale < 1:
        small = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.LANCZOS))
    centre = None if centre is None else (centre[0] * w / width, centre[1] * h / height)
    over = overlay(small, vertices, faces, focal * w / width, centre)
    return np.concatenate([small, over, side_view(vertices, faces, w, h)], 1)
