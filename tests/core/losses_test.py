"""Losses against plain float64 NumPy."""

import jax.numpy as jnp
import numpy as np

from genhmr_jax.core import losses

RNG = np.random.default_rng(0)


def f32(x):
    return jnp.asarray(x, jnp.float32)


def test_weights_by_hand():
    np.testing.assert_allclose(losses.normalised(jnp.array([1.0, 0.0, 3.0])), [0.25, 0, 0.75])
    assert not np.any(losses.normalised(jnp.zeros(3)))
    np.testing.assert_allclose(losses.row_mean(jnp.array([[[1.0, 3.0]], [[5.0, 8.0]]])), [2.0, 6.5])


def test_the_mean_of_what_is_known():
    values, known = np.arange(48.0).reshape(2, 24), np.ones((2, 24))
    known[1, [0, 5]] = 0
    wanted = [values[0].mean(), np.delete(values[1], [0, 5]).mean()]
    np.testing.assert_allclose(losses.known_mean(values, known), wanted, rtol=1e-6)
    assert float(losses.known_mean(values, np.zeros((2, 24)))[0]) == 0


def test_terms_of_the_parts_of_a_batch_add_up():
    part = lambda scale: ({"a": jnp.float32(scale), "b": jnp.float32(2 * scale)}, {"m": scale})
    total, found = losses.combined({"a": 1.0, "b": 0.5}, {"views": part(1.0), "images": part(3.0)})
    assert float(total) == 8.0
    assert found["terms"] == {"a": 1, "b": 2, "image_a": 3, "image_b": 6}
    assert found["metrics"] == {"m": 1, "image_m": 3}


def test_token_nll_by_hand():
    """Two codes with p = 0.8 and 0.2, three with a third each."""
    logits = np.log(np.array([[[0.8, 0.2, 1e-9], [1 / 3, 1 / 3, 1 / 3]]]))
    tokens = jnp.array([[0, 2]])
    np.testing.assert_allclose(
        losses.token_nll(f32(logits), tokens), [[-np.log(0.8), np.log(3)]], rtol=1e-5
    )
    smooth = losses.token_nll(f32(logits), tokens, label_smoothing=0.3)
    spread = -np.log([0.8, 0.2, 1e-9]).mean()
    np.testing.assert_allclose(smooth, [[0.7 * -np.log(0.8) + 0.3 * spread, np.log(3)]], rtol=1e-5)


def test_token_nll_of_bfloat16_logits_is_float32():
    logits = jnp.asarray(RNG.normal(0, 30, (1, 2, 4)), jnp.bfloat16)
    found = losses.token_nll(logits, jnp.array([[0, 3]]))
    exact = np.asarray(logits, np.float64)
    shifted = exact - exact.max(-1, keepdims=True)
    wanted = np.log(np.exp(shifted).sum(-1)) - shifted[:, [0, 1], [0, 3]]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
