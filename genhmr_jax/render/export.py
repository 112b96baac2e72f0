"""Meshes as OBJ, GLB or PLY files for other programs."""

import os
import pathlib

import numpy as np
import trimesh
from jaxtyping import Float, Int

from genhmr_jax.io.atomic import atomic_path

FORMATS = ("obj", "glb", "ply")
Y_UP = np.array([1.0, -1.0, -1.0])  # half a turn about x: camera coordinates (y down, z away) -> what viewers expect (y up, z towards)


def save_mesh(path: str | os.PathLike, vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> None:
    """Writes one mesh, whole or not at all; the format is that of the ending.

    The mesh is turned half about x, so that a person stands upright in a y-up viewer (glTF prescribes y up). Units stay metres.

    Raises:
      ValueError: an ending that is none of obj, glb, ply.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"{path}: cannot write meshes as {kind!r}; choose {', '.join(FORMATS)}")
    mesh = trimesh.Trimesh(np.asarray(vertices, np.float64) * Y_UP, np.asarray(faces), process=False)
    data = mesh.export(file_type=kind)
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_bytes(data.encode() if isinstance(data, str) else data)
