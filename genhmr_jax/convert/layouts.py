"""Tensors under foreign names become nested parameters of ours, all of them or none."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genhmr_jax.convert.torch_files import LazyTensor
from genhmr_jax.errors import InputError

Tensors = Mapping[str, LazyTensor | np.ndarray]
Rules = Sequence[tuple[str, str]]  # pattern of a foreign name -> our dotted name, as for re.sub


def matches(name: str, rule: tuple[str, str]) -> bool:
    """Whether a rule is about this name."""
    return re.fullmatch(rule[0], name) is not None


def rename(tensors: Tensors, rules: Rules) -> dict[str, LazyTensor | np.ndarray]:
    """Those tensors whose whole name a rule matches, under our names."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, ours in rules:
            if matches(name, (pattern, ours)):
                found[re.sub(pattern, ours, name)] = tensor
                break
    return found


def fit(tensors: Tensors, like: Any, where: object, part: str) -> Any:
    """Tensors under our names -> the tree `like` (ShapeDtypeStructs), turned from PyTorch's layout to ours.

    A kernel is turned by its rank: Linear (out, in) -> (in, out), Conv1d (out, in, k) -> (k, in, out), Conv2d (out, in, h, w) -> (h, w, in,
    out). Leading axes of length 1 that we do not have are dropped.

    Raises:
      InputError: a tensor is missing or has another shape: nothing is loaded in part.
    """
    leaves = jax.tree_util.tree_leaves_with_path(like)
    names = {".".join(str(getattr(key, "key", key)) for key in path): leaf.shape for path, leaf in leaves}
    if missing := [name for name in names if name not in tensors]:
        raise InputError(
            where, f"{part} lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}", "give the whole checkpoint"
        )
    arrays = []
    for name, shape in names.items():
        tensor = tensors[name]
        array = np.asarray(tensor.load() if isinstance(tensor, LazyTensor) else tensor).astype(np.float32)
        if name.endswith("kernel") and array.ndim > 1:
            array = array.transpose(*range(2, array.ndim), 1, 0)
        while array.ndim > len(shape) and array.shape[0] == 1:
            array = array[0]
        if array.shape != shape:
            raise InputError(where, f"{part}: {name} is {array.shape}, not {shape}", "is this a variant of another size?")
        if not np.isfinite(array).all():
            raise InputError(where, f"{part}: {name} holds numbers that are not finite", "download it again from its authors")
        arrays.append(np.ascontiguousarray(array))
    return jax.tree.unflatten(jax.tree.structure(like), arrays)
