"""A transformer over time whose positions are seconds: any frame rate, and gaps, have a meaning.

Queries and keys are turned by angles that are proportional to their time (rotary positions, Su et
al., RoFormer, 2021), so that a score depends on the time between two frames and not on their
numbers. Periods are SHORTEST to LONGEST seconds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.rows import by_rows

SHORTEST, LONGEST = 0.1, 20.0
"""Seconds: two frames of 20 a second, and longer than any window."""


class TemporalBlock(nnx.Module):
    """Attention over the frames of a window and an MLP, with LayerNorm before both (pre-norm)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, *, rngs: nnx.Rngs):
        if width % (2 * heads):
            raise ValueError(f"width {width} is not a multiple of twice {heads} heads")
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")
        self.heads = heads
        self.norm_attention = nnx.LayerNorm(width, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, kernel_init=small, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(mlp_ratio * width, width, kernel_init=small, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T C"], times: Float[Array, "B T"], mask: Bool[Array, "B 1 T T"]
    ) -> Float[Array, "B T C"]:
        """Features of the frames.

        Args:
          x: features. times: seconds. mask: False where a frame must not attend to another.
        """
        batch, frames, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).reshape(batch, frames, 3, self.heads, -1)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        mixed = attention(turned(q, times), turned(k, times), v, mask)
        x = x + self.proj(mixed.reshape(batch, frames, width))
        return x + self.down(jax.nn.gelu(self.up(self.norm_mlp(x))))


class TemporalTransformer(nnx.Module):
    """Blocks over a window of frames, and a final LayerNorm.

    Args:
      causal: a frame depends on itself and those before it only.
    """

    def __init__(
        self, width: int, layers: int, heads: int, mlp_ratio: int, causal: bool, *, rngs: nnx.Rngs
    ):
        block = lambda: TemporalBlock(width, heads, mlp_ratio, rngs=rngs)
        self.blocks = nnx.Dict({f"block_{i:02d}": block() for i in range(layers)})
        self.norm, self.causal = nnx.LayerNorm(width, rngs=rngs), causal

    def __call__(
        self, x: Float[Array, "B T C"], times: Float[Array, "B T"], valid: Bool[Array, "B T"]
    ) -> Float[Array, "B T C"]:
        """Features of the frames; those of frames that are not valid have no meaning.

        Args:
          x: features of frames in the order of time. times: seconds, from any origin.
          valid: False for padding, which changes no other frame.
        """
        mask = visible(times, valid, self.causal)
        for _, block in sorted(self.blocks.items()):
            x = by_rows(block(x, times, mask))
        return self.norm(x)


def visible(
    times: Float[Array, "B T"], valid: Bool[Array, "B T"], causal: bool
) -> Bool[Array, "B 1 T T"]:
    """Which frame may attend to which. Every frame attends to itself, so that padding is finite."""
    frames = valid.shape[1]
    mask = jnp.broadcast_to(valid[:, None, :], (valid.shape[0], frames, frames))
    if causal:
        mask = mask & (times[:, None, :] <= times[:, :, None])
    return (mask | jnp.eye(frames, dtype=bool))[:, None]


def turned(x: Float[Array, "B T N H"], times: Float[Array, "B T"]) -> Float[Array, "B T N H"]:
    """Queries or keys, turned by their times: pairs of numbers are complex, times exp(i w t)."""
    half = x.shape[-1] // 2
    periods = np.geomspace(SHORTEST, LONGEST, half)
    phase = times.astype(jnp.float32)[..., None, None] * (2 * np.pi / periods).astype(np.float32)
    cos, sin = jnp.cos(phase).astype(x.dtype), jnp.sin(phase).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
