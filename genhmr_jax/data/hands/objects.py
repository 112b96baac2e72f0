"""What is around rendered hands: held objects, patches over the picture, and plain backgrounds."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from genhmr_jax.data.hands.looks import cloth, grid_faces
from genhmr_jax.data.synthetic.appearance import cloth_colour
from genhmr_jax.data.synthetic.backgrounds import room
from genhmr_jax.geometry.hand import HAND21
from genhmr_jax.render.rasterizer import vertex_normals

SKIN_DEPTH = 0.008  # metres from a finger's joints to its skin
_KNUCKLES = [HAND21.index(f"{name}_mcp") for name in ("index", "middle", "ring", "pinky")]
_BENT = [i for i, name in enumerate(HAND21) if i and not name.startswith("thumb")]


def held_object(
    keypoints: Float[np.ndarray, "21 3"], kind: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """An object that the fingers of a right hand are around.

    Its cross-section is a circle fitted to the finger joints, across the knuckles.

    Args:
      keypoints: of the hand, metres.
      kind: sphere, cylinder or box.
      seed: of its size and colours.

    Returns:
      vertices, faces, normals and colours of the object; None if the fingers are not around
      anything of 1 to 6 cm radius.
    """
    rng = np.random.default_rng(seed)
    knuckles = keypoints[_KNUCKLES]
    axis = knuckles[0] - knuckles[-1]
    axis /= np.linalg.norm(axis)
    outwards = knuckles.mean(0) - keypoints[0]
    first = outwards - axis * (outwards @ axis)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    plane = (keypoints[_BENT] - knuckles.mean(0)) @ np.stack([first, second], -1)
    # The circle |p - c|^2 = r^2 as a linear problem.
    left = np.concatenate([2 * plane, np.ones((len(plane), 1))], -1)
    x, y, rest = np.linalg.lstsq(left, np.sum(plane**2, -1), rcond=None)[0]
    radius = np.sqrt(max(rest + x * x + y * y, 0.0)) - SKIN_DEPTH
    if not 0.01 < radius < 0.06:
        return None
    centre = knuckles.mean(0) + x * first + y * second
    long = {"sphere": radius, "cylinder": rng.uniform(0.04, 0.15), "box": rng.uniform(0.03, 0.12)}
    wide = radius * (0.85 if kind == "box" else 1.0)
    # A superquadric: 1 is round, small exponents have edges.
    north, east = {"sphere": (1.0, 1.0), "cylinder": (0.15, 1.0), "box": (0.15, 0.2)}[kind]
    v, u = np.meshgrid(np.linspace(-1.57, 1.57, 16), np.arange(32) * np.pi / 16, indexing="ij")
    power = lambda value, exponent: np.sign(value) * np.abs(value) ** exponent
    shape = np.stack(
        [
            wide * power(np.cos(v), north) * power(np.cos(u), east),
            wide * power(np.cos(v), north) * power(np.sin(u), east),
            long[kind] * power(np.sin(v), north),
        ],
        -1,
    ).reshape(-1, 3)
    shift = rng.uniform(-0.3, 0.3) * long[kind] if kind != "sphere" else 0.0
    points = centre + shape @ np.stack([first, second, axis]) + shift * axis
    faces = grid_faces(16, 32)
    colours = cloth(shape, np.stack([cloth_colour(rng), cloth_colour(rng)]), rng)
    return points, faces, vertex_normals(points, faces), colours


def draw_patches(picture: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> None:
    """Draw one to three rectangles or ellipses over a picture in 0..1, in place.

    Args:
      picture: (S, S, 3).
      cover: (S, S) share of the hand in each pixel; 0 under a patch.
      rng: draws them.
    """
    size = len(cover)
    y, x = np.mgrid[:size, :size] + 0.5
    for _ in range(rng.integers(1, 4)):
        half, centre = rng.uniform(0.03, 0.15, 2) * size, rng.uniform(0.1, 0.9, 2) * size
        angle = rng.uniform(0, np.pi)
        across = ((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)) / half[0]
        along = ((y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)) / half[1]
        round_ = rng.random() < 0.5
        inside = across**2 + along**2 < 1 if round_ else np.maximum(abs(across), abs(along)) < 1
        moved = np.roll(picture, rng.integers(0, size, 2), (0, 1))
        surface = moved if rng.random() < 0.4 else np.broadcast_to(cloth_colour(rng), moved.shape)
        picture[inside] = np.clip(surface, 0, 1)[inside]
        cover[inside] = 0.0


def scenery(rng: np.random.Generator, size: int) -> Float[np.ndarray, "S S 3"]:
    """A background without photos: a smooth mixture of colours, or a room."""
    if rng.random() < 0.4:
        return room(rng, size)
    cells = int(rng.integers(2, 6))
    colours = rng.uniform(0.05, 0.95) + rng.normal(0, rng.uniform(0.02, 0.25), (cells, cells, 3))
    coarse = Image.fromarray((np.clip(colours, 0, 1) * 255).astype(np.uint8))
    smooth = coarse.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / 255.0
