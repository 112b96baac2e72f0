"""The optimiser: AdamW with warm-up, cosine decay and clipping.

Weight decay and learning rate may differ between parameters. Frozen ones have no gradient, no
moments and no update: whole parameters (`frozen_mask`), and the first of the ViT's stacked layers
(`encoder_layers`).
"""

import difflib
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from genhmr_jax.io.errors import InputError
from genhmr_jax.train.mesh import path_name

BEFORE_BLOCKS = "(patch|position|class_token)"  # of a ViT


def learning_rate(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """The schedule of the learning rate over `steps` steps.

    It rises linearly to `config.learning_rate` in `config.warmup` steps. A cosine then reduces it
    to the share `config.final` of that value.
    """
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        min(config.warmup, max(steps - 1, 0)),
        steps,
        config.learning_rate * config.final,
    )


def decays(path: Any, param: Any) -> bool:
    """Whether weight decay applies to a parameter: to matrices, except scales and biases.

    Scales and biases are matrices where layers are stacked.
    """
    return param.ndim >= 2 and path_name(path).rsplit("/", 1)[-1] not in ("scale", "bias")


def frozen_mask(params: Any, config: ml_collections.ConfigDict) -> Any:
    """True for each parameter that is not trained.

    These are the parameters whose whole path matches a pattern of `config.frozen`, the kernels that
    have low-rank arrays (train/lora.py), and those that `config.encoder_layers` excludes.
    """
    names = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    early = f"encoder/{BEFORE_BLOCKS}"
    if config.encoder_layers < 0:
        early = "$"  # matches no path
    elif config.encoder_layers == 0:
        early = f"encoder/({BEFORE_BLOCKS}|blocks)"

    def is_frozen(path: Any, _: Any) -> bool:
        name = path_name(path)
        if any(re.fullmatch(pattern, name) for pattern in config.frozen):
            return True
        return f"lora/{name}/a" in names or bool(re.match(early, name))

    return jax.tree_util.tree_map_with_path(is_frozen, params)


def frozen_layers(config: ml_collections.ConfigDict, depth: int) -> int:
    """The number of an encoder's `depth` layers that need no backward pass.

    They are frozen, and have no adapters.

    Args:
      config: of the stage; `optim.encoder_layers` and `lora.rank` are read.
      depth: number of layers.
    """
    if config.optim.encoder_layers < 0 or config.lora.rank:
        return 0
    return max(depth - config.optim.encoder_layers, 0)


def stop_frozen_gradients(params: Any, config: ml_collections.ConfigDict) -> Any:
    """The same parameters, of which the frozen ones get no gradient."""

    def stopped(path: Any, param: Any, is_frozen: bool) -> Any:
        if is_frozen:
            return jax.lax.stop_gradient(param)
        if not _in_blocks(path) or config.encoder_layers < 0:
            return param
        first = max(param.shape[0] - config.encoder_layers, 0)
        if not first:
            return param
        return jnp.concatenate([jax.lax.stop_gradient(param[:first]), param[first:]])

    return jax.tree_util.tree_map_with_path(stopped, params, frozen_mask(params, config))


def on_last_layers(inner: optax.GradientTransformation, count: int) -> optax.GradientTransformation:
    """Apply `inner` to the last `count` of the ViT's stacked layers and to all other parameters.

    The updates of the layers before them are zero, and they have no moments.
    """

    def last(tree: Any) -> Any:
        cut = lambda path, x: x[-count:] if _in_blocks(path) else x
        return jax.tree_util.tree_map_with_path(cut, tree)

    def whole(found: jax.Array, grad: jax.Array) -> jax.Array:
        missing = len(grad) - len(found) if grad.ndim else 0
        return jnp.concatenate([jnp.zeros_like(grad[:missing]), found]) if missing else found

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        found, state = inner.update(last(grads), state, None if params is None else last(params))
        return jax.tree.map(whole, found, grads), state

    return optax.GradientTransformation(lambda params: inner.init(last(params)), update)


def _in_blocks(path: Any) -> bool:
    """Whether a parameter has the ViT's layers as its first axis."""
    return path_name(path).startswith("encoder/blocks/")


def rate_multiplier(name: str, param: Any, config: ml_collections.ConfigDict, depth: int) -> Any:
    """The factor of a parameter's learning rate; an array (n, 1, ..) for n stacked ViT blocks.

    It is the value of the first of `config.groups` that matches, times a layer-wise decay (ELECTRA,
    Clark et al. 2020; as in BEiT). In an encoder of `depth` blocks that decay is decay^(depth + 1)
    for the patch embedding and the positions, decay^(depth - i) for block i, and 1 after the
    blocks. A stack may hold the last blocks only.
    """
    scale = next((value for pattern, value in config.groups if re.fullmatch(pattern, name)), 1.0)
    if config.layer_decay == 1.0 or not name.startswith("encoder/"):
        return scale
    if name.startswith("encoder/blocks/"):
        layers = config.layer_decay ** jnp.arange(param.shape[0], 0, -1)
        return scale * layers.reshape(-1, *[1] * (param.ndim - 1))
    before = re.match(f"encoder/{BEFORE_BLOCKS}", name)
    return scale * (config.layer_decay ** (depth + 1) if before else 1.0)


def _check_matches(config: ml_collections.ConfigDict, params: Any) -> None:
    """Raise InputError if a pattern matches no parameter: nothing would tell of a misspelt one."""
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    patterns = {"frozen": config.frozen, "groups": [pattern for pattern, _ in config.groups]}
    for field, pattern in ((field, p) for field, found in patterns.items() for p in found):
        if not any(re.fullmatch(pattern, name) for name in names):
            problem = f"{pattern!r} matches no parameter of this model"
            near = difflib.get_close_matches(pattern, names, 1, 0.0)[0]
            where = f"--config.optim.{field}"
            remedy = f"give a pattern of whole paths, such as {near!r}, or {where}=()"
            raise InputError(where, problem, remedy)


def make_optimizer(
    config: ml_collections.ConfigDict, steps: int, params: Any
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) for parameters like `params` (arrays or shapes).

    Frozen parameters have no moments and no update.

    Raises:
      InputError: a pattern of `config.frozen` or `config.groups` matches no parameter.
    """
    _check_matches(config, params)
    # 1. AdamW with clipping, and a factor of the learning rate for each parameter.
    flat = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    depth = next((x.shape[0] for name, x in flat.items() if name.startswith("encoder/blocks/")), 0)

    def scaled(updates: Any, *_: Any) -> Any:
        scale = lambda path, u: u * rate_multiplier(path_name(path), u, config, depth)
        return jax.tree_util.tree_map_with_path(scale, updates)

    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(decays, params),
    )
    train = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw, optax.stateless(scaled))
    # 2. Exclude frozen layers and frozen parameters.
    if 0 < config.encoder_layers < depth:
        train = on_last_layers(train, config.encoder_layers)
    frozen = frozen_mask(params, config)
    if not any(jax.tree.leaves(frozen)):
        return train
    labels = jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "train", frozen)
    return optax.partition({"train": train, "frozen": optax.set_to_zero()}, labels)
