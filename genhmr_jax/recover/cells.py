"""Squares of a photo around single meshes, enlarged, for pictures."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from genhmr_jax.geometry.camera import NEAR
from genhmr_jax.render.overlay import overlay

GAP = 4  # px between cells


class Cell(NamedTuple):
    """A square of a photo. focal, centre: of its camera, px of the cell."""

    pixels: UInt8[np.ndarray, "S S 3"]
    focal: float
    centre: tuple[float, float]

    def with_mesh(
        self, vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
    ) -> UInt8[np.ndarray, "S S 3"]:
        """The square with a mesh over it."""
        return overlay(self.pixels, vertices[None], faces, self.focal, self.centre)


def cell_around(
    panel: UInt8[np.ndarray, "h w 3"],
    vertices: Float[np.ndarray, "V 3"],
    focal: float,
    centre: Float[np.ndarray, "2"],
    size: int,
    margin: float = 1.3,
) -> Cell:
    """The square around a mesh, white where it is outside of the photo.

    Args:
      panel: the photo, of any size.
      vertices: camera coordinates, metres.
      focal, centre: of the photo's camera, px of the panel.
      size: px of the cell.
      margin: side of the square over the longer side of the mesh.
    """
    front = vertices[vertices[:, 2] > NEAR]
    pixels = front[:, :2] / front[:, 2:] * focal + centre
    if not len(front):
        pixels = np.array([[0.0, 0.0], panel.shape[1::-1]])
    low, high = pixels.min(0), pixels.max(0)
    side = margin * max((high - low).max(), 1.0)
    corner, zoom = (low + high) / 2 - side / 2, size / side
    at = tuple(((centre - corner) * zoom).tolist())
    return Cell(_cut(panel, corner, side, size), float(focal) * zoom, at)


def row_of(cells: list[UInt8[np.ndarray, "S S 3"]]) -> UInt8[np.ndarray, "H W 3"]:
    """Cells beside each other, each with a white edge at the right and below."""
    framed = [np.pad(c, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for c in cells]
    return np.concatenate(framed, 1)


def _cut(
    panel: UInt8[np.ndarray, "h w 3"], corner: Float[np.ndarray, "2"], side: float, size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """A square of the photo, white where it is outside of it."""
    box = (*corner.tolist(), *(corner + side).tolist())
    white = Image.new("RGB", (size, size), "white")
    picture, inside = Image.fromarray(panel), Image.new("L", panel.shape[1::-1], 255)
    how = {"size": (size, size), "method": Image.Transform.EXTENT, "data": box}
    how["resample"] = Image.Resampling.BILINEAR
    cut, mask = picture.transform(**how), inside.transform(**how)
    return np.asarray(Image.composite(cut, white, mask))
