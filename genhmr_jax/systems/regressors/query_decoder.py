"""The transformer decoder of HMR2.0 and TokenHMR: one learned query attends to the image.

The query is Linear(1, width) of a zero plus a position. Both are learned vectors, which could be
one; they are separate because checkpoints have both.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.sizes import check_sizes


@dataclasses.dataclass(frozen=True)
class QueryDecoderSpec:
    """Sizes of the decoder; the defaults are those of the published models."""

    context: int = 1280
    width: int = 1024
    layers: int = 6
    heads: int = 8
    head_dim: int = 64
    mlp: int = 1024

    def __post_init__(self) -> None:
        check_sizes(self, "context", "width", "layers", "heads", "head_dim", "mlp")


class QueryLayer(nnx.Module):
    """Self-attention, cross-attention to the image, and an MLP, each x + f(norm(x)).

    The epsilon of LayerNorm is 1e-5 here, not the ViT's 1e-6.
    """

    def __init__(self, spec: QueryDecoderSpec, *, rngs: nnx.Rngs):
        inner = spec.heads * spec.head_dim
        self.heads = spec.heads
        norm = lambda: nnx.LayerNorm(spec.width, epsilon=1e-5, rngs=rngs)
        no_bias = lambda i, o: nnx.Linear(i, o, use_bias=False, rngs=rngs)
        self.self_norm, self.cross_norm, self.mlp_norm = norm(), norm(), norm()
        self.self_qkv = no_bias(spec.width, 3 * inner)
        self.self_out = nnx.Linear(inner, spec.width, rngs=rngs)
        self.cross_q = no_bias(spec.width, inner)
        self.cross_kv = no_bias(spec.context, 2 * inner)
        self.cross_out = nnx.Linear(inner, spec.width, rngs=rngs)
        self.up = nnx.Linear(spec.width, spec.mlp, rngs=rngs)
        self.down = nnx.Linear(spec.mlp, spec.width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B Q C"], context: Float[Array, "B S E"]
    ) -> Float[Array, "B Q C"]:
        q, k, v = jnp.split(self.self_qkv(self.self_norm(x)), 3, -1)
        x = x + self.self_out(self._attend(q, k, v))
        k, v = jnp.split(self.cross_kv(context), 2, -1)
        x = x + self.cross_out(self._attend(self.cross_q(self.cross_norm(x)), k, v))
        return x + self.down(jax.nn.gelu(self.up(self.mlp_norm(x)), approximate=False))

    def _attend(
        self, q: Float[Array, "B Q I"], k: Float[Array, "B S I"], v: Float[Array, "B S I"]
    ) -> Float[Array, "B Q I"]:
        split = lambda t: t.reshape(*t.shape[:2], self.heads, -1)
        return attention(split(q), split(k), split(v)).reshape(q.shape)


class QueryDecoder(nnx.Module):
    """Image tokens (B, S, context) -> one vector (B, width) for each image."""

    def __init__(self, spec: QueryDecoderSpec, *, rngs: nnx.Rngs):
        self.query = nnx.Linear(1, spec.width, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (spec.width,)))
        self.layers = nnx.Dict(
            {f"layer_{i}": QueryLayer(spec, rngs=rngs) for i in range(spec.layers)}
        )

    def __call__(self, context: Float[Array, "B S E"]) -> Float[Array, "B C"]:
        dtype = self.position[...].dtype
        x = self.query(jnp.zeros((context.shape[0], 1, 1), dtype)) + self.position[...]
        for _, layer in sorted(self.layers.items()):
            x = layer(x, context.astype(dtype))
        return x[:, 0]
