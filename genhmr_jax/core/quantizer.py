"""Vector quantization with a codebook learned by exponential moving averages (EMA).

VQ-VAE, van den Oord et al. 2017, appendix A.1. The codebook is state, not a trained parameter: all
of it (vectors, counts and sums) is saved and restored, so that a resumed run continues exactly.
Codes that are no longer used are replaced by encoder outputs of the current batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Codebook = dict[str, jax.Array]
BLOCK = 256  # rows of z that `nearest` processes together on a CPU


def init_codebook(key: jax.Array, size: int, dim: int) -> Codebook:
    """A codebook of random vectors (size, dim) of about unit length, with counts of 0.

    The first batch replaces all of them.
    """
    vectors = jax.random.normal(key, (size, dim)) / jnp.sqrt(dim)
    return {"vectors": vectors, "ema_count": jnp.zeros(size), "ema_sum": jnp.zeros((size, dim))}


def nearest(vectors: Float[Array, "N D"], z: Float[Array, "*batch D"]) -> Int[Array, "*batch"]:
    """Index of the code with the smallest Euclidean distance from each z; of ties the first."""
    size, rows = vectors.shape[0], z.reshape(-1, z.shape[-1])
    norm = jnp.sum(vectors**2, -1)[:, None]

    def block(part: jax.Array) -> jax.Array:
        distance = norm - 2.0 * vectors @ part.T  # |z|^2 is the same for every code
        best = distance <= jnp.min(distance, 0)
        return jnp.min(jnp.where(best, jnp.arange(size, dtype=jnp.int32)[:, None], size), 0)

    def blocked(rows: jax.Array) -> jax.Array:
        return jax.lax.map(block, rows.reshape(-1, BLOCK, rows.shape[-1])).reshape(-1)

    if rows.shape[0] % BLOCK or rows.shape[0] < 2 * BLOCK:
        return block(rows).reshape(z.shape[:-1])
    # XLA's CPU argmin over a large matrix is slow: two plain minima over cache-sized blocks take a
    # tenth of the time. The choice depends on the platform for which the program is compiled, which
    # may differ from the one that compiles it.
    return jax.lax.platform_dependent(rows, cpu=blocked, default=block).reshape(z.shape[:-1])


def straight_through(z: Float[Array, "*s D"], zq: Float[Array, "*s D"]) -> Float[Array, "*s D"]:
    """zq in the forward pass; in the backward pass its gradient is passed to z."""
    return z + jax.lax.stop_gradient(zq - z)


def ema_update(
    codebook: Codebook,
    z: Float[Array, "M D"],
    ids: Int[Array, "M"],
    key: jax.Array,
    *,
    decay: float = 0.99,
    reset_below: float = 1.0,
) -> Codebook:
    """One EMA step from encoder outputs z (M, D) and their codes ids (M,).

    A code whose EMA count falls below `reset_below` is replaced by a random encoder output of this
    batch, with count `reset_below`, as in TokenHMR. The caller scales `reset_below` to the batch.
    """
    # 1. The averages.
    size = codebook["vectors"].shape[0]
    count = jax.ops.segment_sum(jnp.ones_like(ids, z.dtype), ids, size)
    total = jax.ops.segment_sum(z, ids, size)
    ema_count = decay * codebook["ema_count"] + (1 - decay) * count
    ema_sum = decay * codebook["ema_sum"] + (1 - decay) * total
    # 2. Replace unused codes. Outputs are drawn without repetition: rounding would decide between
    # two equal codes.
    fresh = z[jax.random.permutation(key, z.shape[0])[jnp.arange(size) % z.shape[0]]]
    unused = ema_count < reset_below
    ema_count = jnp.where(unused, reset_below, ema_count)
    ema_sum = jnp.where(unused[:, None], fresh * reset_below, ema_sum)
    return {"vectors": ema_sum / ema_count[:, None], "ema_count": ema_count, "ema_sum": ema_sum}


def usage(ids: Int[Array, "*s"], size: int) -> dict[str, jax.Array]:
    """Perplexity exp(H(p)) of the codes in `ids`, and the share of the `size` codes that occur."""
    p = jax.ops.segment_sum(jnp.ones(ids.size), ids.reshape(-1), size) / ids.size
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0))
    return {"perplexity": jnp.exp(entropy), "codes_used": jnp.mean(p > 0)}
