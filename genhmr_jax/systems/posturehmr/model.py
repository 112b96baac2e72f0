"""The mesh-to-posture decoder (PostureHMR, §3.3): one step from the template to the person.

Every vertex of the coarse mesh is a token: its position in the current mesh, its position in the 2D
mesh, and the number of the step. Layers of attention, graph convolution and feed-forward networks
give the displacement of each vertex to the next mesh.

The network predicts the velocity dM/ds, where s is the share of the process that is done. A step of
T has the displacement velocity / T. So a model that was trained with one T runs with any other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.graph import GraphResidualBlock
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate
from genhmr_jax.systems.posturehmr.spec import PostureSpec

FREQUENCIES = 2.0 ** np.arange(6)


class Surface(NamedTuple):
    """The coarse mesh, as the decoder reads it.

    Attributes:
      adjacency: normalised.
      markers: the vertices that the attention reads with `keys = "markers"`.
    """

    adjacency: Float[Array, "V V"]
    markers: Int[Array, "M"]


class Block(nnx.Module):
    """Attention, graph residual block, feed-forward network."""

    def __init__(self, spec: PostureSpec, *, rngs: nnx.Rngs):
        self.heads, self.keys, width = spec.heads, spec.keys, spec.width
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key_value = nnx.Linear(width, 2 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=small, rngs=rngs)
        self.graph = GraphResidualBlock(width, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, spec.mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(spec.mlp_ratio * width, width, kernel_init=small, rngs=rngs)

    def __call__(self, x: Float[Array, "B V C"], surface: Surface) -> Float[Array, "B V C"]:
        y = self.norm(x)
        read = y[:, surface.markers] if self.keys == "markers" else y
        q = self.query(y).reshape(*y.shape[:2], self.heads, -1)
        k, v = jnp.moveaxis(self.key_value(read).reshape(*read.shape[:2], 2, self.heads, -1), 2, 0)
        x = x + self.out(attention(q, k, v).reshape(x.shape))
        x = self.graph(x, surface.adjacency)
        return x + self.down(jax.nn.gelu(self.up(self.norm_mlp(x))))


class Whole(nnx.Module):
    """A velocity of every vertex from an MLP over all markers at once (ours).

    A layer of tokens spends 431 times the operations of an MLP with as many parameters. On a CPU
    the MLP therefore learns most of what a pose looks like in 3D, and the layers the rest. Its
    velocities are combinations of `whole_rank` learned fields on the mesh.
    """

    def __init__(self, spec: PostureSpec, given: int, *, rngs: nnx.Rngs):
        width, rank, linear = spec.whole_width, spec.whole_rank, nnx.Linear
        self.inp = linear(given, width, rngs=rngs)
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")
        block = lambda: {
            "norm": nnx.LayerNorm(width, rngs=rngs),
            "up": linear(width, width, rngs=rngs),
            "down": linear(width, width, kernel_init=small, rngs=rngs),
        }
        self.blocks = nnx.Dict({f"{i:02d}": nnx.Dict(block()) for i in range(spec.whole_depth)})
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.factors = linear(width, 3 * rank, kernel_init=nnx.initializers.zeros, rngs=rngs)
        scale = nnx.initializers.normal(rank**-0.5)
        self.fields = nnx.Param(scale(rngs.params(), (spec.mesh2d.vertices, rank)))

    def __call__(self, given: Float[Array, "B I"]) -> Float[Array, "B V 3"]:
        x = self.inp(given)
        for _, block in sorted(self.blocks.items()):
            x = x + block["down"](jax.nn.gelu(block["up"](block["norm"](x))))
        factors = self.factors(jax.nn.gelu(self.norm(x))).reshape(len(x), -1, 3)
        return self.fields[...] @ factors


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
        features = spec.mesh2d.points * spec.mesh2d.point_width
        if spec.condition == "global":
            self.picture = nnx.Linear(features, width, rngs=rngs)
        if spec.whole_width:
            given = of_points * spec.mesh2d.markers + 2 * len(FREQUENCIES) + 3
            given += features if spec.condition == "global" else 0
            self.whole = Whole(spec, given, rngs=rngs)
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
        surface: Surface,
    ) -> Float[Array, "B V 3"]:
        """The velocity of a mesh, metres, float32.

        Args:
          mesh: the current one, metres, relative to the pelvis.
          share: s of each row.
          condition: of the first stage.
          box: of CropCamera.box_information, ours: where the person is in the photo.
          surface: of the coarse mesh.
        """
        kind = self.position[...].dtype
        # 1. What is common to all vertices: the step, the box, and the picture as a whole.
        angle = jnp.pi * share[:, None] * FREQUENCIES
        step = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1).astype(kind)
        common = self.step(step) + self.box(box.astype(kind))
        inputs, rest = [mesh], [step, box.astype(kind)]
        if self.spec.condition == "global":
            rest.append(condition.features.astype(kind))
            common = common + self.picture(rest[-1])
        else:
            inputs.append(condition.vertices)
        # 2. The tokens.
        tokens = jnp.concatenate(inputs, -1).astype(kind)
        velocity = jnp.zeros(mesh.shape, kind)
        if self.spec.layers:
            x = self.inp(tokens) + self.position[...] + common[:, None]
            for _, block in sorted(self.blocks.items()):
                x = block(x, surface)
            velocity = self.velocity(self.norm(x))
        # 3. All markers at once.
        if self.spec.whole_width:
            markers = tokens[:, surface.markers].reshape(len(mesh), -1)
            velocity = velocity + self.whole(jnp.concatenate([markers, *rest], -1))
        return velocity.astype(jnp.float32)
