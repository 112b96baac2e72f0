"""The picture that people look at: meshes over the photo, and the same people from the side."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from genhmr_jax.render.rasterizer import rasterize, vertex_normals

COLOURS = (
    np.array(
        [
            [94, 158, 224],
            [240, 150, 90],
            [120, 196, 120],
            [200, 120, 200],
            [230, 200, 90],
            [110, 200, 200],
            [220, 110, 120],
            [150, 150, 230],
        ]
    )
    / 255.0
)
LIGHT = np.array([-0.35, -0.6, -0.72])  # towards the light, in camera coordinates: above, left, and behind the camera
MAX_SIDE = 1600  # px of the longer side of the written picture
SAMPLES = 2  # per pixel and axis
GROUND = np.array([0.93, 0.94, 0.95])


def shade(
    vertices: Float[np.ndarray, "P V 3"], faces: Int[np.ndarray, "F 3"], focal: float, width: int, height: int, centre: tuple[float, float]
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Shaded meshes that hide each other: premultiplied colour (H, W, 3) in 0..1 and coverage (H, W), anti-aliased."""
    s = SAMPLES
    colour, nearest = np.zeros((height * s, width * s, 3), np.float32), np.full((height * s, width * s), np.inf, np.float32)
    for person, points in enumerate(np.asarray(vertices, np.float64)):
        face, depth, bary = rasterize(points, faces, focal * s, width * s, height * s, (centre[0] * s, centre[1] * s))
        front = (face >= 0) & (depth < nearest)
        corners = faces[face[front]]
        normal = np.einsum("nk,nkc->nc", bary[front], vertex_normals(points, faces)[corners])
        position = np.einsum("nk,nkc->nc", bary[front], points[corners])
        towards = -position / np.linalg.norm(position, axis=-1, keepdims=True)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        facing = np.sum(normal * towards, -1, keepdims=True)
        normal = np.where(facing < 0, -normal, normal)  # two-sided
        diffuse = np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)[:, None]
        rim = (1 - np.abs(facing)) ** 3
        colour[front] = np.clip(COLOURS[person % len(COLOURS)] * (0.38 + 0.67 * diffuse) + 0.08 * diffuse**20 - 0.15 * rim, 0, 1)
        nearest[front] = depth[front]
    cover = np.isfinite(nearest).astype(np.float32)
    average = lambda x: x.reshape(height, s, width, s, -1).mean((1, 3))  # noqa: E731
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
    """Meshes (camera coordinates, metres) over the photo. `focal` and `centre`, the principal point, in px (default: the middle)."""
    height, width = image.shape[:2]
    colour, cover = shade(vertices, faces, focal, width, height, centre or (width / 2, height / 2))
    mixed = image / 255.0 * (1 - opacity * cover[..., None]) + opacity * colour
    return (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)


def side_view(vertices: Float[np.ndarray, "P V 3"], faces: Int[np.ndarray, "F 3"], width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    """The people seen from the left of the photo (turned 90 degrees about the vertical), on plain ground, all in the picture.

    What is nearer to the camera lies further right.
    """
    if not len(vertices):
        return np.tile((GROUND * 255).astype(np.uint8), (height, width, 1))
    middle = np.median(np.reshape(vertices, (-1, 3)), axis=0)
    centred = np.asarray(vertices) - middle
    turned = np.stack([-centred[..., 2], centred[..., 1], centred[..., 0]], -1)
    radius = 1.08 * max(np.abs(turned[..., 0]).max() / width, np.abs(turned[..., 1]).max() / height) * 2
    distance = 40.0 * np.abs(turned).max()  # far away: next to no perspective
    focal = distance / max(radius, 1e-6)
    colour, cover = shade(turned + [0, 0, distance], faces, focal, width, height, (width / 2, height / 2))
    return (np.clip(GROUND * (1 - cover[..., None]) + colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def overlay_with_side(
    image: UInt8[np.ndarray, "H W 3"],
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    centre: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Photo | overlay | side view, in one picture of at most MAX_SIDE px. `focal` and `centre` as in `overlay`."""
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / (3 * width), MAX_SIDE / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.LANCZOS)) if scale < 1 else image
    shrunk = None if centre is None else (centre[0] * w / width, centre[1] * h / height)
    return np.concatenate([small, overlay(small, vertices, faces, focal * w / width, shrunk), side_view(vertices, faces, w, h)], 1)
