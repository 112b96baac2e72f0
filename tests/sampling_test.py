"""Uncertainty-guided sampling against a plain NumPy MaskGIT loop, and its promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax import sampling

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


def reference(row, iterations):
    """MaskGIT's loop for one example at temperature 0, in NumPy."""
    tokens, confidence = np.full(LENGTH, CODES), np.zeros(LENGTH)
    for t in range(iterations):
        logits = np.asarray(logits_fn(jnp.asarray(tokens)[None], jnp.array([row])))[0].astype(np.float64)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        masked = tokens == CODES
        tokens = np.where(masked, p.argmax(-1), tokens)
        confidence = np.where(masked, p.max(-1), confidence)
        still = 0 if t + 1 == iterations else int(np.floor(np.cos(np.pi / 2 * (t + 1) / iterations) * LENGTH + 1e-4))
        order = np.argsort(np.where(masked, confidence, np.inf), kind="stable")
        again = [i for i in order[:still] if masked[i]]
        tokens[again] = CODES
    return tokens, confidence


@pytest.mark.parametrize("iterations", [1, 2, 5, 9])
def test_equals_a_plain_loop(iterations):
    samples = sampling.sample(logits_fn, VECTORS, keys(4), LENGTH, iterations=iterations)
    for row in range(4):
        tokens, confidence = reference(row, iterations)
        np.testing.assert_array_equal(samples.tokens[row], tokens)
        np.testing.assert_allclose(samples.confidence[row], confidence, rtol=1e-5)


def test_final_is_the_mean_of_the_last_step_for_every_token():
    samples, before = (sampling.sample(logits_fn, VECTORS, keys(4), LENGTH, iterations=t, trace_length=5) for t in (5, 1))
    # What the last of five steps saw: the tokens that the fourth one left.
    last = np.asarray(logits_fn(samples.trace_tokens[3], jnp.arange(4)), np.float64)
    mean = np.exp(last) / np.exp(last).sum(-1, keepdims=True) @ np.asarray(VECTORS)
    np.testing.assert_allclose(samples.final, mean, atol=1e-5)
    assert np.abs(samples.final - samples.expected).max() > 1e-3  # tokens kept earlier are revised
    np.testing.assert_array_equal(before.final, before.expected)  # one step: the same


def test_no_mask_is_left_and_one_compilation_serves_every_count():
    traces = []

    @jax.jit
    def run(iterations, temperature):
        traces.append(1)
        return sampling.sample(logits_fn, VECTORS, keys(3), LENGTH, iterations=iterations, temperature=temperature).tokens

    for iterations in range(1, 21):
        for temperature in (0.0, 1.0):
            tokens = run(jnp.asarray(iterations), jnp.asarray(temperature))
            assert int(tokens.max()) < CODES and int(tokens.min()) >= 0
    assert len(traces) == 1


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_independent_of_batch_and_padding(temperature):
    whole = sampling.sample(logits_fn, VECTORS, keys(8), LENGTH, temperature=temperature)
    part = sampling.sample(logits_fn, VECTORS, keys(8)[:3], LENGTH, temperature=temperature)
    np.testing.assert_array_equal(whole.tokens[:3], part.tokens)
    np.testing.assert_allclose(whole.expected[:3], part.expected, rtol=1e-5, atol=1e-6)


def test_temperature_zero_ignores_the_key_and_one_does_not():
    run = lambda seed, t: np.asarray(sampling.sample(logits_fn, VECTORS, keys(4, seed), LENGTH, temperature=t).tokens)  # noqa: E731
    np.testing.assert_array_equal(run(0, 0.0), run(1, 0.0))
    assert (run(0, 1.0) != run(1, 1.0)).any()


def test_sampling_follows_the_distribution():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    found = sampling.sample(lambda t: jnp.broadcast_to(logits, (*t.shape, 3)), jnp.eye(3), keys(4000), 2, iterations=1, temperature=1.0)
    share = np.bincount(np.asarray(found.tokens).ravel(), minlength=3) / 8000
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2], atol=0.03)
    np.testing.assert_allclose(found.expected[0, 0], [0.5, 0.3, 0.2], rtol=1e-5)


def test_kept_tokens_stay_and_their_number_follows_the_schedule():
    samples = sampling.sample(logits_fn, VECTORS, keys(5), LENGTH, iterations=6, trace_length=6)
    trace = np.asarray(samples.trace_tokens)
    for t in range(5):
        kept = trace[t] != CODES
        assert (trace[t + 1][kept] == trace[t][kept]).all()
        still = int(np.floor(np.cos(np.pi / 2 * (t + 1) / 6) * LENGTH + 1e-4))
        assert (np.sum(~kept, -1) == still).all()
    np.testing.assert_array_equal(trace[-1], samples.tokens)


def test_remasking_kept_tokens_also_ends_complete():
    samples = sampling.sample(logits_fn, VECTORS, keys(5), LENGTH, iterations=6, remask_kept=True)
    assert int(samples.tokens.max()) < CODES


def test_bad_settings():
    with pytest.raises(ValueError, match="at least 1"):
        sampling.sample(logits_fn, VECTORS, keys(1), LENGTH, iterations=0)
    with pytest.raises(ValueError, match="unknown schedule"):
        sampling.sample(logits_fn, VECTORS, keys(1), LENGTH, schedule="exponential")
