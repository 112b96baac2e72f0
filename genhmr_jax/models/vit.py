"""The Vision Transformer of ViTPose and HMR2 (pretrained.md A1), as an image encoder with one feature map.

Patch convolution 16x16 with padding 2, learned positions whose class slot is added to every patch, pre-norm blocks, exact GELU,
LayerNorm eps 1e-6. For ViT-H: 256x192 px -> 16x12 patches of 1280 channels, 630,912,000 parameters.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

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

    def __call__(self, x: Float[Array, "B S C"]) -> Float[Array, "B S C"]:
        q, k, v = jnp.split(self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3 * self.heads, -1), 3, axis=2)
        x = x + self.proj(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))
        return x + self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))


class Vit(nnx.Module):
    """Images (B, H, W, 3), normalised with the ImageNet mean and deviation -> [map (B, h, w, C)]."""

    def __init__(self, spec: VitSpec, *, rngs: nnx.Rngs):
        self.spec, pad = spec, (spec.padding, spec.padding)
        self.patch = nnx.Conv(3, spec.width, (spec.patch, spec.patch), strides=(spec.patch, spec.patch), padding=(pad, pad), rngs=rngs)
        positions = spec.grid[0] * spec.grid[1] + 1
        self.position = nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), (positions, spec.width)))
        self.blocks = nnx.Dict({f"block_{i:02d}": VitBlock(spec, rngs=rngs) for i in range(spec.depth)})
        self.norm = nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        x = self.patch(images)
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1]) + self.position[...][1:] + self.position[...][:1]
        for i in range(self.spec.depth):
            x = self.blocks[f"block_{i:02d}"](x)
        return [self.norm(x).reshape(shape)]


def normalise(crops: Float[Array, "B 256 256 3"]) -> Float[Array, "B 256 192 3"]:
    """Square crops in 0..1 -> ViT input: ImageNet mean and deviation, side columns dropped (once, here)."""
    side = (crops.shape[2] - crops.shape[2] * 3 // 4) // 2
    return ((crops - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD))[:, :, side : crops.shape[2] - side]
