"""Meshes as OBJ, GLB or PLY files for other programs."""

import os
import pathlib
from collections.abc import Iterable

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
    data = _mesh(vertices, faces).export(file_type=kind)
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_bytes(data.encode() if isinstance(data, str) else data)


def glb_scene(meshes: Iterable[Float[np.ndarray, "V 3"]], faces: Int[np.ndarray, "F 3"]) -> bytes:
    """Several meshes as one GLB file, in the axes of `save_mesh`.

    The nodes and the meshes are called person_0, person_1, ...
    """
    named = {f"person_{i}": _mesh(vertices, faces) for i, vertices in enumerate(meshes)}
    return trimesh.Scene(named).export(file_type="glb")


def _mesh(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> trimesh.Trimesh:
    points = np.asarray(vertices, np.float64) * Y_UP
    return trimesh.Trimesh(points, np.asarray(faces), process=False)
