"""The folder of a trained model: config.json (specs, measured quality) and params.npz.

params.npz holds every array in its own type under "PATH:TYPE", as planes of bytes (`_planes`).
"""

import io
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8
from smpl_jax.safe_npz import load_npz

from genhmr_jax.io.errors import InputError

PARAMS = "params.npz"
COMPRESSED = 2**28
"""Bytes. Larger models are stored as they are: compression would take minutes."""


def absolute(directory: str | os.PathLike) -> epath.Path:
    """A local path made absolute, or a gs:// path unchanged."""
    path = os.fspath(directory)
    return epath.Path(path if "://" in path else os.path.abspath(path))


def save_params(directory: str | os.PathLike, params: Any, meta: dict) -> None:
    """Write a model folder: the arrays to DIR/params.npz, in their own types, and DIR/config.json.

    In a run of several processes the first one writes.

    Args:
      params: nested dictionaries of arrays, whole arrays on the host.
      meta: the content of config.json.
    """
    if jax.process_index() > 0:
        return
    directory = absolute(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        name = "/".join(str(key.key) for key in path)
        arrays[f"{name}:{array.dtype}"] = _planes(array)
    small = sum(array.nbytes for array in arrays.values()) < COMPRESSED
    content = io.BytesIO()
    (np.savez_compressed if small else np.savez)(content, **arrays)
    _write(directory / PARAMS, content.getvalue())
    text = json.dumps(meta, indent=1, sort_keys=True) + "\n"
    _write(directory / "config.json", text.encode())


def _write(file: epath.Path, content: bytes) -> None:
    """Write a file, local or in a bucket, completely or not at all."""
    unfinished = file.parent / f".{file.name}.unfinished"
    unfinished.write_bytes(content)
    unfinished.replace(file)


def _planes(array: np.ndarray) -> UInt8[np.ndarray, "bytes *shape"]:
    """The first byte of every number, then the second, and so on.

    The bytes with the exponents of weights resemble each other: this saves a sixth of a file of
    bfloat16 numbers. NumPy's format has no bfloat16 either.
    """
    count = array.dtype.itemsize
    every = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, count)
    return np.ascontiguousarray(every.T).reshape(count, *array.shape)


def _from_planes(planes: UInt8[np.ndarray, "bytes *shape"], dtype: str) -> np.ndarray:
    """The array of `_planes`."""
    count, *shape = planes.shape
    every = np.ascontiguousarray(planes.reshape(count, -1).T)
    return every.reshape(-1).view(jnp.dtype(dtype)).reshape(shape)


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
    remedy = "export the model again"
    try:
        meta = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(file, f"is not JSON ({error})", remedy) from error
    if not isinstance(meta, dict):
        raise InputError(file, "holds no object", remedy)
    return meta


def load_params(directory: str | os.PathLike, like: Any) -> Any:
    """Load the arrays of a model folder into the structure and types of `like`.

    Args:
      like: arrays or ShapeDtypeStructs.

    Raises:
      InputError: the arrays are missing, damaged, not finite, or do not fit `like`; the first
        misfit is named.
    """
    directory = absolute(directory)
    wanted, have = _by_name(like), read_arrays(directory)
    for name in wanted | have:
        if name not in have or name not in wanted:
            misfit = f"{name} is {'missing' if name not in have else 'unknown'}"
        elif have[name].shape != wanted[name].shape:
            misfit = f"{name} is {have[name].shape}, not {wanted[name].shape}"
        else:
            continue
        remedy = "config.json and params.npz must come from the same export"
        raise InputError(directory, f"does not fit its config: {misfit}", remedy)
    for name, array in have.items():
        if not np.isfinite(array).all():
            remedy = "export the model again, from a checkpoint before the training diverged"
            raise InputError(directory, f"{name} has values that are not finite", remedy)
    # Converted by NumPy: jnp would compile a program for each shape.
    leaves = [have[name].astype(w.dtype) for name, w in wanted.items()]
    return jax.device_put(jax.tree.unflatten(jax.tree.structure(like), leaves))


def warm_start(
    directory: str | os.PathLike, params: Any, part: str
) -> tuple[Any, dict[str, list[str]]]:
    """Load every array of one part of a model folder that fits `params`, and report the others.

    Args:
      params: arrays; loaded arrays get their shardings.
      part: the name of these parameters in the folder, such as "genhmr".

    Returns:
      the new params, and names under "loaded", "grown" (`params` has more rows: those beyond the
      folder's are 0, so that a network with more inputs starts as the same function), "missing"
      (not in the folder: unchanged), "misfit" (of another shape), "unused".
    """
    wanted, have = _by_name(params), read_arrays(directory)
    within = f"{part}/"
    have = {name.removeprefix(within): have[name] for name in have if name.startswith(within)}
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
    """Leaves by their path, such as "genhmr/head/kernel", in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def read_arrays(directory: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a model folder as they were saved, by their path.

    Raises:
      InputError: the file is missing or damaged.
    """
    file = absolute(directory) / PARAMS
    try:
        content = open(file, "rb") if os.path.exists(file) else io.BytesIO(file.read_bytes())
        with content:
            named = load_npz(content)
        return {
            key.rpartition(":")[0]: _from_planes(planes, key.rpartition(":")[2])
            for key, planes in named.items()
        }
    except FileNotFoundError as error:
        raise InputError(file, "is missing", "export or copy the model again") from error
    except (OSError, TypeError, ValueError) as error:
        problem, remedy = f"cannot be read ({type(error).__name__})", "export or copy it again"
        raise InputError(file, problem, remedy) from error
