"""Low-rank adaptation (LoRA, Hu et al. 2022) of large kernels.

A kernel W is frozen, and W + alpha / rank * A B is used instead, where A and B are trained. They
are in the tree of parameters, under "lora" and the path of their kernel:
lora/encoder/blocks/qkv/kernel/{a, b}. Gradients, optimiser, moving average and checkpoints
therefore include them. `optim.frozen_mask` freezes their kernels. Stacked layers have stacked A and
B. `adapted` wraps a task of any stage, which itself uses merged kernels only.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from genhmr_jax.io.errors import InputError
from genhmr_jax.train.mesh import path_name

ROOT = "lora"


def add(
    params: dict[str, Any], config: ml_collections.ConfigDict, key: jax.Array
) -> dict[str, Any]:
    """Add A and B for each kernel (*layers, in, out) whose path matches `config.pattern`.

    The pattern must match the whole path. A (*layers, in, rank) is normal with deviation in^-1/2. B
    (*layers, rank, out) is zero, so that the network is at first the same function.

    Raises:
      InputError: no kernel matches, or a match is not a kernel.
    """
    arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    chosen = [name for name in arrays if re.fullmatch(config.pattern, name)]
    if not chosen:
        problem = f"{config.pattern!r} matches no parameter, so that nothing is adapted"
        remedy = "give the path of a kernel of this model, or --config.lora.rank=0"
        raise InputError("--config.lora.pattern", problem, remedy)
    tree: dict[str, Any] = {}
    for name, one in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        kernel = arrays[name]
        if kernel.ndim < 2 or name.rsplit("/", 1)[-1] != "kernel":
            problem = f"{config.pattern!r} matches {name} {kernel.shape}, which is not a kernel"
            raise InputError("--config.lora.pattern", problem, "match kernels only")
        *layers, inside, outside = kernel.shape
        a = jax.random.normal(one, (*layers, inside, config.rank), kernel.dtype) / inside**0.5
        b = jnp.zeros((*layers, config.rank, outside), kernel.dtype)
        branch = tree
        for part in name.split("/"):
            branch = branch.setdefault(part, {})
        branch |= {"a": a, "b": b}
    return params | {ROOT: tree}


def merge(params: dict[str, Any], config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Add A B to the kernels, in their type, and remove "lora".

    Merge before rounding to bfloat16: a kernel that is already rounded would lose a small A B.
    """
    if ROOT not in params:
        return params
    pairs = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params[ROOT])}

    def merged(path: Any, kernel: Any) -> Any:
        name = path_name(path)
        if f"{name}/a" not in pairs:
            return kernel
        return kernel + config.alpha / config.rank * (pairs[f"{name}/a"] @ pairs[f"{name}/b"])

    return jax.tree_util.tree_map_with_path(merged, plain(params))


def plain(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters without "lora", with their original kernels."""
    return {name: value for name, value in params.items() if name != ROOT}


def adapted(task: Any, config: ml_collections.ConfigDict) -> Any:
    """The task with the adapters of `config.lora`; the task itself if the rank is 0."""
    return Adapted(task, config) if config.lora.rank else task


class Adapted:
    """A `task.Task` whose kernels are adapted.

    It starts from, evaluates and exports plain parameters, so that models do not depend on it.
    `step.value_and_grad` merges the parameters for `loss`. Other methods are those of the task.
    """

    def __init__(self, task: Any, config: ml_collections.ConfigDict):
        self.task, self.config = task, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def without_remat(self) -> "Adapted":
        return Adapted(self.task.without_remat(), self.config)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        params, extra = self.task.init(key)
        return add(params, self.config.lora, jax.random.fold_in(key, 1)), extra

    def warm_start(self, params: Any) -> Any:
        return self.task.warm_start(plain(params)) | {ROOT: params[ROOT]}

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Any) -> dict[str, float]:
        merged = jax.jit(lambda p: merge(p, self.config.lora))(params)
        return self.task.evaluate(merged, extra, frozen, place)

    def export(self, directory: Any, params: Any, extra: Any, measured: dict[str, float]) -> None:
        self.task.export(directory, merge(params, self.config.lora), extra, measured)
