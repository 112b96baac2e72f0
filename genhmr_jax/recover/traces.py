"""Pictures of the steps of sampling: one row for each person, one column for each step."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from genhmr_jax.geometry.camera import NEAR
from genhmr_jax.recover.people import People
from genhmr_jax.render.overlay import overlay

SIDE = 200  # px of a cell
GAP = 4  # px between cells
COLUMNS = 11  # at most, the photo apart
MARGIN = 1.3  # side of a cell over the longer side of the person


def draw(
    panel: UInt8[np.ndarray, "h w 3"], people: People, meshes: Float[np.ndarray, "P T V 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The photo around each person, then the mesh over it after each step.

    Of many steps those that are shown are spread evenly; the last one always is.

    Args:
      panel: the photo, of any size.
      people: those of the photo.
      meshes: of Recoverer.trace.
    """
    scale = panel.shape[1] / people.image_size[0]
    count = meshes.shape[1]
    shown = np.unique(np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int))
    rows = []
    for vertices, last in zip(meshes, people.vertices, strict=True):
        # 1. The square around the person as recovered.
        pixels = _projected(last, people) * scale
        low, high = pixels.min(0), pixels.max(0)
        side = MARGIN * max((high - low).max(), 1.0)
        corner = (low + high) / 2 - side / 2
        cell = _cut(panel, corner, side)
        # 2. The mesh of each step, with the camera of the square.
        zoom = SIDE / side
        focal = float(people.focal_length) * scale * zoom
        centre = tuple(((people.principal_point * scale - corner) * zoom).tolist())
        faces = people.faces
        steps = [overlay(cell, mesh[None], faces, focal, centre) for mesh in vertices[shown]]
        rows.append(np.concatenate([_framed(c) for c in (cell, *steps)], 1))
    return np.concatenate(rows)


def _projected(vertices: Float[np.ndarray, "V 3"], people: People) -> Float[np.ndarray, "N 2"]:
    """Pixels of the vertices in front of the camera."""
    front = vertices[vertices[:, 2] > NEAR]
    if not len(front):
        return people.image_size * np.array([[0.0], [1.0]])
    return front[:, :2] / front[:, 2:] * float(people.focal_length) + people.principal_point


def _cut(
    panel: UInt8[np.ndarray, "h w 3"], corner: Float[np.ndarray, "2"], side: float
) -> UInt8[np.ndarray, "SIDE SIDE 3"]:
    """A square of the photo, white where it is outside of it."""
    box = (*corner.tolist(), *(corner + side).tolist())
    white = Image.new("RGB", (SIDE, SIDE), "white")
    picture, inside = Image.fromarray(panel), Image.new("L", panel.shape[1::-1], 255)
    how = {"size": (SIDE, SIDE), "method": Image.Transform.EXTENT, "data": box}
    how["resample"] = Image.Resampling.BILINEAR
    cut, mask = picture.transform(**how), inside.transform(**how)
    return np.asarray(Image.composite(cut, white, mask))


def _framed(cell: UInt8[np.ndarray, "SIDE SIDE 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A cell with a white edge at the right and below."""
    return np.pad(cell, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
