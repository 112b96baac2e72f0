"""The transformer over time: padding, causality, and positions in seconds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.nets.temporal import TemporalTransformer, turned

WIDTH, FRAMES = 16, 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, FRAMES, WIDTH)).astype(np.float32)
TIMES = np.broadcast_to(np.arange(FRAMES, dtype=np.float32) / 25, (2, FRAMES))
ALL = np.ones((2, FRAMES), bool)


def network(causal):
    net = TemporalTransformer(WIDTH, 2, 2, 2, causal, rngs=nnx.Rngs(0))
    return jax.jit(lambda x, times, valid: net(x, times, valid))


@pytest.fixture(scope="module")
def both():
    return {causal: network(causal) for causal in (False, True)}


def test_padding_changes_nothing(both):
    """Garbage in frames that are not valid, and their number, do not reach the others."""
    valid = np.arange(FRAMES) < np.array([[9], [12]])
    other = X.copy()
    other[0, 9:] = 1e3 * RNG.normal(size=(3, WIDTH))
    for run in both.values():
        a, b = (np.asarray(run(x, TIMES, valid)) for x in (X, other))
        np.testing.assert_array_equal(a[valid], b[valid])
        short = np.asarray(run(X[:1, :9], TIMES[:1, :9], ALL[:1, :9]))
        np.testing.assert_allclose(short[0], a[0, :9], atol=1e-5)
        assert np.isfinite(b).all()


def test_causality(both):
    later = X.copy()
    later[:, 7:] += RNG.normal(size=(2, FRAMES - 7, WIDTH))  # a constant is what LayerNorm removes
    for causal, run in both.items():
        moved = np.abs(np.asarray(run(later, TIMES, ALL) - run(X, TIMES, ALL))).max((0, 2))
        assert (moved[:7].max() < 1e-6) == causal
        assert moved[7:].min() > 1e-3


def test_only_intervals_of_time_count(both):
    """The origin of time has no influence; the rate has."""
    run = both[False]
    np.testing.assert_allclose(run(X, TIMES + 3.7, ALL), run(X, TIMES, ALL), atol=2e-4)
    assert np.abs(np.asarray(run(X, 2 * TIMES, ALL) - run(X, TIMES, ALL))).max() > 1e-2


def test_scores_depend_on_the_interval():
    """The rotary product of two frames, against the closed form in float64."""
    q, k = RNG.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)
    periods = np.geomspace(0.1, 20.0, 4)
    pair = lambda x: x[0, 0, 0, :4].astype(np.float64) + 1j * x[0, 0, 0, 4:].astype(np.float64)
    for first, second in ((0.0, 0.3), (1.0, 1.3), (0.5, 0.1)):
        at = lambda t: jnp.full((1, 1), t, jnp.float32)
        score = float(jnp.sum(turned(q, at(first)) * turned(k, at(second))))
        phase = np.exp(2j * np.pi * (first - second) / periods)
        wanted = np.sum((pair(q) * np.conj(pair(k)) * phase).real)
        assert score == pytest.approx(wanted, abs=1e-4)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="twice"):
        TemporalTransformer(18, 1, 4, 2, False, rngs=nnx.Rngs(0))
