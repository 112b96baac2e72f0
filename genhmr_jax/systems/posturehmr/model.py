"""The mesh-to-posture decoder (PostureHMR, §3.3): one step from the template to the person.

Every vertex of the coarse mesh is a token: its position in the current mesh, its position in the 2D
mesh, and the number of the step. Layers of attention, graph convolution and feed-forward networks
give the displacement of each vertex to the next mesh.

The network predicts the velocity dM/ds, where s is the share of the process that is done. A step of
T has the displacement velocity / T. So a model that was trained with one T runs with any other.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.graph import GraphResidualBlock
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate
from genhmr_jax.systems.posturehmr.spec import PostureSpec

FREQUENCIES = 2.0 ** np.arange(6)


class Block(nnx.Module):
    """Attention, graph residual block, feed-forward network."""

    def __init__(self, spec: PostureSpec, *, rngs: nnx.Rngs):
        self.heads, width = spec.heads, spec.width
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=small, rngs=rngs)
        self.graph = GraphResidualBlock(width, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, spec.mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(spec.mlp_ratio * width, width, kernel_init=small, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B V C"], adjacency: Float[Array, "V V"]
    ) -> Float[Array, "B V C"]:
        qkv = self.qkv(self.norm(x)).reshape(*x.shape[:2], 3, self.heads, -1)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        x = x + self.out(attention(q, k, v).reshape(x.shape))
        x = self.graph(x, adjacency)
        return x + self.down(jax.nn.gelu(self.up(self.norm_mlp(x))))


class Decoder(nnx.Module):
    """The velocity of every vertex; it computes in the type of its parameters."""

    def __init__(self, spec: PostureSpec, *, rngs: nnx.Rngs):
        self.spec, width, vertices = spec, spec.width, spec.mesh2d.vertices
        normal = nnx.initializers.normal(0.02)
        of_points = 5 if spec.condition == "mesh2d" else 3
        self.inp = nnx.Linear(of_points, width, rngs=rngs)
        self.position = nnx.Param(normal(rngs.params(), (vertices, width)))
        self.step = nnx.Linear(2 * len(FREQUENCIES), width, rngs=rngs)
        self.box = nnx.Linear(3, width, rngs=rngs)
        if spec.condition == "global":
            features = spec.mesh2d.points * spec.mesh2d.point_width
            self.whole = nnx.Linear(features, width, rngs=rngs)
        layers = {f"block_{i:02d}": Block(spec, rngs=rngs) for i in range(spec.layers)}
        self.blocks = nnx.Dict(layers)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.velocity = nnx.Linear(width, 3, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self,
        mesh: Float[Array, "B V 3"],
        share: Float[Array, "B"],
        condition: Mesh2dEstimate,
        box: Float[Array, "B 3"],
        adjacency: Float[Array, "V V"],
    ) -> Float[Array, "B V 3"]:
        """The velocity of a mesh, metres, float32.

        Args:
          mesh: the current one, metres, relative to the pelvis.
          share: s of each row.
          condition: of the first stage.
          box: of CropCamera.box_information, ours: where the person is in the photo.
          adjacency: of the coarse mesh.
        """
        kind = self.position[...].dtype
        # 1. What is common to all vertices: the step, the box, and the picture as a whole.
        angle = jnp.pi * share[:, None] * FREQUENCIES
        step = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1).astype(kind)
        common = self.step(step) + self.box(box.astype(kind))
        inputs = [mesh]
        if self.spec.condition == "global":
            common = common + self.whole(condition.features.astype(kind))
        else:
            inputs.append(condition.vertices)
        # 2. The tokens.
        x = self.inp(jnp.concatenate(inputs, -1).astype(kind))
        x = x + self.position[...] + common[:, None]
        for _, block in sorted(self.blocks.items()):
            x = block(x, adjacency)
        return self.velocity(self.norm(x)).astype(jnp.float32)
