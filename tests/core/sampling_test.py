"""Uncertainty-guided sampling against ids recorded from MaskGIT's own code, and its promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.core import sampling

LENGTH, CODES, DIM = 12, 20, 3
VECTORS = jax.random.normal(jax.random.key(7), (CODES, DIM))
TABLE = jax.random.normal(jax.random.key(8), (CODES + 1, LENGTH, CODES)) * 2


def logits_fn(tokens, row=None):
    """Logits that depend on all visible tokens and on the position, row by row."""
    rows = jnp.arange(tokens.shape[0]) if row is None else row
    mixed = jnp.sum(jnp.take(TABLE, tokens, axis=0), 1) / LENGTH
    return mixed + TABLE[-1] * jnp.cos(rows)[:, None, None]


def keys(n, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


def sample_with_trace(iterations, rows, **options):
    """Samples, and the ids (iterations, rows, LENGTH) after each step, CODES where masked."""
    inputs = []

    def recorded(tokens):
        jax.debug.callback(lambda x: inputs.append(np.asarray(x)), tokens, ordered=True)
        return logits_fn(tokens)

    options |= {"iterations": iterations}
    samples = sampling.sample(recorded, VECTORS, keys(rows), LENGTH, **options)
    jax.effects_barrier()
    assert len(inputs) == iterations
    return samples, np.stack([*inputs[1:], np.asarray(samples.tokens)])


MASKGIT_TABLE = 2 * np.random.default_rng(0).standard_normal((CODES + 1, LENGTH, CODES))
MASKGIT = """
raffsiqlccqd raffsiqlccqd raffsiqlccqd
raffsislecqd raffsislecqd rafbsislecqd
raffsislecqd raffsislecqd raffsislecqd
raffsiplecqd rrfosiplejqd rrfosiplejqd
rrffsiplehqd krfosisledqd ipfbsisledqd
rrfbsiplecqd rrfosipledqd rrfosipledqd
rrffsisledqd krfosiblejqd irfosisledqd
rrffsislecqd irfosipledqd irfosibledqd
raffsiplehqd krfosiplejqd krfosiblejqd
rrfbsiplecqd irfosiplefqd nrfosipledqd
rrfbsiplecqd krfositlejqd nrfosipledqd
rrfbsiplecqd krfositlejqd hrfosibledqd
""".split("\n")[1:-1]
"""Ids (a is 0) of three rows for T = 1 .. LENGTH, recorded from `decode` of
maskgit/libml/parallel_decode.py itself (google-research/ maskgit), with choice_temperature=0 and
the most probable id in place of a drawn one."""


def maskgit_logits(tokens):
    """What MASKGIT was recorded with."""
    table = jnp.asarray(MASKGIT_TABLE, jnp.float32)
    mixed = jnp.sum(jnp.take(table, tokens, axis=0), 1) / 3
    return mixed + table[-1] * jnp.cos(2.0 * jnp.arange(len(tokens)))[:, None, None]


@pytest.mark.parametrize("iterations", range(1, LENGTH + 1))
def test_ids_are_those_of_maskgit(iterations):
    """Also where the schedule does not fall from one step to the next, and where it meets a whole
    number (2/3 of the way)."""
    found = np.asarray(
        sampling.sample(maskgit_logits, VECTORS, keys(3), LENGTH, iterations=iterations).tokens
    )
    assert ["".join(chr(97 + i) for i in row) for row in found] == MASKGIT[iterations - 1].split()


@pytest.mark.parametrize("iterations", [LENGTH - 1, LENGTH])
@pytest.mark.parametrize("schedule", sampling.SCHEDULES)
def test_every_step_keeps_a_token_and_leaves_one_for_the_next(schedule, iterations):
    _, trace = sample_with_trace(iterations, 5, schedule=schedule)
    left = np.sum(trace == CODES, -1)
    assert (left[:-1] > 0).all() and (left[-1] == 0).all()
    before = np.concatenate([np.full((1, 5), LENGTH), left[:-1]])
    assert (left[before > 1] < before[before > 1]).all()


def test_more_steps_than_tokens_keep_the_last_one_for_the_end():
    _, trace = sample_with_trace(LENGTH + 3, 2)
    left = np.sum(trace == CODES, -1)
    assert (left[-4:-1] == 1).all() and (left[-1] == 0).all()


def test_each_step_keeps_the_most_probable_tokens():
    samples, trace = sample_with_trace(5, 4)
    for t in range(5):
        before = np.full((4, LENGTH), CODES) if t == 0 else trace[t - 1]
        logits = np.asarray(logits_fn(jnp.asarray(before)), np.float64)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        kept = (before == CODES) & (trace[t] != CODES)
        assert (p.argmax(-1)[kept] == trace[t][kept]).all() and kept.any()
        least = np.where(kept, p.max(-1), np.inf).min(-1, keepdims=True)
        assert (p.max(-1) <= least)[trace[t] == CODES].all()
        np.testing.assert_allclose(samples.expected[kept], (p @ VECTORS)[kept], atol=1e-5)


def test_final_is_the_mean_of_the_last_step_for_every_token():
    (samples, trace), (before, _) = (sample_with_trace(t, 4) for t in (5, 1))
    # The input of the last of five steps: the tokens that the fourth one left.
    last = np.asarray(logits_fn(trace[3], jnp.arange(4)), np.float64)
    mean = np.exp(last) / np.exp(last).sum(-1, keepdims=True) @ np.asarray(VECTORS)
    np.testing.assert_allclose(samples.final, mean, atol=1e-5)
    assert np.abs(samples.final - samples.expected).max() > 1e-3  # tokens kept earlier are revised
    np.testing.assert_array_equal(before.final, before.expected)  # one step: the same


def test_no_mask_is_left_and_one_compilation_serves_every_count():
    traces = []

    @jax.jit
    def run(iterations, temperature):
        traces.append(1)
        return sampling.sample(
            logits_fn, VECTORS, keys(3), LENGTH, iterations=iterations, temperature=temperature
        ).tokens

    for iterations in range(1, 21):
        for temperature in (0.0, 1.0):
            tokens = run(jnp.asarray(iterations), jnp.asarray(temperature))
            assert int(tokens.max()) < CODES and int(tokens.min()) >= 0
    assert len(traces) == 1


def test_the_most_probable_id_is_that_of_argmax():
    logits = np.random.default_rng(0).integers(-3, 3, (4, 5, 40)).astype(np.float32)
    logits[0, 0], logits[0, 1] = -np.inf, np.nan
    found = sampling.most_probable(jnp.asarray(logits))
    np.testing.assert_array_equal(found[1:], logits[1:].argmax(-1))  # of equal ones the first
    assert found[0, 0] == 0 and found[0, 1] == 39 and found.dtype == jnp.int32


def test_of_equal_confidences_the_first_are_kept():
    """As in training, where all tokens of a body part have the same confidence."""
    confidence = jnp.array([[0.5, 0.9, 0.5, 0.9, 0.5], [0.1, 0.1, 0.1, 0.1, 0.1]])
    kept = sampling.most_confident(confidence, jnp.array([[3], [2]]))
    np.testing.assert_array_equal(kept, [[1, 1, 0, 1, 0], [1, 1, 0, 0, 0]])


def test_a_kept_token_of_low_confidence_is_masked_again():
    """With feedback, and it may change; without feedback it never does."""
    start = jnp.zeros((), jnp.int32)
    low = lambda t: jnp.where((jnp.arange(LENGTH) == 0) & (t > 0), -1.0, -jnp.arange(LENGTH) / 100)
    assess = lambda embeddings, t: (t + 1, low(t)[None])
    logits = lambda tokens, t: (jnp.broadcast_to(TABLE[:1, :, :] + t, (1, LENGTH, CODES)), t)
    carry, step = sampling.loop(
        logits,
        VECTORS,
        keys(1),
        LENGTH,
        iterations=3,
        temperature=0.0,
        schedule="cosine",
        feedback=sampling.Feedback(start, assess),
    )
    masked = []
    for t in range(3):
        carry = step(jnp.asarray(t), carry)
        masked.append(bool(carry.tokens[0, 0] == CODES))
    assert masked == [False, True, False]  # kept, masked again, filled by the last step


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_independent_of_batch_and_padding(temperature):
    whole = sampling.sample(logits_fn, VECTORS, keys(8), LENGTH, temperature=temperature)
    part = sampling.sample(logits_fn, VECTORS, keys(8)[:3], LENGTH, temperature=temperature)
    np.testing.assert_array_equal(whole.tokens[:3], part.tokens)
    np.testing.assert_allclose(whole.expected[:3], part.expected, rtol=1e-5, atol=1e-6)


def test_temperature_zero_ignores_the_key_and_one_does_not():
    run = lambda seed, t: np.asarray(
        sampling.sample(logits_fn, VECTORS, keys(4, seed), LENGTH, temperature=t).tokens
    )
    np.testing.assert_array_equal(run(0, 0.0), run(1, 0.0))
    assert (run(0, 1.0) != run(1, 1.0)).any()


def test_sampling_follows_the_distribution():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    found = sampling.sample(
        lambda t: jnp.broadcast_to(logits, (*t.shape, 3)),
        jnp.eye(3),
        keys(4000),
        2,
        iterations=1,
        temperature=1.0,
    )
    share = np.bincount(np.asarray(found.tokens).ravel(), minlength=3) / 8000
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2], atol=0.03)
    np.testing.assert_allclose(found.expected[0, 0], [0.5, 0.3, 0.2], rtol=1e-5)


def test_kept_tokens_stay_and_their_number_follows_the_schedule():
    samples, trace = sample_with_trace(6, 5)
    for t in range(5):
        kept = trace[t] != CODES
        assert (trace[t + 1][kept] == trace[t][kept]).all()
        still = int(np.floor(np.cos(np.pi / 2 * (t + 1) / 6) * LENGTH - 1e-6))
        assert (np.sum(~kept, -1) == still).all()
    np.testing.assert_array_equal(trace[-1], samples.tokens)


def test_bad_settings():
    with pytest.raises(ValueError, match="at least 1"):
        sampling.sample(logits_fn, VECTORS, keys(1), LENGTH, iterations=0)
    with pytest.raises(ValueError, match="unknown schedule"):
        sampling.sample(logits_fn, VECTORS, keys(1), LENGTH, schedule="exponential")
