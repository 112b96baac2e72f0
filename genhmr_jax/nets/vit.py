"""Vision Transformers as image encoders with one feature map: ViTPose's and HMR2's, and DINOv2's.

Pre-norm blocks, exact GELU, LayerNorm eps 1e-6.

* ViTPose, HMR2, TokenHMR (`vit_s` .. `vit_h`): patch convolution 16x16 with padding 2; learned positions whose class slot is added to
  every patch. For ViT-H: 256x192 px -> 16x12 patches of 1280 channels, 630,912,000 parameters.
* DINOv2 (`dinov2_s` .. `dinov2_l`; Oquab et al. 2023, without registers): patches of 14x14; a class token beside them, which is not in the
  map; a learned scale of what each branch adds. 252x196 px -> 18x14 patches: 2 px of a crop above and below are not seen; no resizing.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.rows import by_rows

SIZES = {"s": (384, 12, 12), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}  # width, depth, heads
DINOV2_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}  # a giant has another MLP (SwiGLU)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class VitSpec:
    """Sizes of a ViT; `image` is (height, width) in px.

    Attributes:
      class_token: a token beside the patches, with the first position; without it that position is added to every patch.
      layer_scale: what a branch adds is multiplied by a learned number for each channel (Touvron et al. 2021, CaiT).
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    image: tuple[int, int] = (256, 192)
    patch: int = 16
    padding: int = 2
    class_token: bool = False
    layer_scale: bool = False

    @staticmethod
    def named(name: str, **overrides) -> "VitSpec":
        """An encoder by its name ("vit_h", "dinov2_b"), or one of ViTPose's by its letter. Raises ValueError for another name."""
        family, _, size = name.rpartition("_")
        if family in ("", "vit") and size in SIZES:
            return VitSpec(*SIZES[size], **overrides)
        if family == "dinov2" and size in DINOV2_SIZES:
            form = {"image": (252, 196), "patch": 14, "padding": 0, "class_token": True, "layer_scale": True}
            return VitSpec(*DINOV2_SIZES[size], **form | overrides)
        names = [*SIZES, *(f"vit_{size}" for size in SIZES), *(f"dinov2_{size}" for size in DINOV2_SIZES)]
        raise ValueError(f"unknown ViT {name!r}: choose among {', '.join(names)}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple((n + 2 * self.padding - self.patch) // self.patch + 1 for n in self.image)


def is_vit(encoder: str) -> bool:
    """Whether a config's encoder is one of these, which are part of the model and trained with it."""
    return encoder.startswith(("vit_", "dinov2_"))


class LayerScale(nnx.Module):
    """x times a learned number for each channel."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.full(width, 1e-5))  # as DINOv2 was trained: a deep network starts near the identity

    def __call__(self, x: Float[Array, "*b C"]) -> Float[Array, "*b C"]:
        return x * self.scale[...]


class VitBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, spec: VitSpec, *, rngs: nnx.Rngs):
        self.heads = spec.heads
        self.norm1, self.norm2 = nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs), nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs)
        self.qkv, self.proj = nnx.Linear(spec.width, 3 * spec.width, rngs=rngs), nnx.Linear(spec.width, spec.width, rngs=rngs)
        self.fc1, self.fc2 = nnx.Linear(spec.width, 4 * spec.width, rngs=rngs), nnx.Linear(4 * spec.width, spec.width, rngs=rngs)
        self.layer_scale = spec.layer_scale
        if spec.layer_scale:
            self.scale1, self.scale2 = LayerScale(spec.width), LayerScale(spec.width)

    def __call__(self, x: Float[Array, "B S C"], drop_path: Float[Array, "B 2"] | None = None) -> Float[Array, "B S C"]:
        """`drop_path`: what each sample's attention and MLP branch are multiplied with."""
        q, k, v = jnp.split(self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3 * self.heads, -1), 3, axis=2)
        branch = self.proj(attention(q, k, v).reshape(x.shape))
        x = x + self._kept(self.scale1(branch) if self.layer_scale else branch, drop_path, 0)
        branch = self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))
        return x + self._kept(self.scale2(branch) if self.layer_scale else branch, drop_path, 1)

    def _kept(self, branch: Float[Array, "B S C"], drop_path: Float[Array, "B 2"] | None, i: int) -> Float[Array, "B S C"]:
        return branch if drop_path is None else (branch * drop_path[:, i, None, None]).astype(branch.dtype)


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
        if spec.class_token:
            self.class_token = nnx.Param(nnx.initializers.normal(1e-6)(rngs.params(), (spec.width,)))
        block = lambda key: nnx.split(VitBlock(spec, rngs=nnx.Rngs(key)))  # noqa: E731
        graph, _ = nnx.eval_shape(lambda: block(0))
        self.blocks = nnx.merge(graph, jax.vmap(lambda key: block(key)[1])(jax.random.split(rngs.params(), spec.depth)))
        self.norm = nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "B H W 3"],
        drop_path: Float[Array, "B depth 2"] | None = None,
        remat: str = "none",
        still: int = 0,
    ) -> list[Float[Array, "B h w C"]]:
        """
        Args:
          drop_path: from `drop_path_factors`, in training.
          remat: "blocks" keeps each layer's input alone for the backward pass.
          still: no gradient goes into the first so many layers, nor to what comes before them: nothing of them is kept or computed again.

        Raises:
          ValueError: unknown remat.
        """
        x = by_rows(self.patch(by_rows(images.astype(self.patch.kernel[...].dtype))))
        shape = x.shape
        x = self._tokens(x.reshape(shape[0], -1, shape[-1]))
        graph, layers = nnx.split(self.blocks)
        factors = None if drop_path is None else jnp.moveaxis(drop_path, 1, 0)

        def layer(x: jax.Array, arrays: tuple) -> tuple[jax.Array, None]:
            state, factor = arrays
            return by_rows(nnx.merge(graph, state)(by_rows(x), factor)), None

        arrays = (layers, factors)
        if still:
            x, _ = jax.lax.scan(layer, x, jax.tree.map(lambda a: a[:still], arrays))
            x, arrays = jax.lax.stop_gradient(x), jax.tree.map(lambda a: a[still:], arrays)
        x, _ = jax.lax.scan(checkpointed(layer, remat, scanned=True), x, arrays)
        return [self.norm(x[:, 1:] if self.spec.class_token else x).reshape(shape)]

    def _tokens(self, patches: Float[Array, "B P C"]) -> Float[Array, "B S C"]:
        """The patches, each with its position, after the class token if there is one."""
        position = self.position[...]
        if not self.spec.class_token:
            return patches + position[1:] + position[:1]
        first = jnp.broadcast_to(self.class_token[...] + position[0], (patches.shape[0], 1, patches.shape[-1]))
        return jnp.concatenate([first, patches + position[1:]], 1)


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


def normalise(crops: Float[Array, "B 256 256 3"], spec: VitSpec) -> Float[Array, "B H W 3"]:
    """Square crops in 0..1 -> ViT input: ImageNet mean and deviation, and the middle of the crop that the ViT sees (cut once, here)."""
    top, left = ((have - want) // 2 for have, want in zip(crops.shape[1:3], spec.image, strict=True))
    whole = (crops - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
    return whole[:, top : top + spec.image[0], left : left + spec.image[1]]
