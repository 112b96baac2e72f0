"""Pictures of the steps of sampling: one row for each person, one column for each step."""

import numpy as np
from jaxtyping import Float, UInt8

from genhmr_jax.recover.cells import cell_around, row_of
from genhmr_jax.recover.people import People

SIDE = 200  # px of a cell
COLUMNS = 11  # at most, the photo apart


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
    camera = float(people.focal_length) * scale, people.principal_point * scale
    rows = []
    for steps, last in zip(meshes, people.vertices, strict=True):
        cell = cell_around(panel, last, *camera, SIDE)  # around the person as recovered
        drawn = [cell.with_mesh(mesh, people.faces) for mesh in steps[shown]]
        rows.append(row_of([cell.pixels, *drawn]))
    return np.concatenate(rows)
