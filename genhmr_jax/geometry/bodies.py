"""The bodies: free ones that ship with the package, or the user's own SMPL file."""

import dataclasses
import functools
import importlib.resources
from pathlib import Path

import smpl_jax
from smpl_jax import SmplModel

from genhmr_jax.geometry import landmarks
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand

_BODIES = importlib.resources.files("genhmr_jax").joinpath("assets", "body")


def available_bodies() -> tuple[str, ...]:
    """Names of the bodies that ship with the package."""
    files = (file.name for file in _BODIES.iterdir())
    return tuple(sorted(Path(name).stem for name in files if name.endswith(".npz")))


def load_body(name_or_path: str | Path = "neutral") -> SmplModel:
    """Load a body by name or from a file (SMPL .pkl or .npz); it is read once and cached.

    The free bodies share SMPL's joints and pose parameters, not its betas or its vertices. Every
    body has 10 shape directions (zero where its file holds fewer) and all surface keypoints. If
    the file does not name the vertex of a keypoint, and the body is not SMPL's mesh, the vertex is
    found by comparison with the free body (landmarks.py).

    Args:
      name_or_path: "neutral", "male", "female", "lite" (a quarter of the vertices), or a path.

    Raises:
      InputError: neither a shipped body nor a file that holds a body; the message has the address
        at which SMPL is published.
    """
    if str(name_or_path) in available_bodies():
        with importlib.resources.as_file(_BODIES.joinpath(f"{name_or_path}.npz")) as path:
            return _load(path, path.stat().st_mtime_ns)
    path = Path(expand(name_or_path))
    if str(name_or_path) and path.is_dir():
        bodies = (file for file in path.iterdir() if file.suffix in (".pkl", ".npz"))
        inside = sorted(str(file) for file in bodies if not file.name.startswith("."))
        example = f", such as {inside[0]}" if inside else ""
        raise InputError(name_or_path, "is a folder", f"give the file in it{example}")
    if not path.is_file():
        choices = ", ".join(available_bodies())
        source = "https://smpl.is.tue.mpg.de"
        remedy = f"choose {choices}, or give the path of an SMPL file from {source}"
        raise InputError(name_or_path, "no such body", remedy)
    try:
        return _load(path.resolve(), path.stat().st_mtime_ns)
    except ValueError as error:
        problem = str(error).removeprefix(f"{path.resolve()}: ")
        remedy = f"or use a shipped body: {', '.join(available_bodies())}"
        raise InputError(path, problem, remedy) from error


@functools.lru_cache(maxsize=8)
def _load(path: Path, modified: int) -> SmplModel:
    """Load a file. `modified` is part of the cache key: a file that was replaced is read again."""
    model = smpl_jax.load(path)
    if not landmarks.missing(model):
        return model
    named = landmarks.like(model, load_body("neutral"))
    return dataclasses.replace(model, named_vertices=(*model.named_vertices, *named))
