"""The ViT: sizes of the published one, and the mathematics against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy_layers import array, gelu, layer_norm, linear, self_attention, with_random_arrays

from genhmr_jax.models.vit import IMAGENET_MEAN, IMAGENET_STD, SIZES, Vit, VitSpec, normalise


def test_vit_h_has_the_published_size():
    """Nothing is allocated: shapes alone."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Vit(VitSpec.named("h"), rngs=nnx.Rngs(0))))
    assert sum(a.size for a in jax.tree.leaves(state)) == 630_912_000
    images = jax.ShapeDtypeStruct((2, 256, 192, 3), jnp.float32)
    (found,) = jax.eval_shape(lambda s, x: nnx.merge(graph, s)(x), state, images)
    assert found.shape == (2, 16, 12, 1280)


def test_names():
    assert VitSpec.named("s").grid == (16, 12)
    assert VitSpec.named("b", image=(32, 48)).grid == (2, 3)
    with pytest.raises(ValueError, match="unknown ViT 'x'.*s, b, l, h"):
        VitSpec.named("x")
    assert all(width % heads == 0 for width, _, heads in SIZES.values())


def vit_numpy(model, image):
    """Feature map (h, w, C) of one image (H, W, 3)."""
    spec = model.spec
    padded = np.pad(image, ((spec.padding, spec.padding),) * 2 + ((0, 0),))
    rows, columns = spec.grid
    patches = []
    for i in range(rows):
        for j in range(columns):
            window = padded[i * spec.patch : (i + 1) * spec.patch, j * spec.patch : (j + 1) * spec.patch]
            patches.append(np.einsum("hwc,hwco->o", window, array(model.patch.kernel)) + array(model.patch.bias))
    position = array(model.position)
    x = np.stack(patches) + position[1:] + position[0]
    for _, block in sorted(model.blocks.items()):
        x = x + self_attention(block.qkv, block.proj, layer_norm(block.norm1, x), spec.heads)
        x = x + linear(block.fc2, gelu(linear(block.fc1, layer_norm(block.norm2, x))))
    return layer_norm(model.norm, x).reshape(rows, columns, -1)


def test_against_numpy():
    spec = VitSpec(width=8, depth=2, heads=2, image=(16, 12), patch=4, padding=1)
    assert spec.grid == (4, 3)
    model = with_random_arrays(lambda: Vit(spec, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).normal(size=(2, 16, 12, 3))
    (found,) = nnx.jit(lambda model, x: model(x))(model, jnp.asarray(images, jnp.float32))
    assert found.shape == (2, 4, 3, 8)
    for row in range(2):
        np.testing.assert_allclose(found[row], vit_numpy(model, images[row]), atol=1e-4, rtol=1e-4)


def test_normalise_drops_32_columns_each_side():
    crops = np.random.default_rng(1).uniform(0, 1, (1, 256, 256, 3))
    found = normalise(jnp.asarray(crops, jnp.float32))
    wanted = (crops[:, :, 32:224] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert found.shape == (1, 256, 192, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
