"""Vision Transformers as image encoders with one feature map: ViTPose's and HMR2's, and DINOv2's.

Pre-norm blocks, exact GELU, LayerNorm eps 1e-6.

* ViTPose, HMR2, TokenHMR (`vit_s` .. `vit_h`): a patch convolution of 16x16 with padding 2; learned
  positions, and that of the class token is added to every patch. For ViT-H: 256x192 px -> 16x12
  patches of 1280 channels, 630,912,000 parameters.
* DINOv2 (`dinov2_s` .. `dinov2_l`; Oquab et al. 2023, without registers): patches of 14x14; a class
  token, which is not part of the map; a learned scale of the output of each branch. 252x196 px ->
  18x14 patches: the crop is not resized, and 2 px at its top and bottom are cut off.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.remat import checkpointed, kept
from genhmr_jax.nets.rows import by_rows

# Width, depth, heads. DINOv2's giant is not supported: its MLP is another one (SwiGLU).
SIZES = {"s": (384, 12, 12), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
DINOV2_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class VitSpec:
    """Sizes of a ViT; `image` is (height, width) in px.

    Attributes:
      class_token: a token before the patches, with the first position. Without it, that position
        is added to every patch.
      layer_scale: the output of a branch is multiplied by a learned number for each channel
        (Touvron et al. 2021, CaiT).
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
        """The sizes of an encoder by its name ("vit_h", "dinov2_b"), or of a ViTPose by its letter.

        Raises:
          ValueError: another name.
        """
        family, _, size = name.rpartition("_")
        if family in ("", "vit") and size in SIZES:
            return VitSpec(*SIZES[size], **overrides)
        if family == "dinov2" and size in DINOV2_SIZES:
            form = {"image": (252, 196), "patch": 14, "padding": 0}
            form |= {"class_token": True, "layer_scale": True}
            return VitSpec(*DINOV2_SIZES[size], **form | overrides)
        names = [*SIZES, *(f"vit_{s}" for s in SIZES), *(f"dinov2_{s}" for s in DINOV2_SIZES)]
        raise ValueError(f"unknown ViT {name!r}: choose among {', '.join(names)}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple((n + 2 * self.padding - self.patch) // self.patch + 1 for n in self.image)


def is_vit(encoder: str) -> bool:
    """Whether the encoder of a config is a ViT, which is part of the model and trained with it."""
    return encoder.startswith(("vit_", "dinov2_"))


class LayerScale(nnx.Module):
    """x times a learned number for each channel."""

    def __init__(self, width: int):
        # The initial value of DINOv2: a deep network is initially close to the identity.
        self.scale = nnx.Param(jnp.full(width, 1e-5))

    def __call__(self, x: Float[Array, "*b C"]) -> Float[Array, "*b C"]:
        return x * self.scale[...]


class VitBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, spec: VitSpec, *, rngs: nnx.Rngs):
        self.heads, width = spec.heads, spec.width
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.fc1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.fc2 = nnx.Linear(4 * width, width, rngs=rngs)
        self.layer_scale = spec.layer_scale
        if spec.layer_scale:
            self.scale1, self.scale2 = LayerScale(width), LayerScale(width)

    def __call__(
        self, x: Float[Array, "B S C"], drop_path: Float[Array, "B 2"] | None = None
    ) -> Float[Array, "B S C"]:
        """One layer. `drop_path` are factors of each sample's attention and MLP branch."""
        qkv = self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3 * self.heads, -1)
        q, k, v = jnp.split(qkv, 3, axis=2)
        branch = self.proj(kept(attention(q, k, v).reshape(x.shape)))
        x = x + self._kept(self.scale1(branch) if self.layer_scale else branch, drop_path, 0)
        branch = self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))
        return x + self._kept(self.scale2(branch) if self.layer_scale else branch, drop_path, 1)

    def _kept(
        self, branch: Float[Array, "B S C"], drop_path: Float[Array, "B 2"] | None, i: int
    ) -> Float[Array, "B S C"]:
        if drop_path is None:
            return branch
        return (branch * drop_path[:, i, None, None]).astype(branch.dtype)


class Vit(nnx.Module):
    """Images (B, H, W, 3), normalised with the ImageNet mean and deviation -> [map (B, h, w, C)].

    `blocks` is one VitBlock whose arrays have a leading axis of `depth`, one entry for each layer.
    A scan runs over it: the program has the size of one layer, and under FSDP one layer at a time
    is gathered.
    """

    def __init__(self, spec: VitSpec, *, rngs: nnx.Rngs):
        self.spec, pad, patch = spec, (spec.padding, spec.padding), (spec.patch, spec.patch)
        self.patch = nnx.Conv(3, spec.width, patch, strides=patch, padding=(pad, pad), rngs=rngs)
        positions = (spec.grid[0] * spec.grid[1] + 1, spec.width)
        normal = nnx.initializers.truncated_normal(0.02)
        self.position = nnx.Param(normal(rngs.params(), positions))
        if spec.class_token:
            normal = nnx.initializers.normal(1e-6)
            self.class_token = nnx.Param(normal(rngs.params(), (spec.width,)))
        block = lambda key: nnx.split(VitBlock(spec, rngs=nnx.Rngs(key)))
        graph, _ = nnx.eval_shape(lambda: block(0))
        keys = jax.random.split(rngs.params(), spec.depth)
        self.blocks = nnx.merge(graph, jax.vmap(lambda key: block(key)[1])(keys))
        self.norm = nnx.LayerNorm(spec.width, epsilon=1e-6, rngs=rngs)

    @jax.named_scope("vit")
    def __call__(
        self,
        images: Float[Array, "B H W 3"],
        drop_path: Float[Array, "B depth 2"] | None = None,
        remat: str = "none",
        frozen_layers: int = 0,
    ) -> list[Float[Array, "B h w C"]]:
        """The feature map, in a list of one.

        Args:
          images: of the size `spec.image`.
          drop_path: from `drop_path_factors`, in training.
          remat: what is stored for the backward pass: "blocks" for each layer's input alone,
            "products" for the results of its products too (see nets/remat.py).
          frozen_layers: number of first layers without gradient. Nothing of them, nor of the patch
            embedding, is stored or computed again.

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
        if frozen_layers:
            x, _ = jax.lax.scan(layer, x, jax.tree.map(lambda a: a[:frozen_layers], arrays))
            x, arrays = jax.lax.stop_gradient(x), jax.tree.map(lambda a: a[frozen_layers:], arrays)
        x, _ = jax.lax.scan(checkpointed(layer, remat, scanned=True), x, arrays)
        return [self.norm(x[:, 1:] if self.spec.class_token else x).reshape(shape)]

    def _tokens(self, patches: Float[Array, "B P C"]) -> Float[Array, "B S C"]:
        """The patches, each with its position, after the class token if there is one."""
        position = self.position[...]
        if not self.spec.class_token:
            return patches + position[1:] + position[:1]
        first = jnp.broadcast_to(
            self.class_token[...] + position[0], (patches.shape[0], 1, patches.shape[-1])
        )
        return jnp.concatenate([first, patches + position[1:]], 1)


def drop_path_factors(keys: Array, depth: int, rate: float) -> Float[Array, "B depth 2"]:
    """Factors of a ViT's branches in stochastic depth (Huang et al. 2016).

    A factor is 0 (dropped) or 1 / (share that is kept). The dropped share grows linearly from 0 in
    the first layer to `rate` in the last (timm's rule).

    Args:
      keys: (B,), one for each sample, so that a sample does not depend on the rest of the batch.
      depth: number of layers.
      rate: of the last layer.

    Raises:
      ValueError: a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path is {rate}: at least 0 and less than 1 is needed")
    keep = 1.0 - jnp.linspace(0.0, rate, depth)[:, None]
    return jax.vmap(lambda key: jax.random.bernoulli(key, keep, (depth, 2)) / keep)(keys)


def normalise(crops: Float[Array, "B 256 256 3"], spec: VitSpec) -> Float[Array, "B H W 3"]:
    """Convert square crops in 0..1 to the input of a ViT.

    They are normalised with the ImageNet mean and deviation, and cut to the middle of size
    `spec.image`.
    """
    top = (crops.shape[1] - spec.image[0]) // 2
    left = (crops.shape[2] - spec.image[1]) // 2
    whole = (crops - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
    return whole[:, top : top + spec.image[0], left : left + spec.image[1]]
