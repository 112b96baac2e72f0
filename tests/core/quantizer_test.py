"""The quantizer against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.core import quantizer


@pytest.mark.parametrize("rows", [3, 512, 700])  # 512 takes the blocked way on a CPU
def test_nearest_equals_brute_force(rows):
    rng = np.random.default_rng(0)
    vectors, z = (
        rng.normal(size=(40, 5)).astype(np.float32),
        rng.normal(size=(rows, 5)).astype(np.float32),
    )
    wanted = ((z[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(quantizer.nearest(jnp.asarray(vectors), jnp.asarray(z)), wanted)


def test_nearest_takes_the_first_of_equals():
    vectors = jnp.array([[1.0, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(
        quantizer.nearest(vectors, jnp.array([[0.9, 0], [0, 2.0]])), [0, 1]
    )


def test_ema_update_and_reset():
    rng = np.random.default_rng(1)
    z, ids = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)
    count, total, decay = np.array([5.0, 6, 7, 0.2]), rng.normal(size=(4, 4)), 0.9
    book = {
        "vectors": jnp.zeros((4, 4)),
        "ema_count": jnp.asarray(count, jnp.float32),
        "ema_sum": jnp.asarray(total, jnp.float32),
    }
    new = quantizer.ema_update(
        book,
        jnp.asarray(z, jnp.float32),
        jnp.asarray(ids),
        jax.random.key(0),
        decay=decay,
        reset_below=1.0,
    )
    for code in range(3):
        c = decay * count[code] + (1 - decay) * (ids == code).sum()
        s = decay * total[code] + (1 - decay) * z[ids == code].sum(0)
        np.testing.assert_allclose(new["ema_count"][code], c, rtol=1e-5)
        np.testing.assert_allclose(new["vectors"][code], s / c, rtol=1e-4, atol=1e-5)
    # The fourth code is never chosen: 0.18 < 1, so it becomes one of the batch's vectors.
    assert np.abs(np.asarray(new["vectors"][3]) - z).sum(-1).min() < 1e-5
    assert float(new["ema_count"][3]) == 1.0


def test_straight_through_passes_the_gradient():
    z, zq = jnp.array([1.0, 2.0]), jnp.array([5.0, 7.0])
    value, grad = jax.value_and_grad(lambda z: jnp.sum(quantizer.straight_through(z, zq) ** 2))(z)
    assert float(value) == 74.0
    np.testing.assert_allclose(grad, 2 * zq)


def test_usage():
    found = quantizer.usage(jnp.array([0, 0, 1, 1]), 8)
    np.testing.assert_allclose(found["perplexity"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(found["codes_used"], 0.25)
