"""Reading the vertices of mesh files: OBJ, and PLY as trimesh reads it."""

import io
import os
import pathlib

import numpy as np
from jaxtyping import Float

from genhmr_jax.io.errors import InputError, shortened

READ_FORMATS = ("obj", "ply")


def read_vertices(path: str | os.PathLike) -> Float[np.ndarray, "V 3"]:
    """The vertices of one mesh, float64, in the order of the file.

    Raises:
      InputError: no such file, another format, a damaged file, or coordinates that are not finite.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lstrip(".").lower()
    formats = " or ".join(name.upper() for name in READ_FORMATS)
    if path.is_dir():
        raise InputError(path, "is a folder", "give the mesh files in it")
    if kind not in READ_FORMATS:
        raise InputError(path, f"is no {formats} file by its suffix", f"convert it to {formats}")
    try:
        read = _from_obj if kind == "obj" else _from_ply
        vertices = read(path.read_bytes())
    except OSError as error:
        remedy = "check the path and its permissions"
        raise InputError(path, (error.strerror or str(error)).lower(), remedy) from error
    except Exception as error:  # trimesh's parsers raise almost any
        problem = f"is no {kind.upper()} file, or it is damaged ({shortened(error, 200)})"
        raise InputError(path, problem, "export it again") from error
    if not len(vertices):
        raise InputError(path, "has no vertices", "export it again")
    if bad := int((~np.isfinite(vertices)).any(-1).sum()):
        problem = f"{bad} of {len(vertices)} vertices are not finite"
        raise InputError(path, problem, "export it again")
    return vertices


def _from_obj(content: bytes) -> Float[np.ndarray, "V 3"]:
    """The "v" lines; what follows the three coordinates (a weight, a colour) is ignored."""
    rows = [line.split()[1:4] for line in content.splitlines() if line[:2] in (b"v ", b"v\t")]
    if short := sum(len(row) < 3 for row in rows):
        raise ValueError(f"{short} vertices have fewer than three coordinates")
    return np.array(rows, np.float64).reshape(-1, 3)


def _from_ply(content: bytes) -> Float[np.ndarray, "V 3"]:
    import trimesh

    mesh = trimesh.load(io.BytesIO(_plain_ply(content)), file_type="ply", process=False)
    return np.asarray(mesh.vertices, np.float64).reshape(-1, 3)


def _plain_ply(content: bytes) -> bytes:
    """The file without comments: trimesh opens the picture that one of them names as texture."""
    stream, has_format = io.BytesIO(content), False
    header = [stream.readline()]
    for line in stream:
        words = line.split()
        if b"end_header" in words:
            header.append(line)
            break
        is_format = words[:1] == [b"format"] and not has_format
        has_format |= is_format
        if is_format or words[:1] in ([b"element"], [b"property"]):
            header.append(line)
    return b"".join(header) + stream.read()
