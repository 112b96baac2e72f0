"""The masked transformer and the shape and camera head: against float64 NumPy, and who may look at
what."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.core.masked_transformer import MaskedTransformer
from genhmr_jax.core.sizes import TransformerSpec
from genhmr_jax.nets.heads import ShapeCameraHead
from support.numpy_layers import array, layer_norm, linear, self_attention, with_random_arrays

LENGTH, CODES, DIM, WIDTH, CONTEXT = 5, 7, 3, 8, 2
SPEC = TransformerSpec(width=WIDTH, layers=2, heads=2, mlp_ratio=2, levels=1, points=2)
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(1.0, 2.0, (CODES, DIM)).astype(np.float32)
TOKENS = np.array([[0, 3, CODES, CODES, 6], [CODES] * 5, [1, 2, 3, 4, 5]])
CONTEXTS = RNG.normal(size=(3, CONTEXT, WIDTH)).astype(np.float32)
MAPS = RNG.normal(size=(3, 4, 3, WIDTH)).astype(np.float32)


@nnx.jit
def with_image(model, tokens, context, maps, weight):
    return model(tokens, model.codes(VECTORS), context, model.image_values([maps]), weight)


@nnx.jit
def without_image(model, tokens, context, vectors):
    return model(tokens, model.codes(vectors), context)


def transformer(**changes) -> MaskedTransformer:
    spec = TransformerSpec(**{**SPEC.__dict__, **changes})
    return with_random_arrays(lambda: MaskedTransformer(spec, LENGTH, CODES, DIM, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def seeing() -> MaskedTransformer:
    return transformer()


@pytest.fixture(scope="module")
def logits(seeing):
    return np.asarray(with_image(seeing, TOKENS, CONTEXTS, MAPS, jnp.ones(3)))


def logits_numpy(model, tokens, context):
    """Logits (L, N) of one example without an image."""
    spec = model.spec
    codes = (VECTORS - VECTORS.mean(0, dtype=np.float64)) / (
        VECTORS.std(0, dtype=np.float64) + 1e-6
    )
    x = np.stack(
        [array(model.embed)[token] + array(model.position)[i] for i, token in enumerate(tokens)]
    )
    if spec.geometric:
        for i, token in enumerate(tokens):
            if token < CODES:
                x[i] += codes[token] @ array(model.code_in)[i]
    x = np.concatenate([context, x])
    for _, block in sorted(model.blocks.items()):
        attention = block.self_attention
        x = x + self_attention(
            attention.qkv, attention.out, layer_norm(block.norm_self, x), spec.heads
        )
        x = x + linear(block.down, np.maximum(linear(block.up, layer_norm(block.norm_mlp, x)), 0))
    x = layer_norm(model.norm, x[len(context) :])
    out = linear(model.head, x)
    if spec.head_rank:
        out = out @ array(model.code_features)
    out = out + array(model.prior)
    if spec.geometric:
        square = (codes**2).sum(-1)
        square = (square - square.mean()) / (square.std() + 1e-6)
        for i in range(LENGTH):
            out[i] += np.concatenate([codes, square[:, None]], -1) @ (
                x[i] @ array(model.code_out)[i]
            )
    return out


@pytest.mark.parametrize("geometric,head_rank", [(True, 0), (True, 3), (False, 0)])
def test_against_numpy(geometric, head_rank):
    model = transformer(
        levels=0, layers=1, activation="relu", geometric=geometric, head_rank=head_rank
    )
    found = without_image(model, TOKENS, CONTEXTS, VECTORS)
    assert found.shape == (3, LENGTH, CODES) and found.dtype == jnp.float32
    for row in range(3):
        wanted = logits_numpy(model, TOKENS[row], CONTEXTS[row].astype(np.float64))
        np.testing.assert_allclose(found[row], wanted, atol=1e-4, rtol=1e-4)


def test_image_of_weight_zero_is_no_image(seeing, logits):
    found = np.asarray(with_image(seeing, TOKENS, CONTEXTS, MAPS, jnp.array([0.0, 1.0, 0.0])))
    blind = np.asarray(without_image(seeing, TOKENS, CONTEXTS, VECTORS))
    np.testing.assert_allclose(found[[0, 2]], blind[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(found[1], logits[1], atol=1e-5)
    assert np.abs(found[1] - blind[1]).max() > 1e-2


def test_examples_do_not_see_each_other(seeing, logits):
    order = np.array([2, 0, 0])
    found = with_image(seeing, TOKENS[order], CONTEXTS[order], MAPS[order], jnp.ones(3))
    np.testing.assert_allclose(found, logits[order], atol=1e-5)


@pytest.mark.parametrize("what", ["token", "context", "image"])
def test_every_position_sees(seeing, logits, what):
    """One visible token, one context token or the image of the first example changes: so do all of
    its logits' rows."""
    tokens, context, maps = TOKENS.copy(), CONTEXTS.copy(), MAPS.copy()
    if what == "token":
        tokens[0, 0] = 5
    elif what == "context":
        context[0, 1, 0] += 1
    else:
        maps[0] = maps[0, ::-1]
    gap = np.abs(np.asarray(with_image(seeing, tokens, context, maps, jnp.ones(3))) - logits)
    assert gap[0].max(-1).min() > 1e-3 and gap[1:].max() < 1e-5


def test_scale_and_origin_of_the_codes_do_not_matter(seeing):
    """What the transformer learns holds for a tokenizer of any scale."""
    blind = without_image(seeing, TOKENS, CONTEXTS, VECTORS)
    np.testing.assert_allclose(
        without_image(seeing, TOKENS, CONTEXTS, 10 * VECTORS + 3), blind, atol=1e-3
    )
    assert (
        np.abs(
            np.asarray(without_image(seeing, TOKENS, CONTEXTS, VECTORS[::-1].copy())) - blind
        ).max()
        > 0.1
    )


def test_shape_and_camera():
    head = with_random_arrays(lambda: ShapeCameraHead(WIDTH, 2, rngs=nnx.Rngs(0)), 5)
    run = nnx.jit(lambda head, context, maps=None, weight=None: head(context, maps, weight))
    betas, camera = run(head, CONTEXTS)
    assert betas.shape == (3, 10) and camera.shape == (3, 3) and bool((camera[:, 0] > 0).all())
    both = run(head, CONTEXTS, MAPS, jnp.array([0.0, 1.0, 0.0]))
    for found, blind in zip(both, (betas, camera), strict=True):
        np.testing.assert_allclose(found[jnp.array([0, 2])], blind[jnp.array([0, 2])], atol=1e-6)
        assert np.abs(np.asarray(found[1] - blind[1])).max() > 1e-3


def test_shape_and_camera_against_numpy():
    head = with_random_arrays(lambda: ShapeCameraHead(WIDTH, 2, rngs=nnx.Rngs(0)), 6)
    head.camera.bias.set_value(jnp.array([-3.0, 0.0, 0.0]))
    betas, camera = head(CONTEXTS[:1], MAPS[:1])
    seen = np.concatenate([CONTEXTS[0], MAPS[0].reshape(-1, WIDTH)]).astype(np.float64)
    k, v = np.split(linear(head.key_value, layer_norm(head.norm, seen)), 2, axis=-1)
    rows = []
    for query in array(head.queries):
        pieces = []
        for part in (slice(0, 4), slice(4, 8)):
            score = np.exp(k[:, part] @ query[part] / 2.0)  # sqrt of the head's 4 dimensions
            pieces.append(score / score.sum() @ v[:, part])
        x = linear(head.up, np.concatenate(pieces))
        rows.append(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    np.testing.assert_allclose(betas[0], linear(head.betas, rows[0]), atol=1e-4)
    s, tx, ty = linear(head.camera, rows[1])
    np.testing.assert_allclose(camera[0], [np.exp(s), tx, ty], rtol=1e-4, atol=1e-4)
