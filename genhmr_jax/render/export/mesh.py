"""Meshes as OBJ, GLB or PLY files for other programs."""

import os
import pathlib

import numpy as np
import trimesh
from jaxtyping import Float, Int

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render import MESH_FORMATS

Y_UP = np.array([1.0, -1.0, -1.0])
"""Half a turn about x, from camera coordinates (y down, z away) to those of viewers (y up)."""


def save_mesh(
    path: str | os.PathLike, vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> None:
    """Write one mesh, whole or not at all, in the format of the file's suffix.

    The mesh is rotated by half a turn about x, so that a person is upright in a y-up viewer (glTF
    prescribes y up). Units stay metres.

    Raises:
      ValueError: a suffix other than obj, glb, ply.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in MESH_FORMATS:
        choices = ", ".join(MESH_FORMATS)
        raise ValueError(f"{path}: cannot write meshes as {kind!r}; choose {choices}")
    points = np.asarray(vertices, np.float64) * Y_UP
    data = trimesh.Trimesh(points, np.asarray(faces), process=False).export(file_type=kind)
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_bytes(data.encode() if isinstance(data, str) else data)
