"""The network of GenHMR: image and 2D pose -> context; context and tokens -> logits.

Pure functions of (model, arrays). The model is an nnx module that is merged from a graph definition
and a plain dict of arrays. It holds no random state and no config object.

It computes in the type of its parameters (float32 or bfloat16), to which inputs are cast on entry.
The inputs of a loss (logits, betas and camera) are float32.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.core.masked_transformer import MaskedTransformer
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.nets.heads import ShapeCameraHead
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.vit import Vit, VitSpec, normalise
from genhmr_jax.systems.genhmr.spec import GenHmrSpec

KEYPOINT3D_SCALE = 0.3
"""Metres: keypoints in 3D are divided by this, about their standard deviation."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Encoded:
    """The encoded inputs of B people; computed once, before sampling.

    Attributes:
      context: (B, S, C) context tokens.
      image_values: for each layer of the transformer, see MaskedTransformer.image_values; None
        without an image.
      image_weight: (B,) 0 where the image of a row is ignored.
      betas: (B, 10).
      weak_camera: (B, 3).
    """

    context: jax.Array
    image_values: list[list[jax.Array]] | None
    image_weight: jax.Array | None
    betas: jax.Array
    weak_camera: jax.Array


class ContextEncoder(nnx.Module):
    """2D pose and box information -> context tokens, in the type of the parameters.

    A keypoint is x and y in crop coordinates [-1, 1] and its confidence. With `spec.keypoints3d`
    inputs are also the keypoints in 3D (metres from mid-hip; all zero: not known) and a flag that
    is 1 where they are known.
    """

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec, width, k = spec, spec.transformer.width, spec.num_keypoints
        self.tokens = spec.context_tokens if k else 1
        size_in = 3 * k + 3 + (3 * k + 1 if spec.keypoints3d else 0)
        inner, size_out = spec.context_width if k else width, self.tokens * width
        self.mlp = ResidualMlp(size_in, inner, spec.context_depth, size_out, rngs=rngs)
        if spec.box_token:
            self.box_alone = nnx.Linear(3, width, rngs=rngs)

    def __call__(
        self,
        keypoints: Float[Array, "B K 3"] | None,
        box: Float[Array, "B 3"],
        keypoints3d: Float[Array, "B K 3"] | None = None,
    ) -> Float[Array, "B S C"]:
        context = self._mixed(keypoints, box, keypoints3d)
        if not self.spec.box_token:
            return context
        return jnp.concatenate([context, self.box_alone(box.astype(context.dtype))[:, None]], 1)

    def _mixed(
        self,
        keypoints: Float[Array, "B K 3"] | None,
        box: Float[Array, "B 3"],
        keypoints3d: Float[Array, "B K 3"] | None,
    ) -> Float[Array, "B S C"]:
        batch = box.shape[0]
        if not self.spec.num_keypoints:
            return self.mlp(box).reshape(batch, self.tokens, -1)
        parts = [keypoints.reshape(batch, -1), box]
        if self.spec.keypoints3d:
            lifted = jnp.zeros(keypoints.shape) if keypoints3d is None else keypoints3d
            lifted = lifted / KEYPOINT3D_SCALE
            is_known = jnp.any(lifted != 0, (1, 2))[:, None].astype(lifted.dtype)
            parts += [lifted.reshape(batch, -1), is_known]
        return self.mlp(jnp.concatenate(parts, -1)).reshape(batch, self.tokens, -1)


class GenHmr(nnx.Module):
    """The network of stage 2, without the frozen tokenizer of stage 1."""

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        width, heads = spec.transformer.width, spec.transformer.heads
        self.context = ContextEncoder(spec, rngs=rngs)
        if spec.trains_encoder:
            self.encoder = Vit(VitSpec.named(spec.encoder), rngs=rngs)
        channels = spec.encoder_channels
        if channels and spec.pyramid == "project":
            self.pyramid = ProjectLevels(channels, width, rngs=rngs)
        elif channels:
            self.pyramid = SimplePyramid(channels[-1], width, spec.pyramid_scales, rngs=rngs)
        t = spec.tokenizer
        sizes = (t.length, t.codebook_size, t.code_dim)
        self.transformer = MaskedTransformer(spec.transformer, *sizes, rngs=rngs)
        self.head = ShapeCameraHead(width, heads, rngs=rngs)

    def encode(
        self,
        keypoints: Float[Array, "B K 3"] | None,
        box: Float[Array, "B 3"],
        maps: list[Float[Array, "B H W _"]] | None = None,
        image_weight: Float[Array, "B"] | None = None,
        images: Float[Array, "B 256 256 3"] | None = None,
        *,
        keypoints3d: Float[Array, "B K 3"] | None = None,
        drop_path: Float[Array, "B depth 2"] | None = None,
        remat: str = "none",
        frozen_layers: int = 0,
    ) -> Encoded:
        """Encode the inputs, once before sampling.

        Args:
          keypoints: in crop coordinates, of `normalize_keypoints`; confidence 0 where not detected.
          box: CropCamera.box_information.
          maps: the image encoder's maps, finest first, or None without an image.
          image_weight: 0 where the image of a row must be ignored.
          images: crops in 0..1, in place of the maps, for an encoder that is part of the model.
          keypoints3d: metres from mid-hip, x right, y down, z away from the camera; all zero, or
            None: not known. Used by a model with `spec.keypoints3d`.
          drop_path: `vit.drop_path_factors`, in the training of such an encoder.
          remat: what is stored for the backward pass (nets/remat.py): with "blocks" only the inputs
            of each layer of that encoder, and the inputs and outputs of the pyramid; with
            "products" also the results of their products. The transformer stores the inputs of its
            layers with both.
          frozen_layers: number of first layers of that encoder without gradient, see `Vit`.

        Raises:
          ValueError: unknown remat.
        """
        # 1. The image: maps of the encoder, then of the pyramid, then values of the transformer.
        if images is not None:
            pixels = normalise(images, self.encoder.spec)
            maps = self.encoder(pixels, drop_path, remat, frozen_layers)
        levels, coarsest, values = None, None, None
        if maps is not None:
            with jax.named_scope("pyramid"):
                levels = checkpointed(lambda maps: self.pyramid(maps), remat)(maps)
            coarsest = levels[-1]
            values = self.transformer.image_values(levels, _of_transformer(remat))
            image_weight = jnp.ones(box.shape[0]) if image_weight is None else image_weight
        # 2. The 2D pose and the box; then shape and camera from both.
        context = self.context(keypoints, box, keypoints3d)
        betas, weak = self.head(context, coarsest, image_weight)
        return Encoded(context, values, image_weight, betas, weak)

    def logits(
        self,
        tokens: Int[Array, "B L"],
        codes: Float[Array, "N D+1"],
        encoded: Encoded,
        *,
        remat: str = "none",
    ) -> Float[Array, "B L N"]:
        """Logits of p(token | visible tokens, image, 2D pose), float32.

        Args:
          tokens: ids; N where masked.
          codes: of `MaskedTransformer.codes`.
          encoded: of `encode`.
          remat: see `encode`.
        """
        context, values, weight = encoded.context, encoded.image_values, encoded.image_weight
        with jax.named_scope("transformer"):
            return self.transformer(tokens, codes, context, values, weight, _of_transformer(remat))


def _of_transformer(remat: str) -> str:
    """The choice for the transformer, which has no "products"."""
    return "blocks" if remat == "products" else remat


@functools.lru_cache(maxsize=16)
def graphs(spec: GenHmrSpec) -> tuple[nnx.GraphDef, nnx.GraphDef, dict[str, Any]]:
    """The graphs of GenHmr and PoseTokenizer, and the shapes of all parameters, without arrays.

    The shapes are under "genhmr", "tokenizer" and "codebook". The result is cached, because tracing
    the initialisation takes seconds.
    """
    sizes = spec.tokenizer
    model_graph, model = nnx.split(nnx.eval_shape(lambda: GenHmr(spec, rngs=nnx.Rngs(0))))
    tokenizer_graph, tokenizer = nnx.split(
        nnx.eval_shape(lambda: PoseTokenizer(sizes, rngs=nnx.Rngs(0)))
    )
    vectors = jax.ShapeDtypeStruct((sizes.codebook_size, sizes.code_dim), jnp.float32)
    shapes = {
        "genhmr": nnx.to_pure_dict(model),
        "tokenizer": nnx.to_pure_dict(tokenizer),
        "codebook": {"vectors": vectors},
    }
    return model_graph, tokenizer_graph, shapes


def network(spec: GenHmrSpec, params: dict[str, Any]) -> GenHmr:
    """The network with its parameters."""
    return nnx.merge(graphs(spec)[0], params["genhmr"])


def tokenizer(spec: GenHmrSpec, params: dict[str, Any]) -> PoseTokenizer:
    """The tokenizer with its parameters."""
    return nnx.merge(graphs(spec)[1], params["tokenizer"])
