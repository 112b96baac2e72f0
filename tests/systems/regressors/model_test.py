"""HMR2.0 and TokenHMR against numbers of their public code (public_outputs.npz).

The weights are random, in the published layouts.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.io import torch_layouts
from genhmr_jax.systems.regressors import heads, params
from genhmr_jax.systems.regressors.model import RegressorSpec, graph
from genhmr_jax.systems.regressors.query_decoder import QueryDecoderSpec
from genhmr_jax.systems.regressors.tokenhmr_tokenizer import TokenDecoder
from support import public_inputs as inputs
from support.paths import SUPPORT

PUBLIC = np.load(SUPPORT / "public_outputs.npz")
SPEC = QueryDecoderSpec(context=40, width=1024, layers=2, heads=4, head_dim=8, mlp=24)


@pytest.fixture(scope="module")
def net():
    return inputs.tokenizer()


def loaded(make, tensors, rules, **parts):
    """The module that `make` describes with these tensors in it."""
    structure, state = nnx.split(nnx.eval_shape(make))
    like = nnx.to_pure_dict(state)
    own = {name: part for name, part in like.items() if name not in parts}
    return nnx.merge(
        structure,
        jax.tree.map(
            jnp.asarray, torch_layouts.fit(tensors, rules, own, "file", "part")[0] | parts
        ),
    )


def near(found, kind):
    """Rotations to 1e-4 (0.006 degrees), shape and camera to 2e-5 of their size; float32."""
    np.testing.assert_allclose(found.rotmats, PUBLIC[f"{kind}_rotmats"], rtol=0, atol=1e-4)
    for name, value in (("betas", found.betas), ("camera", found.weak_camera)):
        wanted = PUBLIC[f"{kind}_{name}"]
        np.testing.assert_allclose(
            value, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max(), err_msg=name
        )


def test_the_public_heads_tell_images_apart():
    """A recorded answer that hardly depended on its image would show little of a head."""
    for kind in ("hmr2_small", "tokenhmr_small", "hmr2", "tokenhmr"):
        rotmats = PUBLIC[f"{kind}_rotmats"]
        assert np.abs(rotmats[0] - rotmats[1])[1:22].mean() > 0.02, kind


def test_hmr2_head():
    spec = dataclasses.replace(SPEC, width=inputs.HMR2_WIDTH)
    make = lambda: heads.Hmr2Head(spec, "columns", rngs=nnx.Rngs(0))
    head = loaded(make, inputs.hmr2_head(small=True), params.HMR2_HEAD)
    near(jax.jit(head.__call__)(inputs.context()), "hmr2_small")


def test_tokenhmr_token_decoder(net):
    decoder = loaded(lambda: TokenDecoder(rngs=nnx.Rngs(0)), net, params.TOKEN_DECODER)
    found, wanted = decoder(inputs.codes()), PUBLIC["decoder"]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    lengths = np.linalg.norm(wanted.reshape(2, 21, 2, 3), axis=-1)
    assert lengths.max() > 1.5, "the public decoder's 6D numbers are no unit vectors"


def test_tokenhmr_head(net):
    like = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: TokenDecoder(rngs=nnx.Rngs(0))))[1])
    tokens = torch_layouts.fit(net, params.TOKEN_DECODER, like, "file", "decoder")[0]
    make = lambda: heads.TokenHmrHead(SPEC, rngs=nnx.Rngs(0))
    head = loaded(
        make,
        inputs.tokenhmr_head(small=True),
        params.TOKENHMR_HEAD,
        tokens=tokens,
        codebook=net["quantizer.codebook"],
    )
    near(jax.jit(head.__call__)(inputs.context()), "tokenhmr_small")


def test_published_sizes():
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    hmr2, tokenhmr = (graph(RegressorSpec(kind))[1] for kind in ("hmr2", "tokenhmr"))
    assert count(hmr2["encoder"]) == 630_912_000
    assert count(hmr2["head"]) - count(hmr2["head"]["mean"]) == 39_547_037
    assert count(tokenhmr["head"]["classifier"]) == 10_870_080
    assert count(tokenhmr["head"]["tokens"]) == 6_436_870


def test_a_kind_that_does_not_exist():
    with pytest.raises(ValueError, match="hmr2, tokenhmr, mqhmr"):
        RegressorSpec("spin")


def test_a_crop_that_does_not_exist():
    with pytest.raises(ValueError, match="own or hmr2"):
        RegressorSpec("hmr2", crop="spin")
