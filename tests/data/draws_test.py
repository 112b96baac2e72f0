"""Draws: the numbers have their distributions, and do not run out unnoticed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.data.draws import MOST, Draws


def sample(key):
    draws = Draws(key)
    return draws.uniform((2,), -1.0, 3.0), draws.normal((3, 20)), draws.flag(0.3, (50,))


def test_distributions():
    keys = jax.random.split(jax.random.key(0), 2000)
    uniform, normal, flag = (np.asarray(x) for x in jax.jit(jax.vmap(sample))(keys))
    assert uniform.shape == (2000, 2) and normal.shape == (2000, 3, 20) and flag.dtype == bool
    assert uniform.min() >= -1 and uniform.max() < 3 and abs(uniform.mean() - 1) < 0.06
    assert abs(normal.mean()) < 0.01 and abs(normal.std() - 1) < 0.01
    # The tails, too: 0.27 % are beyond three deviations.
    assert abs((np.abs(normal) > 3).mean() - 0.0027) < 0.0006
    assert abs(flag.mean() - 0.3) < 0.005
    # Numbers of a sample are independent of each other.
    rest = np.corrcoef(np.concatenate([uniform, normal.reshape(2000, -1)], 1).T)
    np.fill_diagonal(rest, 0)
    assert np.abs(rest).max() < 0.12


def test_a_row_does_not_depend_on_the_batch():
    keys = jax.random.split(jax.random.key(1), 5)
    together = jax.vmap(sample)(keys)
    alone = sample(keys[3])
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, many[3], rtol=1e-6)


def test_the_least_number_has_a_finite_normal(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.zeros(shape))
    assert np.isfinite(Draws(jax.random.key(0)).normal((4,))).all()


def test_too_many():
    draws = Draws(jax.random.key(0))
    draws.uniform((MOST,))
    with pytest.raises(ValueError, match="more than 256 random numbers"):
        draws.flag(0.5)
