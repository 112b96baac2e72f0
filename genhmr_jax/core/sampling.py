"""Uncertainty-guided sampling (GenHMR §3): the first stage of inference, from logits to tokens.

A pose is a sequence of L tokens, each the id of one of N code vectors. Sampling starts with all
tokens masked and fills the sequence in T steps, by the parallel decoding of MaskGIT (Chang et al.
2022). Each step predicts every masked token, keeps the most confident predictions, and masks the
others again. The next step predicts those with more tokens visible. After step t = 1 .. T

    n_t = floor(gamma(t / T) L)

tokens are masked, where gamma falls from 1 to 0, for example gamma(r) = cos(pi r / 2). The network
enters only as a function that returns logits (B, L, N). The image is encoded once, before the loop,
which is one `lax.fori_loop`.

By the paper's rule the confidence of a token is its probability, and a kept token never changes.
With `Feedback` each step also decodes its estimate and compares it with the inputs, and the next
step gets the result. The confidence is then an estimate that was trained for that purpose, and
a kept token is masked again when its confidence falls below that of others.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from genhmr_jax.core.choices import SCHEDULES


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Samples:
    """Sampled token sequences.

    Attributes:
      tokens: (B, L) ids.
      expected: (B, L, D) expected embedding of each token, softmax(logits) @ codebook, in the step
        that kept it: the posterior mean, given the tokens that were visible in that step.
      final: (B, L, D) expected embedding of each token in the last step, also for the tokens that
        were kept earlier.
      committed: (B, L, D) the code vector of each token that was kept before the last step, and the
        expected embedding of the others.
      first: (B, L, N) logits of the first step, in which every token is masked; None with feedback,
        where nobody needs them and their copies would take a tenth of the time of a large batch.
      state: of the feedback after the last step; () without feedback.
    """

    tokens: jax.Array
    expected: jax.Array
    final: jax.Array
    committed: jax.Array
    first: jax.Array | None
    state: Any


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What a step gets from the estimate of the step before it.

    Attributes:
      start: the state before the first step, a pytree of arrays.
      assess: (embeddings (B, L, D), state) -> (state, confidence (B, L)): compare the estimate that
        the embeddings decode to with the inputs.
      commit: whether the estimate has the code vector of every kept token, and not its expected
        embedding. Then the samples of one person differ.
    """

    start: Any
    assess: Callable[[Float[Array, "B L D"], Any], tuple[Any, Float[Array, "B L"]]]
    commit: bool = False


def gumbel(keys: Array, step: Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "B *shape"]:
    """Gumbel noise of one key for each row, so that a row does not depend on the others."""
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step), shape))(keys)


def most_confident(confidence: Float[Array, "B L"], count: Int[Array, "B 1"]) -> Bool[Array, "B L"]:
    """True for the `count` tokens of the largest confidence; of equal ones the first."""
    return jnp.argsort(jnp.argsort(-confidence, -1), -1) < count


def most_probable(logits: Float[Array, "B L N"]) -> Int[Array, "B L"]:
    """The id of the largest logit; of equal ones the first.

    As jnp.argmax, which XLA does not vectorise on a CPU: two simple reductions take a third of its
    time.
    """
    largest, number = jnp.max(logits, -1, keepdims=True), logits.shape[-1]
    ids = jnp.arange(number, dtype=jnp.int32)
    # NaN equals nothing: then the answer is the last id.
    return jnp.min(jnp.where(logits == largest, ids, number - 1), -1)


class Carry(NamedTuple):
    """What one step passes to the next; the fields are those of Samples."""

    tokens: Array
    expected: Array
    final: Array
    committed: Array
    first: Array | None
    state: Any


def sample(
    logits_fn: Callable[..., Any],
    vectors: Float[Array, "N D"],
    keys: Array,
    length: int,
    *,
    iterations: int | Int[Array, ""] = 5,
    temperature: float | Float[Array, ""] = 0.0,
    schedule: str = "cosine",
    feedback: Feedback | None = None,
) -> Samples:
    """Draw one token sequence for each row.

    Args:
      logits_fn: token ids (the mask id N where masked) -> logits; with feedback: ids and state ->
        logits and state.
      vectors: the N code vectors, D dims each.
      keys: typed PRNG keys (B,), one for each row.
      length: L.
      iterations: T >= 1; may be traced, so that one compilation serves every T.
      temperature: 0 takes the most probable id; may be traced.
      schedule: gamma, by its name in SCHEDULES.
      feedback: None is the paper's rule.

    Raises:
      ValueError: iterations below 1 (when known at trace time), unknown schedule.
    """
    how = {"iterations": iterations, "temperature": temperature, "schedule": schedule}
    start, step = loop(logits_fn, vectors, keys, length, feedback=feedback, **how)
    total = jnp.asarray(iterations, jnp.int32)
    return Samples(*jax.lax.fori_loop(0, total, step, start))


def loop(
    logits_fn: Callable[..., Any],
    vectors: Float[Array, "N D"],
    keys: Array,
    length: int,
    *,
    iterations: int | Int[Array, ""],
    temperature: float | Float[Array, ""],
    schedule: str,
    feedback: Feedback | None,
) -> tuple[Carry, Callable[[Int[Array, ""], Carry], Carry]]:
    """The loop of `sample`, with its arguments: its start, and a step (t from 0, carry)."""
    if isinstance(iterations, int) and iterations < 1:
        raise ValueError(f"iterations is {iterations}: at least 1 is needed")
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}: choose among {', '.join(SCHEDULES)}")
    gamma, batch, mask_id = SCHEDULES[schedule], keys.shape[0], vectors.shape[0]
    total = jnp.asarray(iterations, jnp.int32)

    def step(t: Int[Array, ""], carry: Carry) -> Carry:
        tokens, expected, _, _, first, state = carry
        masked = tokens == mask_id  # (B, L)

        # 1. Predict: a distribution p_i over the codes for every token i, given the visible ones.
        if feedback is None:
            logits = logits_fn(tokens)  # (B, L, N)
            first = jax.lax.cond(t == 0, lambda: logits, lambda: first)
        else:
            logits, state = logits_fn(tokens, state)
        probability = jax.nn.softmax(logits)

        # 2. Sample every masked token: y_i = argmax_n (logit_in + temperature * g_in) with Gumbel
        # noise g. This is Gumbel-max sampling from p_i^(1 / temperature), written without a
        # division. Temperature 0 gives the most probable id, for which no noise is computed: N
        # random numbers for each token take longer than a small network.
        drawn = lambda: logits + temperature * gumbel(keys, t, (length, mask_id))
        chosen = jax.lax.cond(
            temperature > 0, lambda: most_probable(drawn()), lambda: most_probable(logits)
        )
        tokens = jnp.where(masked, chosen, tokens)

        # 3. The expected embedding of every token: sum_n p_in v_n over the code vectors v.
        mean = probability @ vectors
        expected = jnp.where(masked[..., None], mean, expected)
        committed = jnp.where(masked[..., None], mean, vectors[tokens])

        # 4. The confidence of a token. With feedback it is that of the current estimate, also
        # of tokens that were kept earlier. Otherwise it is the probability p_i(y_i) of a new token,
        # for any temperature, and infinite for a token that was kept earlier.
        if feedback is None:
            confidence = jnp.take_along_axis(probability, chosen[..., None], -1)[..., 0]
            confidence, free = jnp.where(masked, confidence, jnp.inf), masked
        else:
            state, confidence = feedback.assess(committed if feedback.commit else mean, state)
            free = jnp.ones_like(masked)

        # 5. The number of tokens to mask again: n = floor(gamma(t / T) L), with t counted from 1.
        # Every step keeps at least one new token, and leaves at least one to the next step
        # (`mask_len` in `decode` of maskgit/libml/parallel_decode.py). The last step keeps all.
        scheduled = jnp.floor(gamma((t + 1) / total) * length).astype(jnp.int32)
        count = jnp.maximum(jnp.minimum(scheduled, jnp.sum(masked, -1, keepdims=True) - 1), 1)
        count = jnp.where(t + 1 >= total, 0, count)

        # 6. Mask the n least confident tokens again.
        remask = ~most_confident(confidence, length - count) & free
        tokens = jnp.where(remask, mask_id, tokens)
        return Carry(tokens, expected, mean, committed, first, state)

    zeros = lambda size: jnp.zeros((batch, length, size))
    start = Carry(
        jnp.full((batch, length), mask_id, jnp.int32),
        *(zeros(vectors.shape[1]) for _ in range(3)),
        zeros(mask_id) if feedback is None else None,
        () if feedback is None else feedback.start,
    )
    return start, step
