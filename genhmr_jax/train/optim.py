"""The optimiser: AdamW with warm-up and cosine decay, clipping, no decay on vectors."""

import jax
import ml_collections
import optax


def learning_rate(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up over `config.warmup` steps to `config.learning_rate`, cosine decay to `config.final` of it at `steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(config.warmup, max(steps - 1, 1)), steps, config.learning_rate * config.final
    )


def make_optimizer(config: ml_collections.ConfigDict, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) over a pytree of arrays; weight decay on matrices only."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda p: p.ndim >= 2, params),
        ),
    )
