"""Low-rank adaptation (LoRA, Hu et al. 2022): a large kernel W stays as it is, W + alpha / rank * A
B is used in its place, A and B learn.

A and B live in the tree of parameters, under "lora" and the path of their kernel:
lora/encoder/blocks/qkv/kernel/{a, b}. So gradients, optimiser, moving average and checkpoints know
them without being told, and `optim.frozen_mask` holds every kernel that has them. Stacked layers
have stacked A and B. All is written for trees of any stage: `adapted` wraps a task, which sees
merged kernels only.
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
    """`params` with A and B beside each kernel (*layers, in, out) whose path `config.pattern`
    matches as a whole.

    A (*layers, in, rank) is normal with deviation in^-1/2, B (*layers, rank, out) is zero: what the
    network computes does not change yet.

    Raises:
      InputError: no kernel matches, or what matches is no matrix.
    """
    arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    chosen = [name for name in arrays if re.fullmatch(config.pattern, name)]
    if not chosen:
        problem = f"{config.pattern!r} matches no parameter, so that nothing is adapted"
        raise InputError(
            "--config.lora.pattern",
            problem,
            "give the path of a kernel of this model, or --config.lora.rank=0",
        )
    tree: dict[str, Any] = {}
    for name, one in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        kernel = arrays[name]
        if kernel.ndim < 2 or name.rsplit("/", 1)[-1] != "kernel":
            raise InputError(
                "--config.lora.pattern",
                f"{config.pattern!r} matches {name} {kernel.shape}, no kernel",
                "match kernels alone",
            )
        *layers, inside, outside = kernel.shape
        a = jax.random.normal(one, (*layers, inside, config.rank), kernel.dtype) / inside**0.5
        b = jnp.zeros((*layers, config.rank, outside), kernel.dtype)
        place = tree
        for part in name.split("/"):
            place = place.setdefault(part, {})
        place |= {"a": a, "b": b}
    return params | {ROOT: tree}


def merge(params: dict[str, Any], config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The parameters of the plain network: kernels with their A B added, in their own type; without
    "lora". Others are left as they are.

    Merge before rounding to bfloat16: a small A B would be lost below the last bit of a kernel that
    is rounded already.
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
    """The parameters without "lora": the kernels as they were."""
    return {name: value for name, value in params.items() if name != ROOT}


def adapted(task: Any, config: ml_collections.ConfigDict) -> Any:
    """The task with adapters, as `config.lora` says; the task itself when the rank is 0.

    Raises:
      InputError: a negative rank.
    """
    if config.lora.rank < 0:
        raise InputError(
            "--config.lora.rank",
            f"is {config.lora.rank}",
            "give 0 for none, or a small number such as 8",
        )
    return Adapted(task, config) if config.lora.rank else task


class Adapted:
    """A `tasks.Task` whose kernels are adapted. It starts from, measures and exports plain
    parameters, so that models know nothing of it.

    `loss` gets parameters that `step.value_and_grad` has merged; what is not here is the task's
    own.
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
        return self.task.evaluate(
            jax.jit(lambda p: merge(p, self.config.lora))(params), extra, frozen, place
        )

    def export(self, directory: Any, params: Any, extra: Any, measured: dict[str, float]) -> None:
        self.task.export(directory, merge(params, self.config.lora), extra, measured)
