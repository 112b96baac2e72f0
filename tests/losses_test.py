"""Losses and error measures against plain float64 NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax import losses

RNG = np.random.default_rng(0)
TARGET = RNG.normal(size=(24, 3))
NEAR = TARGET + RNG.normal(0, 0.3, TARGET.shape)
LINE = np.linspace(-1, 1, 24)[:, None] * [1.0, 2.0, -0.5]
SETS = {
    "random": RNG.normal(size=(24, 3)),
    "near": NEAR,
    "reflected": NEAR * [-1, 1, 1],
    "planar": NEAR * [1, 1, 0],
    "collinear": LINE,
    "constant": np.full((24, 3), 2.0),
    "same": TARGET,
}


def f32(x):
    return jnp.asarray(x, jnp.float32)


def rotation(axis, angle):
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def umeyama(source, target):
    """Scale, rotation and shift of Umeyama 1991, eq. 40 to 42: target ~ c R source + t."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    u, d, vt = np.linalg.svd((target - mean_t).T @ (source - mean_s) / len(source))
    sign = np.array([1.0, 1.0, -1.0 if np.linalg.det(u) * np.linalg.det(vt) < 0 else 1.0])
    r = u @ np.diag(sign) @ vt
    variance = ((source - mean_s) ** 2).sum(-1).mean()
    c = (d * sign).sum() / variance if variance > 0 else 0.0
    return c, r, mean_t - c * r @ mean_s


def pa_numpy(source, target):
    c, r, t = umeyama(source, target)
    return np.linalg.norm(c * source @ r.T + t - target, axis=-1).mean()


@pytest.mark.parametrize("name", SETS)
def test_mpjpe(name):
    wanted = np.mean([np.linalg.norm((p - SETS[name][0]) - (t - TARGET[0])) for p, t in zip(SETS[name], TARGET, strict=True)])
    np.testing.assert_allclose(losses.mpjpe(f32(SETS[name]), f32(TARGET)), wanted, atol=1e-5)


def test_pa_mpjpe():
    """All sets in one batch, both ways round (then the degenerate ones are the targets)."""
    stacked = np.stack(list(SETS.values()))
    wanted = [pa_numpy(p, TARGET) for p in stacked]
    found = losses.pa_mpjpe(f32(stacked), f32(np.broadcast_to(TARGET, stacked.shape)))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    back = losses.pa_mpjpe(f32(np.broadcast_to(TARGET, stacked.shape)), f32(stacked))
    np.testing.assert_allclose(back, [pa_numpy(TARGET, p) for p in stacked], atol=2e-5)
    names = list(SETS)
    assert wanted[names.index("reflected")] > 2 * wanted[names.index("near")]  # a mirror image is no match
    assert found[names.index("same")] < 1e-5


def test_pa_mpjpe_of_two_degenerate_sets_is_finite():
    sets = np.stack([LINE, SETS["constant"], LINE * 0, SETS["planar"]])
    predicted, target = np.repeat(sets, 4, 0), np.tile(sets, (4, 1, 1))
    found = losses.pa_mpjpe(f32(predicted), f32(target))
    np.testing.assert_allclose(found, [pa_numpy(p, t) for p, t in zip(predicted, target, strict=True)], atol=2e-5)


def test_pa_mpjpe_forgives_similarity_transforms_alone():
    moved = np.stack([s * NEAR @ rotation(np.array([1.0, a, -2.0]), a).T + [a, 3, -1] for s, a in ((0.5, 0.3), (2.0, 3.0), (1.0, -1.7))])
    found = losses.pa_mpjpe(f32(moved), f32(np.broadcast_to(TARGET, moved.shape)))
    np.testing.assert_allclose(found, pa_numpy(NEAR, TARGET), atol=2e-5)
    sheared = moved * [1, 1, 1.5]
    assert np.abs(np.asarray(losses.pa_mpjpe(f32(sheared), f32(np.broadcast_to(TARGET, moved.shape)))) - found).min() > 1e-3


def test_pelvis_aligned():
    found = losses.pelvis_aligned(f32(np.stack([TARGET, TARGET + 5])))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_array_equal(found[:, 0], 0.0)


def test_weights_by_hand():
    np.testing.assert_allclose(losses.normalised(jnp.array([1.0, 0.0, 3.0])), [0.25, 0, 0.75])
    assert not np.any(losses.normalised(jnp.zeros(3)))
    np.testing.assert_allclose(losses.row_mean(jnp.array([[[1.0, 3.0]], [[5.0, 8.0]]])), [2.0, 6.5])


def test_token_nll_by_hand():
    """Two codes with p = 0.8 and 0.2, three with a third each."""
    logits = np.log(np.array([[[0.8, 0.2, 1e-9], [1 / 3, 1 / 3, 1 / 3]]]))
    tokens = jnp.array([[0, 2]])
    np.testing.assert_allclose(losses.token_nll(f32(logits), tokens), [[-np.log(0.8), np.log(3)]], rtol=1e-5)
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
