"""The overlay picture: meshes over the photo, and the same people from the side."""

import math

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from genhmr_jax.io.compiled import compiled
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


@compiled
def _light(face, bary, points, normals, faces, people, light, colours, samples, colour, cover):
    """Shade the pixels of a picture that is rasterised with samples x samples points a pixel.

    face (h, w) and bary (h, w, 3) are of `rasterize`; normals (V, 3) belong to the points (V, 3).
    people (F,) is the index of each face's colour. colour (H, W, 3) and cover (H, W) start at 0.
    """
    height, width = cover.shape
    share = 1.0 / (samples * samples)
    normal, towards = np.empty(3), np.empty(3)
    for row in range(height * samples):
        for column in range(width * samples):
            index = face[row, column]
            if index < 0:
                continue
            # 1. Normal, and direction to the camera: both sides of a face are drawn.
            length, distance = 1e-18, 0.0
            for k in range(3):
                normal[k], towards[k] = 0.0, 0.0
                for corner in range(3):
                    weight, vertex = bary[row, column, corner], faces[index, corner]
                    normal[k] += weight * normals[vertex, k]
                    towards[k] -= weight * points[vertex, k]
                length += normal[k] ** 2
                distance += towards[k] ** 2
            facing, lit = 0.0, 0.0
            for k in range(3):
                facing += normal[k] * towards[k]
                lit += normal[k] * light[k]
            facing /= math.sqrt(length * distance)
            lit /= math.sqrt(length)
            # 2. Ambient and diffuse light, a highlight, and a darker rim.
            diffuse = min(max(-lit if facing < 0 else lit, 0.0), 1.0)
            more = 0.08 * diffuse**20 - 0.15 * (1.0 - abs(facing)) ** 3
            for k in range(3):
                value = colours[people[index], k] * (0.38 + 0.67 * diffuse) + more
                colour[row // samples, column // samples, k] += share * min(max(value, 0.0), 1.0)
            cover[row // samples, column // samples] += share


def shade(
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    width: int,
    height: int,
    centre: tuple[float, float],
    numbers: Int[np.ndarray, "P"] | None = None,
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Shade meshes, which occlude each other.

    `numbers` choose the colours of the people; None: 0, 1, 2, ...

    Returns:
      premultiplied colour (H, W, 3) in 0..1 and coverage (H, W), both anti-aliased.
    """
    # 1. All people as one mesh.
    people, count = np.shape(vertices)[:2]
    points = np.reshape(np.asarray(vertices, np.float64), (-1, 3))
    normals = [vertex_normals(person, faces) for person in points.reshape(people, count, 3)]
    every = (np.arange(people)[:, None, None] * count + faces).reshape(-1, 3)
    numbers = np.arange(people) if numbers is None else numbers
    owner = np.repeat(numbers % len(COLOURS), len(faces))
    # 2. Its pixels, and their colours.
    s = SAMPLES
    face, _, bary = rasterize(
        points, every, focal * s, width * s, height * s, (centre[0] * s, centre[1] * s)
    )
    colour, cover = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    normals = np.reshape(normals, (-1, 3)).astype(np.float64)
    light = LIGHT / np.linalg.norm(LIGHT)
    _light(face, bary, points, normals, every, owner, light, COLOURS, s, colour, cover)
    return colour, cover


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    centre: tuple[float, float] | None = None,
    *,
    opacity: float = 0.85,
    numbers: Int[np.ndarray, "P"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw meshes over the photo.

    Args:
      image: the photo.
      vertices: camera coordinates, metres.
      faces: vertex indices.
      focal: px.
      centre: principal point, px (default: the middle of the photo).
      opacity: of the meshes.
      numbers: of the people, which choose their colours; None: 0, 1, 2, ...
    """
    height, width = image.shape[:2]
    centre = centre or (width / 2, height / 2)
    colour, cover = shade(vertices, faces, focal, width, height, centre, numbers)
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


def panel(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The photo at the size at which three of it make a picture of at most MAX_SIDE px."""
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / (3 * width), MAX_SIDE / height)
    if scale == 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def side_by_side(
    small: UInt8[np.ndarray, "h w 3"],
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    centre: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h W 3"]:
    """Photo, overlay and side view in one picture; focal and centre in px of this size."""
    height, width = small.shape[:2]
    over = overlay(small, vertices, faces, focal, centre)
    return np.concatenate([small, over, side_view(vertices, faces, width, height)], 1)


def overlay_with_side(
    image: UInt8[np.ndarray, "H W 3"],
    vertices: Float[np.ndarray, "P V 3"],
    faces: Int[np.ndarray, "F 3"],
    focal: float,
    centre: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Photo, overlay and side view in one picture of at most MAX_SIDE px; see `overlay`."""
    small = panel(image)
    scale = np.array(small.shape[1::-1]) / image.shape[1::-1]
    centre = None if centre is None else tuple((centre * scale).tolist())
    return side_by_side(small, vertices, faces, focal * scale[0], centre)
