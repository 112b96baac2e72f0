"""The Vision Transformer of ViTPose and HMR2, as an image encoder with one feature map.

Patch convolution 16x16 with padding 2, learned positions whose class slot is added to every patch, pre-norm blocks, exact GELU,
LayerNorm eps 1e-6. For ViT-H: 256x192 px -> 16x12 patches of 1280 channels, 630,912,000 parameters.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.models.remat import checkpointed
from genhmr_jax.models.rows import by_rows

SIZES = {"s": (384, 12, 12), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}  # width, depth, heads
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class VitSpec:
    """Sizes of a ViT; `image` is (height, width) in px."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    image: tuple[int, int] = (256, 192)
    patch: int = 16
    padding: int = 2

    @staticmethod
    def named(name: str, **overrides) -> "VitSpec":
        """ViT-S/B/L/H by its letter. Raises ValueError for another name."""
        if name not in SIZES:
            raise ValueError(f"unknown ViT {name!r}: choose among {', '.join(SIZES)}")
        width, depth, heads = SIZES[name]
        return VitSpec(width, depth, heads, **overrides)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple((n + 2 * self.padding - self.patch) // self.patch + 1 for n in self.image)


class VitBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, spec: VitSpec, *, rngs: nnx.Rngs):
        self.heads = spec.heads
        self.norm1, self.norm2 = nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs), nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs)
        self.qkv, self.proj = nnx.Linear(spec.width, 3 * spec.width, rngs=rngs), nnx.Linear(spec.width, spec.width, rngs=rngs)
        self.fc1, self.fc2 = nnx.Linear(spec.width, 4 * spec.width, rngs=rngs), nnx.Linear(4 * spec.width, spec.width, rngs=rngs)

    def __call__(self, x: Float[Array, "B S C"], drop_path: Float[Array, "B 2"] | None = None) -> Float[Array, "B S C"]:
        """`drop_path`: what each sample's attention and MLP branch are multiplied with."""
        keep = lambda branch, i: branch if drop_path is None else (branch * drop_path[:, i, None, None]).astype(branch.dtype)  # noqa: E731
        q, k, v = jnp.split(self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3 * self.heads, -1), 3, axis=2)
        x = x + keep(self.proj(jax.nn.dot_product_attention(q, k, v).reshape(x.shape)), 0)
        return x + keep(self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False)), 1)


class Vit(nnx.Module):
    """Images (B, H, W, 3), normalised with the ImageNet mean and deviation -> [map (B, h, w, C)].

    `blocks` is one VitBlock whose arrays have a leading axis of `depth`, one entry a layer. A scan runs over it: the program has the size
    of one layer, and under FSDP one layer at a time is gathered.
    """

    def __init__(self, spec: VitSpec, *, rngs: nnx.Rngs):
        self.spec, pad = spec, (spec.padding, spec.padding)
        self.patch = nnx.Conv(3, spec.width, (spec.patch, spec.patch), strides=(spec.patch, spec.patch), padding=(pad, pad), rngs=rngs)
        positions = spec.grid[0] * spec.grid[1] + 1
        self.position = nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), (positions, spec.width)))
        block = lambda key: nnx.split(VitBlock(spec, rngs=nnx.Rngs(key)))  # noqa: E731
        graph, _ = nnx.eval_shape(lambda: block(0))
        self.blocks = nnx.merge(graph, jax.vmap(lambda key: block(key)[1])(jax.random.split(rngs.params(), spec.depth)))
        self.norm = nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs)

    def __call__(
        self, images: Float[Array, "B H W 3"], drop_path: Float[Array, "B depth 2"] | None = None, remat: str = "none"
    ) -> list[Float[Array, "B h w C"]]:
        """
        Args:
          drop_path: from `drop_path_factors`, in training.
          remat: "blocks" keeps each layer's input alone for the backward pass.

        Raises:
          ValueError: unknown remat.
        """
        x = by_rows(self.patch(by_rows(images.astype(self.patch.kernel[...].dtype))))
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1]) + self.position[...][1:] + self.position[...][:1]
        graph, layers = nnx.split(self.blocks)
        factors = None if drop_path is None else jnp.moveaxis(drop_path, 1, 0)

        def layer(x: jax.Array, arrays: tuple) -> tuple[jax.Array, None]:
            state, factor = arrays
            return by_rows(nnx.merge(graph, state)(by_rows(x), factor)), None

        x, _ = jax.lax.scan(checkpointed(layer, remat, scanned=True), x, (layers, factors))
        return [self.norm(x).reshape(shape)]


def drop_path_factors(keys: Array, depth: int, rate: float) -> Float[Array, "B depth 2"]:
    """What stochastic depth (Huang et al. 2016) multiplies the branches of a ViT with: 0 (dropped) or 1 / (share that is kept).

    The share that is dropped grows linearly from 0 in the first layer to `rate` in the last (timm's rule).

    Args:
      keys: (B,), one a sample: what a sample gets does not depend on the rest of the batch.

    Raises:
      ValueError: a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path is {rate}: at least 0 and less than 1 is needed")
    keep = 1.0 - jnp.linspace(0.0, rate, depth)[:, None]
    return jax.vmap(lambda key: jax.random.bernoulli(key, keep, (depth, 2)) / keep)(keys)


def normalise(crops: Float[Array, "B 256 256 3"]) -> Float[Array, "B 256 192 3"]:
    """Square crops in 0..1 -> ViT input: ImageNet mean and deviation, side columns dropped (once, here)."""
    side = (crops.shape[2] - crops.shape[2] * 3 // 4) // 2
    return ((crops - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD))[:, :, side : crops.shape[2] - side]
