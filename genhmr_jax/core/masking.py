"""Random masks for training the masked transformer, one key for each row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from genhmr_jax.core.choices import SCHEDULES

BINS = 4  # of the mask ratio, for the accuracy that training logs


def random_mask(
    keys: Array,
    length: int,
    *,
    schedule: str = "cosine",
    min_ratio: float = 0.0,
) -> Bool[Array, "B L"]:
    """True at masked tokens: ceil(gamma(tau) L) random positions with tau ~ U(0, 1).

    As in MaskGIT (Chang et al. 2022).

    Args:
      keys: (B,) typed keys.
      length: L.
      schedule: gamma, by its name in choices.SCHEDULES; "cosine" is cos(pi tau / 2).
      min_ratio: the smallest share of masked tokens.

    Raises:
      ValueError: unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown mask schedule {schedule!r}: choose among {', '.join(SCHEDULES)}")

    def row(key: jax.Array) -> jax.Array:
        k = jax.random.split(key)
        ratio = jnp.maximum(SCHEDULES[schedule](jax.random.uniform(k[0])), min_ratio)
        rank = jnp.argsort(jax.random.uniform(k[1], (length,)))
        return rank < jnp.clip(jnp.ceil(ratio * length), 1, length)

    return jax.vmap(row)(keys)


def visible_tokens(
    keys: Array, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], codes: int, corrupt: float
) -> Int[Array, "B L"]:
    """The input tokens of the transformer: `codes`, the mask id, where masked.

    Of the other tokens a share is replaced by random ones, so that the transformer learns to
    correct its own earlier errors (MMM, Pinyoanuntapong et al. 2024). The share is uniform in [0,
    `corrupt`], drawn for each row.
    """

    def row(key: jax.Array, ids: jax.Array) -> jax.Array:
        k = jax.random.split(key, 3)
        wrong = jax.random.bernoulli(k[0], corrupt * jax.random.uniform(k[1]), ids.shape)
        return jnp.where(wrong, jax.random.randint(k[2], ids.shape, 0, codes), ids)

    return jnp.where(mask, codes, jax.vmap(row)(keys, tokens))


def ratio_bins(mask: Bool[Array, "B L"]) -> Float[Array, "B BINS"]:
    """Weights of the rows' numbers of correct masked tokens, which add up to accuracies.

    There is one accuracy for each bin of mask ratios; bin i holds the ratios (i / BINS,
    (i + 1) / BINS]. The accuracy of a bin without rows is NaN.
    """
    count = jnp.sum(mask, -1, dtype=jnp.float32)
    which = jnp.clip(jnp.ceil(count / mask.shape[-1] * BINS) - 1, 0, BINS - 1)
    inside = which[:, None] == jnp.arange(BINS)
    total = jnp.sum(jnp.where(inside, count[:, None], 0.0), 0)
    return jnp.where(inside, 1.0, 0.0) / jnp.where(total > 0, total, jnp.nan)
