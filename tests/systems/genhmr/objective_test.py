"""What the loss of stage 2 decodes in place of masked tokens."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.systems.genhmr.objective import Objective

ROWS, LENGTH, CODES = 2, 600, 5
VECTORS = jax.random.normal(jax.random.key(3), (CODES, 3))


@pytest.fixture
def embeddings(get_config):
    """(logits, mask, number of the step) -> embeddings, with straight-through samples."""
    config = get_config("genhmr/tiny")
    config.loss.differentiable_sampling = "straight_through"
    tokens = jnp.zeros((ROWS, LENGTH), jnp.int32)
    targets = types.SimpleNamespace(
        masked=types.SimpleNamespace(tokens=tokens), noise_key=jax.random.split(jax.random.key(0))
    )
    sample, steps = (
        types.SimpleNamespace(targets=targets),
        types.SimpleNamespace(vectors=VECTORS),
    )
    objective = Objective(config, None)
    return lambda *step: objective._embeddings(*step, steps, sample)


def chosen(embeddings):
    """The ids of code vectors."""
    distances = np.linalg.norm(np.asarray(embeddings)[..., None, :] - VECTORS, axis=-1)
    assert distances.min(-1).max() < 1e-5  # each of them is one
    return distances.argmin(-1)


def test_straight_through_samples_of_a_step_are_its_own(embeddings):
    """Codes with the probabilities of the logits; other ones in each step and row."""
    probability = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    logits = jnp.tile(jnp.log(probability + 1e-9), (ROWS, LENGTH, 1))
    mask = jnp.ones((ROWS, LENGTH), bool)
    first, second = (chosen(embeddings(logits, mask, number)) for number in range(2))
    np.testing.assert_array_equal(first, chosen(embeddings(logits, mask, 0)))
    same = (probability**2).sum()  # of independent draws
    for one, other in ((first, second), (first[:1], first[1:]), (first[0], second[1])):
        assert abs((one == other).mean() - same) < 0.08
    shares = np.bincount(first.ravel(), minlength=CODES) / first.size
    np.testing.assert_allclose(shares, probability, atol=0.05)


def test_visible_tokens_are_the_true_codes(embeddings):
    mask = jnp.arange(LENGTH) % 2 == jnp.zeros((ROWS, 1))
    found = chosen(embeddings(jax.random.normal(jax.random.key(1), (ROWS, LENGTH, CODES)), mask, 0))
    assert not found[~np.asarray(mask)].any() and found[np.asarray(mask)].any()


def test_gradients_of_samples_reach_the_logits(embeddings):
    """They are those of a softmax, though the samples are single codes."""
    logits, mask = jnp.zeros((ROWS, LENGTH, CODES)), jnp.ones((ROWS, LENGTH), bool)
    weight = jax.random.normal(jax.random.key(2), (ROWS, LENGTH, 3))
    grad = jax.grad(lambda x: jnp.sum(weight * embeddings(x, mask, 0)))(logits)
    assert np.abs(grad.sum(-1)).max() < 1e-5  # of a softmax
    sure = logits.at[..., 0].set(50.0)
    assert np.abs(jax.grad(lambda x: jnp.sum(embeddings(x, mask, 0)))(sure)).max() < 1e-6
    assert np.abs(grad).max() > 0.1
