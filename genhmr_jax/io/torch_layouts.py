"""Conversion of the tensors of foreign checkpoints to our nested parameters, all of them or none.

A table of rules maps the names of a family of checkpoints to our dotted names. `{n}` is the number
of a layer. If only their name has it, their layers become one array of ours with a leading axis.
If a rule has several of their names, those tensors are concatenated along their first axis.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.torch_files import LazyTensor

Tensor = LazyTensor | np.ndarray
Tensors = Mapping[str, Tensor]
Rules = Sequence[tuple[str | tuple[str, ...], str]]


def fit(
    tensors: Tensors, rules: Rules, like: Any, where: object, part: str
) -> tuple[Any, set[str]]:
    """Fill the tree `like` with tensors, as float32 and in our layout.

    A kernel is transposed by its rank: Linear (out, in) -> (in, out), Conv1d (out, in, k) -> (k,
    in, out), Conv2d (out, in, h, w) -> (h, w, in, out). Leading axes of length 1 that we do not
    have are dropped.

    Args:
      like: a tree of ShapeDtypeStructs.
      where, part: the file and the part of it, for messages.

    Returns:
      the tree, and the names of the tensors that are in it.

    Raises:
      InputError: a tensor is missing, of another shape or not finite. Then nothing is loaded.
    """
    # 1. Which of their tensors become which of our arrays.
    leaves = jax.tree_util.tree_leaves_with_path(like)
    names = {
        ".".join(str(getattr(key, "key", key)) for key in path): leaf.shape for path, leaf in leaves
    }
    sources = {ours: _sources(ours, shape, rules) for ours, shape in names.items()}
    wanted = {
        name: shape for layers, shape in sources.values() for layer in layers for name in layer
    }
    # 2. Check that they are all there.
    if missing := [name for name in wanted if name not in tensors]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise InputError(where, f"{part} lacks {missing[0]}{more}", "give the whole checkpoint")
    for name, shape in wanted.items():
        if _without_ones(tensors[name].shape, len(shape)) != shape:
            problem = f"{part}: {name} is {tuple(tensors[name].shape)}, not {shape}"
            raise InputError(where, problem, "is this a variant of another size?")
    # 3. Load them.
    load_part = lambda name, shape: _load(tensors, name, shape, where, part)
    arrays = []
    for ours, (layers, shape) in sources.items():
        stacked = [
            _to_our_layout(ours, np.concatenate([load_part(name, shape) for name in layer]))
            for layer in layers
        ]
        arrays.append(np.stack(stacked) if len(names[ours]) > stacked[0].ndim else stacked[0])
    return jax.tree.unflatten(jax.tree.structure(like), arrays), set(wanted)


def _sources(
    ours: str, shape: tuple[int, ...], rules: Rules
) -> tuple[list[list[str]], tuple[int, ...]]:
    """The names of the tensors that a parameter consists of, and the shape of each tensor.

    The names are grouped by layer: one list of parts for each layer.
    """
    for theirs, pattern in rules:
        found = _pattern(pattern).fullmatch(ours)
        if not found:
            continue
        parts = (theirs,) if isinstance(theirs, str) else theirs
        if "{n}" in parts[0] and not found.groups():
            numbers, shape = [str(n) for n in range(shape[0])], shape[1:]
        else:
            numbers = [*found.groups()] or [""]
        if _is_transposed(ours, len(shape)):
            shape = (shape[-1], shape[-2], *shape[:-2])
        if shape:
            shape = (shape[0] // len(parts), *shape[1:])
        return [[name.replace("{n}", n) for name in parts] for n in numbers], shape
    raise KeyError(f"no rule for {ours}")


@functools.cache
def _pattern(name: str) -> re.Pattern:
    return re.compile(re.escape(name).replace(r"\{n\}", r"(\d+)"))


def _is_transposed(ours: str, rank: int) -> bool:
    return ours.endswith("kernel") and rank > 1


def _to_our_layout(ours: str, array: np.ndarray) -> np.ndarray:
    if not _is_transposed(ours, array.ndim):
        return array
    return np.ascontiguousarray(array.transpose(*range(2, array.ndim), 1, 0))


def _without_ones(shape: Sequence[int], rank: int) -> tuple[int, ...]:
    """The shape without leading axes of length 1 in excess of `rank`."""
    shape = tuple(shape)
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    return shape


def _load(
    tensors: Tensors, name: str, shape: tuple[int, ...], where: object, part: str
) -> np.ndarray:
    array = load(tensors[name]).astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        problem = f"{part}: {name} holds numbers that are not finite"
        raise InputError(where, problem, "download it again from its authors")
    return array


def load(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor in a file, or of an array."""
    return tensor.load() if isinstance(tensor, LazyTensor) else np.asarray(tensor)
