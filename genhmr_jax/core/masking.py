"""Masks of the masked transformer's training: which tokens are hidden, which visible ones are wrong. One random key for each row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from genhmr_jax.core.sampling import SCHEDULES

BINS = 4  # of the mask ratio, for the accuracy that training logs


def random_mask(
    keys: Array, length: int, *, schedule: str = "cosine", min_ratio: float = 0.0, all_masked: float = 0.0
) -> Bool[Array, "B L"]:
    """True where a token is masked: ceil(gamma(tau) L) random positions, tau ~ U(0, 1) (MaskGIT, Chang et al. 2022).

    Args:
      keys: (B,) typed keys.
      schedule: gamma, by its name in sampling.SCHEDULES; "cosine" is cos(pi tau / 2).
      min_ratio: the least share of masked tokens.
      all_masked: share of rows with every token masked.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown mask schedule {schedule!r}: choose among {', '.join(SCHEDULES)}")

    def row(key: jax.Array) -> jax.Array:
        k = jax.random.split(key, 3)
        ratio = jnp.maximum(SCHEDULES[schedule](jax.random.uniform(k[0])), min_ratio)
        ratio = jnp.where(jax.random.bernoulli(k[1], all_masked), 1.0, ratio)
        rank = jnp.argsort(jax.random.uniform(k[2], (length,)))
        return rank < jnp.clip(jnp.ceil(ratio * length), 1, length)

    return jax.vmap(row)(keys)


def visible_tokens(keys: Array, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], codes: int, corrupt: float) -> Int[Array, "B L"]:
    """What the transformer is given: `codes` (the mask id) where masked; elsewhere the token, or in a share of up to `corrupt` of the
    places (a random share for each row) a random one, so that it learns not to trust its own earlier mistakes (MMM)."""

    def row(key: jax.Array, ids: jax.Array) -> jax.Array:
        k = jax.random.split(key, 3)
        wrong = jax.random.bernoulli(k[0], corrupt * jax.random.uniform(k[1]), ids.shape)
        return jnp.where(wrong, jax.random.randint(k[2], ids.shape, 0, codes), ids)

    return jnp.where(mask, codes, jax.vmap(row)(keys, tokens))


def ratio_bins(mask: Bool[Array, "B L"]) -> Float[Array, "B BINS"]:
    """Weights with which the number of right masked tokens of each row adds up to the accuracy of a bin of mask ratios.

    Bin i holds the ratios (i / BINS, (i + 1) / BINS]. A bin without rows gives NaN: there is no accuracy.
    """
    count = jnp.sum(mask, -1, dtype=jnp.float32)
    which = jnp.clip(jnp.ceil(count / mask.shape[-1] * BINS) - 1, 0, BINS - 1)
    inside = which[:, None] == jnp.arange(BINS)
    total = jnp.sum(jnp.where(inside, count[:, None], 0.0), 0)
    return jnp.where(inside, 1.0, 0.0) / jnp.where(total > 0, total, jnp.nan)
