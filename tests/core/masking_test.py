"""Masks of training: their ratios, and that each row depends on its own key only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.core.masking import BINS, random_mask, ratio_bins, visible_tokens

KEYS = jax.random.split(jax.random.key(0), 4000)


def test_random_mask_ratio():
    mask = np.asarray(random_mask(KEYS, 30))
    assert mask.sum(-1).min() >= 1
    np.testing.assert_allclose(
        mask.mean(), 2 / np.pi, atol=0.03
    )  # the mean of cos(pi tau / 2) is 2 / pi
    np.testing.assert_allclose(mask.mean(0), mask.mean(), atol=0.04)  # every position alike
    assert random_mask(KEYS, 30, min_ratio=0.5).sum(-1).min() >= 15
    np.testing.assert_allclose(random_mask(KEYS, 30, schedule="linear").mean(), 0.5, atol=0.03)
    with pytest.raises(ValueError, match="unknown mask schedule 'steep'.*cosine"):
        random_mask(KEYS, 30, schedule="steep")


def test_a_row_does_not_depend_on_its_batch():
    np.testing.assert_array_equal(random_mask(KEYS[:8], 30)[5:], random_mask(KEYS[5:8], 30))
    tokens = jnp.arange(240).reshape(8, 30) % 7
    mask = random_mask(KEYS[:8], 30)
    whole = visible_tokens(KEYS[:8], tokens, mask, 7, 0.9)
    np.testing.assert_array_equal(
        whole[5:], visible_tokens(KEYS[5:8], tokens[5:], mask[5:], 7, 0.9)
    )


def test_visible_tokens():
    tokens = jnp.zeros((4000, 30), jnp.int32)
    mask = random_mask(KEYS, 30)
    seen = np.asarray(visible_tokens(KEYS, tokens, mask, 100, 0.2))
    assert (seen[np.asarray(mask)] == 100).all() and (seen[~np.asarray(mask)] < 100).all()
    wrong = (seen[~np.asarray(mask)] > 0).mean()
    np.testing.assert_allclose(
        wrong, 0.1 * 0.99, atol=0.01
    )  # the mean of U(0, 0.2), less the random tokens that hit
    assert (visible_tokens(KEYS, tokens, mask, 100, 0.0)[~mask] == 0).all()


def test_ratio_bins_by_hand():
    """Rows with 1, 4, 2 and 4 of 4 masked: bins of 25, 100, 50, 100 %; the accuracy of a bin is
    right / masked over its rows."""
    mask = jnp.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]], bool)
    right = jnp.array([1.0, 3.0, 1.0, 2.0])
    found = jnp.sum(ratio_bins(mask) * right[:, None], 0)
    np.testing.assert_allclose(found, [1.0, 0.5, np.nan, 5 / 8])
    assert BINS == 4
