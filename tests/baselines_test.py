"""HMR2.0 and TokenHMR against plain float64 NumPy, over random tensors under the published names; sizes as published."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_regressors as reference
import published_names as published
import pytest
from flax import nnx

from genhmr_jax.convert import layouts, regressors
from genhmr_jax.models.baselines import heads
from genhmr_jax.models.baselines.query_decoder import QueryDecoderSpec
from genhmr_jax.models.baselines.regressor import RegressorSpec, graph
from genhmr_jax.models.baselines.tokenhmr_tokenizer import TokenDecoder, TokenEncoder

SMALL = {"width": 48, "context": 40, "layers": 2, "inner": 32, "mlp": 24}
SPEC = QueryDecoderSpec(context=40, width=48, layers=2, heads=4, head_dim=8, mlp=24)


@pytest.fixture(scope="module")
def net():
    return published.tokenizer(np.random.default_rng(0))


def loaded(make, tensors, rules, **parts):
    """The module that `make` describes with these tensors in it."""
    structure, state = nnx.split(nnx.eval_shape(make))
    like = nnx.to_pure_dict(state)
    own = {name: part for name, part in like.items() if name not in parts}
    return nnx.merge(structure, jax.tree.map(jnp.asarray, layouts.fit(tensors, rules, own, "file", "part")[0] | parts))


def near(found, wanted):
    """Relative error below 1e-4."""
    for a, b in zip((found.rotmats, found.betas, found.weak_camera), wanted, strict=True):
        assert np.linalg.norm(np.asarray(a) - b) < 1e-4 * np.linalg.norm(b)


def test_hmr2_head():
    rng = np.random.default_rng(1)
    tensors, context = published.hmr2_head(rng, **SMALL), rng.normal(size=(3, 7, 40)).astype(np.float32)
    head = loaded(lambda: heads.Hmr2Head(SPEC, "columns", rngs=nnx.Rngs(0)), tensors, regressors.HMR2_HEAD)
    near(jax.jit(head.__call__)(context), reference.hmr2(tensors, context.astype(np.float64), 2, 4))


def test_tokenhmr_tokenizer(net):
    rng = np.random.default_rng(2)
    encoder = loaded(lambda: TokenEncoder(rngs=nnx.Rngs(0)), net, regressors.TOKEN_ENCODER)
    decoder = loaded(lambda: TokenDecoder(rngs=nnx.Rngs(0)), net, regressors.TOKEN_DECODER)
    rotmats = reference.gram_schmidt(rng.normal(size=(2, 21, 6)), False)
    for found, wanted in (
        (encoder(rotmats.astype(np.float32)), reference.token_encoder(net, rotmats)),
        (decoder(net["quantizer.codebook"][None, :160]), reference.token_decoder(net, net["quantizer.codebook"][None, :160])),
    ):
        assert found.shape == wanted.shape
        assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_tokenhmr_head(net):
    rng = np.random.default_rng(3)
    tensors, context = published.tokenhmr_head(rng, **SMALL), rng.normal(size=(2, 5, 40)).astype(np.float32)
    like = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: TokenDecoder(rngs=nnx.Rngs(0))))[1])
    tokens = layouts.fit(net, regressors.TOKEN_DECODER, like, "file", "decoder")[0]
    make = lambda: heads.TokenHmrHead(SPEC, rngs=nnx.Rngs(0))  # noqa: E731
    head = loaded(make, tensors, regressors.TOKENHMR_HEAD, tokens=tokens, codebook=net["quantizer.codebook"])
    near(jax.jit(head.__call__)(context), reference.tokenhmr(tensors, net, context.astype(np.float64), 2, 4))


def test_published_sizes():
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    hmr2, tokenhmr = (graph(RegressorSpec(kind))[1] for kind in ("hmr2", "tokenhmr"))
    assert count(hmr2["encoder"]) == 630_912_000
    assert count(hmr2["head"]) - count(hmr2["head"]["mean"]) == 39_547_037
    assert count(tokenhmr["head"]["classifier"]) == 10_870_080
    encoder = nnx.split(nnx.eval_shape(lambda: TokenEncoder(rngs=nnx.Rngs(0))))[1]
    assert count(encoder) + count(tokenhmr["head"]["tokens"]) == 13_136_134


def test_a_kind_that_does_not_exist():
    with pytest.raises(ValueError, match="hmr2 or tokenhmr"):
        RegressorSpec("spin")
