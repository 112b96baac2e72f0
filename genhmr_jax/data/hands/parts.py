"""Stored rows of hands in parts, so that a stopped run continues."""

import json
import pathlib

import jax
import numpy as np
from jaxtyping import Float

from genhmr_jax.data.feature_set import join_parts
from genhmr_jax.data.rows import Rows, to_arrays
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

PART = 500  # pictures of a part
PartRow = tuple[Rows, Float[np.ndarray, "4"]]
"""A row without a row axis, and the region of its map: x, y, side in px and angle in radians."""


def write_part(path: pathlib.Path, found: list[PartRow], form: str) -> None:
    """Write rows with their regions into one npz."""
    arrays = {}
    if found:
        arrays = to_arrays(jax.tree.map(lambda *x: np.stack(x), *(row for row, _ in found)))
        arrays["region"] = np.stack([region for _, region in found]).astype(np.float32)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, encoder=np.array(form), **arrays)


def joined_parts(files: list[pathlib.Path], out: pathlib.Path, form: str) -> int:
    """Join parts into a FeatureSet; returns the number of rows. Raises InputError without any."""
    total = join_parts(files, out, form)
    # A FeatureSet does not read the regions: Rows has no field for them.
    path = out / "done.json"
    meta = json.loads(path.read_text())
    meta["arrays"] = [array for array in meta["arrays"] if array != "region"]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(meta))
    return total


def check_settings(path: pathlib.Path, settings: dict[str, object]) -> None:
    """Write what determines the rows. Raises InputError: the folder holds other settings."""
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored != settings:
            problem = f"was made with other settings ({stored}, not {settings})"
            raise InputError(path, problem, "choose another --out")
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(settings))
