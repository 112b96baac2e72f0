"""Regression of shape and camera from the context and the coarsest feature map."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.attention import attention


class ShapeCameraHead(nnx.Module):
    """Cross-attention of two learned queries -> betas (10) and weak camera (s, tx, ty).

    s is exp of an output, so that it is positive. Both results are float32, whatever the type of
    the parameters.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.queries = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (2, width)))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.key_value = nnx.Linear(width, 2 * width, rngs=rngs)
        self.up = nnx.Linear(width, 2 * width, rngs=rngs)
        self.betas = nnx.Linear(2 * width, 10, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.camera = nnx.Linear(2 * width, 3, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self,
        context: Float[Array, "B S C"],
        coarse: Float[Array, "B H W C"] | None = None,
        image_weight: Float[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B 10"], Float[Array, "B 3"]]:
        """Regress betas and camera.

        Args:
          context: context tokens.
          coarse: the coarsest map of the image, if there is one.
          image_weight: 0 where the image of a row must be ignored (default: nowhere).
        """
        tokens, batch = context, context.shape[0]
        visible = jnp.ones(context.shape[:2], bool)
        if coarse is not None:
            patches = coarse.reshape(batch, -1, coarse.shape[-1])
            tokens = jnp.concatenate([tokens, patches], 1)
            weight = jnp.ones(batch) if image_weight is None else image_weight
            has_image = jnp.broadcast_to(weight[:, None] > 0, patches.shape[:2])
            visible = jnp.concatenate([visible, has_image], 1)
        key_value = self.key_value(self.norm(tokens))
        key_value = key_value.reshape(batch, -1, 2 * self.heads, tokens.shape[-1] // self.heads)
        k, v = jnp.split(key_value, 2, axis=2)
        q = jnp.broadcast_to(self.queries[...], (batch, *self.queries.shape))
        q = q.reshape(batch, 2, self.heads, -1)
        x = attention(q, k, v, visible[:, None, None, :]).reshape(batch, 2, -1)
        x = jax.nn.gelu(self.up(x)).astype(jnp.float32)  # bfloat16 would round the depth to 0.4 %
        camera = self.camera(x[:, 1])
        return self.betas(x[:, 0]), jnp.concatenate([jnp.exp(camera[:, :1]), camera[:, 1:]], -1)
