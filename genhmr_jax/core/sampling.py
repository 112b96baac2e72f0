"""Uncertainty-guided sampling (GenHMR §3; the parallel decoding of MaskGIT, Chang et al. 2022): one `lax.fori_loop`.

From an all-masked sequence, each step predicts every token, keeps the most confident new ones and masks the rest again. How
many stay masked follows a schedule that ends at none; a kept token stays as it is. The function
`logits_fn(tokens) -> (B, L, N)` is all it knows of the network.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SCHEDULES = {
    "cosine": lambda r: jnp.cos(jnp.pi / 2 * r),
    "linear": lambda r: 1.0 - r,
    "square": lambda r: 1.0 - r**2,
    "cubic": lambda r: 1.0 - r**3,
    "sqrt": lambda r: 1.0 - jnp.sqrt(r),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Samples:
    """The outcome of sampling.

    tokens (B, L) ids; confidence (B, L) probability of each id when it was kept; expected (B, L, D) the expected embedding
    softmax(logits) @ codebook of that step (the posterior mean, given what was visible then); final (B, L, D) the same of the last step,
    also for tokens kept earlier; trace_tokens and trace_confidence: for each of `trace_length` steps the ids (mask id where masked)
    and confidences, for plots.
    """

    tokens: jax.Array
    confidence: jax.Array
    expected: jax.Array
    final: jax.Array
    trace_tokens: jax.Array
    trace_confidence: jax.Array


def gumbel(keys: Array, step: Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "B *shape"]:
    """Gumbel noise from one key per example: what an example gets does not depend on the rest of the batch."""
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step), shape))(keys)


def sample(
    logits_fn: Callable[[Int[Array, "B L"]], Float[Array, "B L N"]],
    vectors: Float[Array, "N D"],
    keys: Array,
    length: int,
    *,
    iterations: int | Int[Array, ""] = 5,
    temperature: float | Float[Array, ""] = 0.0,
    schedule: str = "cosine",
    trace_length: int = 0,
) -> Samples:
    """Draws one token sequence per example.

    Args:
      logits_fn: ids (mask id = N where unknown) -> logits.
      vectors: the codebook (N, D).
      keys: typed PRNG keys (B,), one per example.
      length: L.
      iterations: T >= 1; may be traced, so that one compilation serves every T.
      temperature: 0 takes the most probable id; else Gumbel-max over logits / temperature. May be traced.
      schedule: share of tokens still masked after step t of T, as a function of t / T.
      trace_length: record that many steps (0: none).

    Raises:
      ValueError: iterations below 1 (when known at trace time), unknown schedule.
    """
    if isinstance(iterations, int) and iterations < 1:
        raise ValueError(f"iterations is {iterations}: at least 1 is needed")
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}: choose among {', '.join(SCHEDULES)}")
    gamma, batch, codes = SCHEDULES[schedule], keys.shape[0], vectors.shape[0]
    total = jnp.asarray(iterations, jnp.int32)

    def body(t: Int[Array, ""], state: tuple) -> tuple:
        tokens, confidence, expected, _, trace_tokens, trace_confidence = state
        masked = tokens == codes
        logits = logits_fn(tokens)
        # temperature * noise added to logits is Gumbel-max at that temperature without a division that fails at zero.
        chosen = jnp.argmax(logits + temperature * gumbel(keys, t, (length, codes)), -1)
        probability = jax.nn.softmax(logits)
        new_confidence = jnp.take_along_axis(probability, chosen[..., None], -1)[..., 0]
        mean = probability @ vectors
        tokens = jnp.where(masked, chosen, tokens)
        expected = jnp.where(masked[..., None], mean, expected)
        confidence = jnp.where(masked, new_confidence, confidence)
        # How many stay masked: as the schedule says, but every step keeps at least one new token and leaves at least one for
        # the next step (`mask_len` in decode of maskgit/libml/parallel_decode.py). The last step keeps all.
        scheduled = jnp.floor(gamma((t + 1) / total) * length).astype(jnp.int32)
        still = jnp.maximum(jnp.minimum(scheduled, jnp.sum(masked, -1, keepdims=True) - 1), 1)
        still = jnp.where(t + 1 >= total, 0, still)
        rank = jnp.argsort(jnp.argsort(jnp.where(masked, confidence, jnp.inf), -1), -1)
        remask = (rank < still) & masked
        if trace_length:
            trace_tokens = jax.lax.dynamic_update_index_in_dim(trace_tokens, jnp.where(remask, codes, tokens), t, 0)
            trace_confidence = jax.lax.dynamic_update_index_in_dim(trace_confidence, confidence, t, 0)
        return jnp.where(remask, codes, tokens), confidence, expected, mean, trace_tokens, trace_confidence

    start = (
        jnp.full((batch, length), codes, jnp.int32),
        jnp.zeros((batch, length)),
        jnp.zeros((batch, length, vectors.shape[1])),
        jnp.zeros((batch, length, vectors.shape[1])),
        jnp.full((trace_length, batch, length), codes, jnp.int32),
        jnp.zeros((trace_length, batch, length)),
    )
    tokens, confidence, expected, final, trace_tokens, trace_confidence = jax.lax.fori_loop(0, total, body, start)
    return Samples(tokens, confidence, expected, final, trace_tokens, trace_confidence)
