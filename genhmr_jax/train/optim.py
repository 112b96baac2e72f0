"""The optimiser: AdamW with warm-up and cosine decay, clipping, and what differs between parameters
(decay, rate, frozen).

What is frozen gets no gradient, no moments and no update: whole parameters (`frozen_mask`), and the
first of the ViT's stacked layers (`encoder_layers`).
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from genhmr_jax.train.mesh import path_name

BEFORE_BLOCKS = "(patch|position|class_token)"  # of a ViT


def learning_rate(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up over `config.warmup` steps to `config.learning_rate`, cosine decay to
    `config.final` of it at `steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        min(config.warmup, max(steps - 1, 1)),
        steps,
        config.learning_rate * config.final,
    )


def decays(path: Any, param: Any) -> bool:
    """Whether weight decay applies: to matrices, not to scales and biases (which are matrices too
    where layers are stacked)."""
    return param.ndim >= 2 and path_name(path).rsplit("/", 1)[-1] not in ("scale", "bias")


def frozen_mask(params: Any, config: ml_collections.ConfigDict) -> Any:
    """True for each parameter that is not trained.

    Its path matches a pattern of `config.frozen` as a whole, or it has low-rank arrays beside it
    (train/lora.py), or `config.encoder_layers` leaves it out.
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
    """How many of an encoder's `depth` layers need no backward pass.

    They are frozen, and have no adapters.

    Args:
      config: of the stage: `optim.encoder_layers` and `lora.rank` are read.
    """
    if config.optim.encoder_layers < 0 or config.lora.rank:
        return 0
    return max(depth - config.optim.encoder_layers, 0)


def stop_frozen_gradients(params: Any, config: ml_collections.ConfigDict) -> Any:
    """The same values; no gradient reaches the frozen ones."""

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
    """`inner` for the last `count` of the ViT's stacked layers and for all other parameters; the
    layers before get zero, and no moments."""

    def last(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x[-count:] if _in_blocks(path) else x, tree
        )

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        found, state = inner.update(last(grads), state, None if params is None else last(params))
        whole = lambda u, g: (
            jnp.concatenate([jnp.zeros_like(g[: len(g) - len(u)]), u]) if u.shape != g.shape else u
        )
        return jax.tree.map(whole, found, grads), state

    return optax.GradientTransformation(lambda params: inner.init(last(params)), update)


def _in_blocks(path: Any) -> bool:
    """Whether a parameter has the ViT's layers as its first axis."""
    return path_name(path).startswith("encoder/blocks/")


def rate_multiplier(name: str, param: Any, config: ml_collections.ConfigDict, depth: int) -> Any:
    """What the learning rate of a parameter is multiplied with; an array (depth, 1, ..) for the
    ViT's stacked blocks.

    The first of `config.groups` that matches; and layer-wise decay (ELECTRA, Clark et al. 2020; as
    in BEiT): patch embedding and positions of an encoder of `depth` blocks get decay^(depth + 1),
    block i decay^(depth - i), everything after the blocks 1. A parameter may hold the last of the
    blocks alone.
    """
    scale = next((value for pattern, value in config.groups if re.fullmatch(pattern, name)), 1.0)
    if config.layer_decay == 1.0 or not name.startswith("encoder/"):
        return scale
    if name.startswith("encoder/blocks/"):
        layers = config.layer_decay ** jnp.arange(param.shape[0], 0, -1)
        return scale * layers.reshape(-1, *[1] * (param.ndim - 1))
    return scale * (
        config.layer_decay ** (depth + 1) if re.match(f"encoder/{BEFORE_BLOCKS}", name) else 1.0
    )


def make_optimizer(
    config: ml_collections.ConfigDict, steps: int, params: Any
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) for parameters like `params` (arrays or shapes). Frozen ones
    get no moments and no update."""
    flat = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    depth = next((x.shape[0] for name, x in flat.items() if name.startswith("encoder/blocks/")), 0)

    def scaled(updates: Any, *_: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, u: u * rate_multiplier(path_name(path), u, config, depth), updates
        )

    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(decays, params),
    )
    train = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw, optax.stateless(scaled))
    if 0 < config.encoder_layers < depth:
        train = on_last_layers(train, config.encoder_layers)
    still = frozen_mask(params, config)
    if not any(jax.tree.leaves(still)):
        return train
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "train", still)
    return optax.partition({"train": train, "frozen": optax.set_to_zero()}, labels)
