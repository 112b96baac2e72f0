"""The graph residual block against its formula in float64."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from genhmr_jax.nets.graph import GraphResidualBlock
from support.numpy_layers import array, layer_norm, linear, with_random_arrays


def test_the_block_is_the_published_one():
    """MeshGraphormer, src/modeling/_gcnn.py: GraphResBlock.forward, GraphConvolution.forward."""
    rng = np.random.default_rng(0)
    block = with_random_arrays(lambda: GraphResidualBlock(8, rngs=nnx.Rngs(0)))
    adjacency, x = rng.random((5, 5)), rng.normal(size=(2, 5, 8))
    relu = lambda x: np.maximum(x, 0)
    for row, found in zip(x, block(jnp.float32(x), jnp.float32(adjacency)), strict=True):
        y = linear(block.down, relu(layer_norm(block.norm_down, row)))
        y = relu(layer_norm(block.norm_conv, y))
        y = adjacency @ (y @ array(block.conv.kernel)) + array(block.bias)
        y = linear(block.up, relu(layer_norm(block.norm_up, y)))
        np.testing.assert_allclose(found, row + y, rtol=2e-5, atol=2e-5)
