"""The network of hands: its blocks against float64 NumPy, and what each input reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from smpl_jax.keypoints import HAND21

from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.systems.maskhand.model import GaprBlock, skeleton_adjacency
from genhmr_jax.systems.maskhand.spec import MaskHandSpec


def norm(x, layer):
    """LayerNorm in float64."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * np.float64(layer.scale[...]) + np.float64(layer.bias[...])


def linear(x, layer):
    bias = 0.0 if layer.bias is None else np.float64(layer.bias[...])
    return x @ np.float64(layer.kernel[...]) + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def random_weights(module, seed=0):
    """Every parameter drawn anew, so that no branch is zero."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(module)
    draw = lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32)
    return nnx.merge(graph, jax.tree.map(draw, state))


def test_a_gapr_block_is_its_formula():
    spec = MaskHandSpec(TokenizerSpec(skeleton="hand"), TransformerSpec(width=8, heads=2))
    block = random_weights(GaprBlock(spec, 5, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(1).normal(size=(2, 5, 8))
    # 1. Graph convolution with the learned adjacency.
    g = block.graph
    hidden = linear(np.maximum(norm(x, g.norm_down), 0), g.down)
    hidden = np.maximum(norm(hidden, g.norm_conv), 0) @ np.float64(g.conv.kernel[...])
    hidden = softmax(np.float64(block.adjacency[...])) @ hidden + np.float64(g.bias[...])
    q = x + linear(np.maximum(norm(hidden, g.norm_up), 0), g.up)
    # 2. Attention beside a convolution over three neighbours.
    normal = norm(q, block.norm)
    qkv = linear(normal, block.attention.qkv).reshape(2, 5, 3, 2, 4)
    scores = np.einsum("btnh,bsnh->bnts", qkv[:, :, 0], qkv[:, :, 1]) / 2.0
    attended = np.einsum("bnts,bsnh->btnh", softmax(scores), qkv[:, :, 2]).reshape(2, 5, 8)
    padded = np.pad(normal, ((0, 0), (1, 1), (0, 0)))
    kernel = np.float64(block.conv.kernel[...])
    conv = sum(padded[:, k : k + 5] @ kernel[k] for k in range(3)) + np.float64(
        block.conv.bias[...]
    )
    q = q + linear(attended, block.attention.out) + conv
    # 3. Squeeze and excitation.
    normal = norm(q, block.norm_out)
    scale = linear(np.maximum(linear(normal.mean(1), block.squeeze), 0), block.excite)
    wanted = q + normal / (1 + np.exp(-scale))[:, None]
    np.testing.assert_allclose(block(jnp.asarray(x, jnp.float32)), wanted, atol=2e-4)


def test_the_skeleton_links_each_finger_to_the_wrist():
    links = skeleton_adjacency() > 0
    np.testing.assert_array_equal(links, links.T)
    assert links.sum() == 21 + 2 * 20
    at = HAND21.index
    assert links[at("wrist"), at("pinky_mcp")] and links[at("pinky_dip"), at("pinky_tip")]
    assert not links[at("thumb_tip"), at("index_mcp")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tokenizer": TokenizerSpec()}, "is of a body, not of a hand"),
        ({"pose_tokens": 3}, "choose among 1, 6, 21"),
    ],
)
def test_a_wrong_spec(values, said):
    with pytest.raises(ValueError, match=said):
        MaskHandSpec(**values)
