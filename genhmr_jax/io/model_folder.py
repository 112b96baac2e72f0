"""The folder of a trained model: config.json (specs, measured quality) and params (orbax)."""

import json
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from genhmr_jax.io.errors import InputError


def absolute(directory: str | os.PathLike) -> epath.Path:
    """A local path made absolute (orbax requires it), or a gs:// path unchanged."""
    path = os.fspath(directory)
    return epath.Path(path if "://" in path else os.path.abspath(path))


def save_params(directory: str | os.PathLike, params: Any, meta: dict) -> None:
    """Write a model folder: the arrays to DIR/params, in their own types, and DIR/config.json.

    In a run of several processes all of them must call this function, and the first one writes.

    Args:
      params: whole arrays on the host.
      meta: the content of config.json.
    """
    directory = absolute(directory)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", jax.device_get(params), force=True)
    if jax.process_index() > 0:
        return
    # Orbax writes the absolute path into its success marker. A published model must not contain the
    # path at which it was made.
    (directory / "params" / "commit_success.txt").write_text("Checkpoint commit was successful\n")
    (directory / "config.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")


def load_meta(directory: str | os.PathLike) -> dict:
    """The content of a model's config.json.

    Raises:
      InputError: the directory is no model.
    """
    directory = absolute(directory)
    file = directory / "config.json"
    if not file.is_file():
        problem = "is not a genhmr_jax model (no config.json)"
        raise InputError(directory, problem, "give the `model` folder of a training's --workdir")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise InputError(file, f"is not JSON ({error})", "export the model again") from error


def load_params(directory: str | os.PathLike, like: Any) -> Any:
    """Load the arrays of a model folder into the structure and types of `like`.

    Args:
      like: arrays or ShapeDtypeStructs.

    Raises:
      InputError: the arrays are missing, damaged, or do not fit `like`; the first misfit is named.
    """
    directory = absolute(directory)
    stored = _read(directory)
    wanted, have = _by_name(like), _by_name(stored)
    for name in wanted | have:
        if name not in have or name not in wanted:
            misfit = f"{name} is {'missing' if name not in have else 'unknown'}"
        elif have[name].shape != wanted[name].shape:
            misfit = f"{name} is {have[name].shape}, not {wanted[name].shape}"
        else:
            continue
        remedy = "config.json and params must come from the same export"
        raise InputError(directory, f"does not fit its config: {misfit}", remedy)
    # Converted by NumPy: jnp would compile a program for each shape.
    leaves = [np.asarray(have[name]).astype(w.dtype) for name, w in wanted.items()]
    return jax.device_put(jax.tree.unflatten(jax.tree.structure(like), leaves))


def warm_start(directory: str | os.PathLike, params: Any) -> tuple[Any, dict[str, list[str]]]:
    """Load every array of a stage-2 model folder that fits `params`, and report the others.

    Args:
      params: arrays; loaded arrays get their shardings.

    Returns:
      the new params, and names under "loaded", "grown" (`params` has more rows: those beyond the
      folder's are 0, so that a network with more inputs starts as the same function), "missing"
      (not in the folder: unchanged), "misfit" (of another shape), "unused".
    """
    wanted, have = _by_name(params), _by_name(_read(absolute(directory))["genhmr"])
    report = {
        "loaded": [n for n in wanted if n in have and have[n].shape == wanted[n].shape],
        "missing": [n for n in wanted if n not in have],
        "grown": [n for n in wanted if n in have and _has_grown(have[n].shape, wanted[n].shape)],
        "unused": [n for n in have if n not in wanted],
    }
    report["misfit"] = [
        n for n in wanted if n in have and n not in report["loaded"] + report["grown"]
    ]

    def like(old: jax.Array, new: Any) -> jax.Array:
        new = np.asarray(new, old.dtype)
        new = np.pad(new, [(0, a - b) for a, b in zip(old.shape, new.shape, strict=True)])
        return jax.make_array_from_callback(new.shape, old.sharding, lambda index: new[index])

    taken = {*report["loaded"], *report["grown"]}
    leaves = [like(v, have[n]) if n in taken else v for n, v in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves), report


def _has_grown(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    return len(old) == len(new) == 2 and old[1:] == new[1:] and old[0] < new[0]


def _by_name(tree: Any) -> dict[str, Any]:
    """Leaves by their path, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _read(directory: epath.Path) -> Any:
    """The arrays of a model folder as they were saved."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(directory / "params")
    except Exception as error:  # orbax raises many kinds for a damaged folder
        problem, remedy = f"cannot be read ({type(error).__name__})", "export or copy it again"
        raise InputError(directory / "params", problem, remedy) from error
