"""Multi-scale deformable attention (Deformable DETR, Zhu et al. 2021, eq. 3), in plain JAX.

Each query looks at a few points of each feature map: around its reference point, at learned offsets, with learned weights. The
values of the maps do not depend on the query, so they are computed once per image (`values`) and sampled in every decoding step.

Places are float32 whatever the type of the rest: bfloat16 has 8 bits, a step of a third of a pixel in a map of 64.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

DENSE_CELLS = 128
"""Maps up to this size are attended to as a whole: on 2 CPU cores 8x8 took 0.6 of the gather's time, 16x16 took 1.6 times as long."""


def bilinear_sample(value: Float[Array, "B H W N D"], points: Float[Array, "B Q N P 2"]) -> Float[Array, "B Q N P D"]:
    """Samples each of N heads' maps at its own points (x, y in [0, 1] over the map, pixel centres at (i + 0.5)/size).

    Bilinear, zero outside the map: torch's grid_sample(align_corners=False, padding_mode="zeros"). `points` are float32; the four
    corners are added up in float32, and the sum has the type of `value`.
    """
    batch, height, width, heads, dim = value.shape
    position = points * jnp.array([width, height]) - 0.5
    low = jnp.floor(position)
    fraction = position - low
    flat = value.transpose(0, 3, 1, 2, 4).reshape(batch, heads, height * width, dim)
    total = 0.0
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = low[..., 0] + dx, low[..., 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            weight = jnp.where(dx, fraction[..., 0], 1 - fraction[..., 0]) * jnp.where(dy, fraction[..., 1], 1 - fraction[..., 1])
            index = jnp.clip(y, 0, height - 1).astype(jnp.int32) * width + jnp.clip(x, 0, width - 1).astype(jnp.int32)
            index = index.transpose(0, 2, 1, 3).reshape(batch, heads, -1, 1)  # (B, N, Q*P, 1)
            corner = jnp.take_along_axis(flat, index, 2).reshape(batch, heads, *points.shape[1:2], -1, dim).transpose(0, 2, 1, 3, 4)
            total = total + corner * (weight * inside)[..., None]
    return total.astype(value.dtype)


def attend(value: Float[Array, "B H W N D"], points: Float[Array, "B Q N P 2"], weight: Float[Array, "B Q N P"]) -> Float[Array, "B Q N D"]:
    """The weighted sum of what `bilinear_sample` finds at each head's points, in float32.

    On a small map it is one product with all its cells, most of whose factors are 0: no gather forward, no scatter backward.
    """
    height, width = value.shape[1:3]
    if height * width > DENSE_CELLS:
        return jnp.sum(bilinear_sample(value, points) * weight[..., None], 3)
    position = points * jnp.array([width, height]) - 0.5
    near = lambda x, size: jax.nn.relu(1 - jnp.abs(x[..., None] - jnp.arange(size)))  # noqa: E731
    columns, rows = near(position[..., 0], width), near(position[..., 1], height) * weight[..., None]
    cells = sum(rows[:, :, :, p, :, None] * columns[:, :, :, p, None] for p in range(points.shape[3]))
    exact = jax.lax.Precision.HIGHEST  # float32 also where its products are bfloat16's by default
    return jnp.einsum("bqnyx,byxnd->bqnd", cells.astype(value.dtype), value, precision=exact).astype(jnp.float32)


class DeformableAttention(nnx.Module):
    """Queries (B, Q, C) attend to `levels` maps of C channels around reference points (B, Q, 2) in [0, 1]."""

    def __init__(self, width: int, heads: int, levels: int, points: int, *, rngs: nnx.Rngs):
        self.width, self.heads, self.levels, self.points = width, heads, levels, points
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.offset = nnx.Linear(width, heads * levels * points * 2, kernel_init=nnx.initializers.zeros, rngs=rngs)
        # Heads start out looking in different directions, points at growing distance (the paper's initialisation).
        angle = 2 * np.pi * np.arange(heads) / heads
        direction = np.stack([np.cos(angle), np.sin(angle)], -1)
        direction /= np.abs(direction).max(-1, keepdims=True)
        start = direction[:, None, None] * (1 + np.arange(points))[None, None, :, None] * np.ones((1, levels, 1, 1))
        self.offset.bias.set_value(jnp.asarray(start.reshape(-1), jnp.float32))
        self.weight = nnx.Linear(width, heads * levels * points, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def values(self, maps: list[Float[Array, "B H W C"]]) -> list[Float[Array, "B H W N D"]]:
        """The maps as this layer reads them; depends on the image only."""
        return [self.value(m).reshape(*m.shape[:3], self.heads, -1) for m in maps]

    def __call__(
        self, query: Float[Array, "B Q C"], reference: Float[Array, "B Q 2"], values: list[Float[Array, "B H W N D"]]
    ) -> Float[Array, "B Q C"]:
        shape = (*query.shape[:2], self.heads, self.levels, self.points)
        offset = self.offset(query).reshape(*shape, 2).astype(jnp.float32)
        weight = jax.nn.softmax(self.weight(query).reshape(*shape[:3], -1).astype(jnp.float32)).reshape(shape)
        total = 0.0
        for level, value in enumerate(values):
            size = jnp.array([value.shape[2], value.shape[1]])
            points = reference[:, :, None, None] + offset[:, :, :, level] / size
            total = total + attend(value, points, weight[:, :, :, level])
        return self.out(total.reshape(query.shape).astype(query.dtype))
