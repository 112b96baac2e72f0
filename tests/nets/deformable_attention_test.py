"""Deformable attention against a float64 NumPy form with explicit loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.nets import deformable_attention
from genhmr_jax.nets.deformable_attention import DeformableAttention, bilinear_sample


def sample_numpy(image, x, y):
    """One bilinear sample of image (H, W, D) at x, y in [0, 1], zero outside."""
    height, width, _ = image.shape
    px, py = x * width - 0.5, y * height - 0.5
    total = np.zeros(image.shape[-1])
    for i in (int(np.floor(px)), int(np.floor(px)) + 1):
        for j in (int(np.floor(py)), int(np.floor(py)) + 1):
            if 0 <= i < width and 0 <= j < height:
                total += (1 - abs(px - i)) * (1 - abs(py - j)) * image[j, i]
    return total


def test_bilinear_sample():
    rng = np.random.default_rng(0)
    value, points = rng.normal(size=(2, 3, 5, 7, 4)), rng.uniform(-0.3, 1.3, (2, 6, 3, 2, 2))
    found = bilinear_sample(jnp.asarray(value, jnp.float32), jnp.asarray(points, jnp.float32))
    for b, q, n, p in np.ndindex(2, 6, 3, 2):
        np.testing.assert_allclose(
            found[b, q, n, p], sample_numpy(value[b, n], *points[b, q, n, p]), atol=2e-5
        )


@pytest.mark.parametrize("cells", [0, 10**6])
def test_small_maps_as_a_whole_and_large_ones_by_gathering_give_the_same(cells, monkeypatch):
    monkeypatch.setattr(deformable_attention, "DENSE_CELLS", cells)
    rng = np.random.default_rng(3)
    value, points, weight = (
        rng.normal(size=(2, 3, 5, 7, 4)),
        rng.uniform(-0.3, 1.3, (2, 6, 3, 2, 2)),
        rng.uniform(size=(2, 6, 3, 2)),
    )
    found = deformable_attention.attend(
        *(jnp.asarray(x, jnp.float32) for x in (value, points, weight))
    )
    for b, q, n in np.ndindex(2, 6, 3):
        expected = sum(
            weight[b, q, n, p] * sample_numpy(value[b, n], *points[b, q, n, p]) for p in range(2)
        )
        np.testing.assert_allclose(found[b, q, n], expected, atol=3e-5)


def test_whole_layer():
    rng = np.random.default_rng(1)
    width, heads, points = 8, 2, 3
    layer = DeformableAttention(width, heads, 2, points, rngs=nnx.Rngs(0))
    layer.offset.kernel.set_value(
        jnp.asarray(rng.normal(size=(8, heads * 2 * points * 2)), jnp.float32)
    )
    layer.weight.kernel.set_value(
        jnp.asarray(rng.normal(size=(8, heads * 2 * points)), jnp.float32)
    )
    maps = [rng.normal(size=(1, 6, 4, width)), rng.normal(size=(1, 3, 2, width))]
    query, reference = rng.normal(size=(1, 5, width)), rng.uniform(0, 1, (1, 5, 2))
    f32 = lambda x: jnp.asarray(x, jnp.float32)
    found = layer(f32(query), f32(reference), layer.values([f32(m) for m in maps]))

    lin = lambda m, x: (
        x @ np.asarray(m.kernel[...], np.float64) + np.asarray(m.bias[...], np.float64)
    )
    values = [lin(layer.value, m).reshape(*m.shape[:3], heads, -1) for m in maps]
    offset = lin(layer.offset, query).reshape(1, 5, heads, 2, points, 2)
    weight = np.exp(lin(layer.weight, query).reshape(1, 5, heads, -1))
    weight = (weight / weight.sum(-1, keepdims=True)).reshape(1, 5, heads, 2, points)
    out = np.zeros((1, 5, heads, width // heads))
    for q, n, level, p in np.ndindex(5, heads, 2, points):
        size = np.array([maps[level].shape[2], maps[level].shape[1]])
        x, y = reference[0, q] + offset[0, q, n, level, p] / size
        out[0, q, n] += weight[0, q, n, level, p] * sample_numpy(values[level][0, :, :, n], x, y)
    np.testing.assert_allclose(found, lin(layer.out, out.reshape(1, 5, width)), atol=1e-4)


def test_gradients_are_finite():
    layer = DeformableAttention(8, 2, 1, 2, rngs=nnx.Rngs(0))
    query, reference = jnp.ones((1, 3, 8)), jnp.full((1, 3, 2), 0.5)
    grad = jax.grad(lambda m: jnp.sum(layer(query, reference, layer.values([m])) ** 2))(
        jnp.ones((1, 4, 4, 8))
    )
    assert bool(jnp.isfinite(grad).all()) and float(jnp.abs(grad).max()) > 0
