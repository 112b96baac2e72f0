"""The ViT: sizes of the published one, and the mathematics against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.nets.vit import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SIZES,
    Vit,
    VitSpec,
    drop_path_factors,
    normalise,
)
from support.numpy_layers import array, gelu, layer_norm, linear, self_attention, with_random_arrays


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
    assert VitSpec.named("vit_b") == VitSpec.named("b") and VitSpec.named("dinov2_b").grid == (
        18,
        14,
    )
    assert all(width % heads == 0 for width, _, heads in SIZES.values())


def vit_numpy(model, image):
    """Feature map (h, w, C) of one image (H, W, 3)."""
    spec = model.spec
    padded = np.pad(image, ((spec.padding, spec.padding),) * 2 + ((0, 0),))
    rows, columns = spec.grid
    patches = []
    for i in range(rows):
        for j in range(columns):
            window = padded[
                i * spec.patch : (i + 1) * spec.patch, j * spec.patch : (j + 1) * spec.patch
            ]
            patches.append(
                np.einsum("hwc,hwco->o", window, array(model.patch.kernel))
                + array(model.patch.bias)
            )
    position = array(model.position)
    x = np.stack(patches) + position[1:]
    x = (
        np.concatenate([array(model.class_token)[None] + position[:1], x])
        if spec.class_token
        else x + position[0]
    )
    scaled = lambda scale, branch: array(scale.scale) * branch if spec.layer_scale else branch
    graph, layers = nnx.split(model.blocks)
    for i in range(spec.depth):
        block = nnx.merge(graph, jax.tree.map(lambda a, i=i: a[i], layers))
        scale1, scale2 = (block.scale1, block.scale2) if spec.layer_scale else (None, None)
        x = x + scaled(
            scale1, self_attention(block.qkv, block.proj, layer_norm(block.norm1, x), spec.heads)
        )
        x = x + scaled(
            scale2, linear(block.fc2, gelu(linear(block.fc1, layer_norm(block.norm2, x))))
        )
    return layer_norm(model.norm, x)[spec.class_token :].reshape(rows, columns, -1)


@pytest.mark.parametrize(
    "form", [{}, {"class_token": True, "layer_scale": True}], ids=["vitpose", "dinov2"]
)
def test_against_numpy(form):
    spec = VitSpec(width=8, depth=2, heads=2, image=(16, 12), patch=4, padding=1, **form)
    assert spec.grid == (4, 3)
    model = with_random_arrays(lambda: Vit(spec, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).normal(size=(2, 16, 12, 3))
    (found,) = nnx.jit(lambda model, x: model(x))(model, jnp.asarray(images, jnp.float32))
    assert found.shape == (2, 4, 3, 8)
    for row in range(2):
        np.testing.assert_allclose(found[row], vit_numpy(model, images[row]), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def small():
    """A ViT of three layers, and two images."""
    model = with_random_arrays(
        lambda: Vit(
            VitSpec(width=8, depth=3, heads=2, image=(8, 8), patch=4, padding=0), rngs=nnx.Rngs(0)
        )
    )
    return model, jnp.asarray(np.random.default_rng(2).normal(size=(2, 8, 8, 3)), jnp.float32)


def test_every_layer_starts_differently():
    blocks = Vit(
        VitSpec(width=8, depth=3, heads=2, image=(8, 8), patch=4, padding=0), rngs=nnx.Rngs(0)
    ).blocks
    kernel = np.asarray(blocks.qkv.kernel[...])
    assert kernel.shape == (3, 8, 24) and len(np.unique(kernel)) == kernel.size
    # The deviation of the layer's own initialisation, not of one with a fan-in of 3 x 8.
    assert 0.7 < kernel.std() * np.sqrt(8) < 1.3
    np.testing.assert_array_equal(blocks.norm1.scale[...], np.ones((3, 8)))


def test_drop_path_leaves_branches_out_per_sample(small):
    """All factors 0: the blocks do nothing. One branch of one sample: the other sample does not
    change."""
    model, images = small
    run = nnx.jit(lambda model, drop_path: model(images, drop_path)[0])
    plain, ones = run(model, None), jnp.ones((2, 3, 2))
    np.testing.assert_allclose(run(model, ones), plain, atol=1e-6)
    x = model.patch(images).reshape(2, 4, 8) + model.position[...][1:] + model.position[...][0]
    np.testing.assert_allclose(run(model, 0 * ones), model.norm(x).reshape(2, 2, 2, 8), atol=1e-5)
    for layer, branch in np.ndindex(3, 2):
        changed = run(model, ones.at[1, layer, branch].set(0.0))
        np.testing.assert_allclose(changed[0], plain[0], atol=1e-6)
        assert np.abs(np.asarray(changed[1] - plain[1])).max() > 1e-3, (layer, branch)


def test_drop_path_factors():
    """Nothing is dropped in the first layer; the last keeps 1 - rate; the mean is 1; a sample's
    factors depend on its key alone."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    factors = np.asarray(drop_path_factors(keys, 5, 0.4))
    assert factors.shape == (20_000, 5, 2)
    np.testing.assert_array_equal(factors[:, 0], 1.0)
    for layer, rate in enumerate([0.0, 0.1, 0.2, 0.3, 0.4]):
        np.testing.assert_allclose(
            np.unique(factors[:, layer]), [1.0] if not rate else [0.0, 1 / (1 - rate)], rtol=1e-5
        )
        np.testing.assert_allclose((factors[:, layer] == 0).mean(0), rate, atol=0.02)
    np.testing.assert_array_equal(drop_path_factors(keys[7:9], 5, 0.4), factors[7:9])
    both = (factors[:, -1] == 0).all(-1).mean()  # the two branches are drawn apart
    assert abs(both - 0.16) < 0.02
    np.testing.assert_array_equal(drop_path_factors(keys[:3], 5, 0.0), np.ones((3, 5, 2)))
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="drop_path is"):
            drop_path_factors(keys[:3], 5, rate)


def test_remat_changes_no_value_and_no_gradient(small):
    model, images = small
    graph, state = nnx.split(model)
    drop_path = drop_path_factors(jax.random.split(jax.random.key(1), 2), 3, 0.5)

    def gradient(remat):
        return jax.jit(
            jax.value_and_grad(
                lambda s: jnp.sum(nnx.merge(graph, s)(images, drop_path, remat)[0] ** 3)
            )
        )(state)

    plain = jax.tree.leaves(gradient("none"))
    for remat in ("products", "blocks"):
        for a, b in zip(plain, jax.tree.leaves(gradient(remat)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(
        ValueError, match="unknown remat 'all': choose among none, products, blocks"
    ):
        model(images, None, "all")


def test_remat_keeps_what_it_says(small):
    """What the backward pass is handed, (depth, B, S, C): with "blocks" a layer's input alone, with
    "products" also the outputs of qkv, attention, proj and fc1."""
    model, images = small
    graph, state = nnx.split(model)

    def kept(remat):
        _, backward = jax.vjp(lambda s: nnx.merge(graph, s)(images, None, remat)[0], state)
        parameters = {a.shape for a in jax.tree.leaves(state)}
        return [
            a.shape
            for a in jax.tree.leaves(backward)
            if a.ndim > 2 and a.shape[0] == 3 and a.shape not in parameters
        ]

    assert kept("blocks") == [(3, 2, 4, 8)]
    assert sorted(kept("products")) == [*[(3, 2, 4, 8)] * 3, (3, 2, 4, 24), (3, 2, 4, 32)]
    assert (3, 2, 4, 32) in kept("none")  # the hidden layer of the MLP


@pytest.mark.parametrize("remat", ["none", "blocks"])
def test_the_program_does_not_grow_with_depth(remat):
    """Forward and backward: compiling 32 blocks takes as long as compiling 2."""

    def lines(depth):
        spec = VitSpec(width=8, depth=depth, heads=2, image=(8, 8), patch=4, padding=0)
        graph, state = nnx.split(nnx.eval_shape(lambda: Vit(spec, rngs=nnx.Rngs(0))))
        loss = lambda state, x: jnp.sum(nnx.merge(graph, state)(x, None, remat)[0])
        return (
            jax.jit(jax.grad(loss))
            .lower(state, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
            .as_text()
            .count("\n")
        )

    assert lines(2) == lines(32)


def test_dinov2_sees_the_middle_of_the_crop():
    crops = np.random.default_rng(1).uniform(0, 1, (1, 256, 256, 3))
    found = normalise(jnp.asarray(crops, jnp.float32), VitSpec.named("dinov2_s"))
    assert found.shape == (1, 252, 196, 3)
    np.testing.assert_allclose(
        found,
        (crops[:, 2:254, 30:226] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD),
        atol=1e-5,
    )


def test_normalise_drops_32_columns_each_side():
    crops = np.random.default_rng(1).uniform(0, 1, (1, 256, 256, 3))
    found = normalise(jnp.asarray(crops, jnp.float32), VitSpec())
    wanted = (crops[:, :, 32:224] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert found.shape == (1, 256, 192, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
