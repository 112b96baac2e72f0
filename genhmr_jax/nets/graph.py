"""Graph convolution on a fixed mesh (Kipf and Welling 2017), in a residual bottleneck.

The block is that of MeshGraphormer (Lin et al. 2021; src/modeling/_gcnn.py of its repository,
GraphResBlock and GraphConvolution).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class GraphResidualBlock(nnx.Module):
    """x + up(A conv(down(x)) + b), with LayerNorm and ReLU before each of the three maps.

    A linear map to half of the width, a graph convolution, and a linear map back.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        half = width // 2
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")
        self.norm_down = nnx.LayerNorm(width, rngs=rngs)
        self.down = nnx.Linear(width, half, rngs=rngs)
        self.norm_conv = nnx.LayerNorm(half, rngs=rngs)
        self.conv = nnx.Linear(half, half, use_bias=False, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(half))
        self.norm_up = nnx.LayerNorm(half, rngs=rngs)
        self.up = nnx.Linear(half, width, kernel_init=small, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B V C"], adjacency: Float[Array, "V V"]
    ) -> Float[Array, "B V C"]:
        """Features of the vertices, mixed along the edges.

        Args:
          x: features of V vertices.
          adjacency: the normalised one of the mesh, with loops (CoarseMesh.adjacency).
        """
        hidden = self.down(jax.nn.relu(self.norm_down(x)))
        hidden = self.conv(jax.nn.relu(self.norm_conv(hidden)))
        hidden = adjacency.astype(hidden.dtype) @ hidden + self.bias[...]
        return x + self.up(jax.nn.relu(self.norm_up(hidden)))
