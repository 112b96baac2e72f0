"""GenHMR put together: image and 2D pose -> context; context and tokens -> logits; embeddings ->
rotations.

Pure functions of (model, arrays). The model is an nnx module merged from a graph definition and a
plain dict of arrays; it carries no random state and no config object.

It computes in the type of its parameters (float32 or bfloat16): inputs are cast to it where they
enter. What a loss reads, logits, betas and camera, is float32.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.core import encoders
from genhmr_jax.core.masked_transformer import MaskedTransformer, TransformerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer, TokenizerSpec
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.nets.heads import ShapeCameraHead
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.vit import Vit, VitSpec, normalise

KEYPOINT3D_SCALE = 0.3
"""Metres, about the deviation of keypoints in 3D, by which they are divided."""


@dataclasses.dataclass(frozen=True)
class GenHmrSpec:
    """Everything that fixes the arrays of a model.

    Attributes:
      num_keypoints: K of the 2D pose context; 0 makes an image-only model (the paper's setting).
      keypoints3d: whether the context also takes the same keypoints in 3D, as the detector guesses
        them.
      context_tokens: tokens that all keypoints become.
      encoder: of core/encoders.py; its maps are inputs, but those of a ViT, which is part of the
        model.
      encoder_channels: channels of the image encoder's maps, finest first; () makes a model without
        image.
      pyramid: "project" (maps at several scales) or "simple" (a ViT's single map, at
        `pyramid_scales`).
      box_token: a context token of the box information alone (CLIFF, Li et al. 2022), after those
        in which it is mixed with the keypoints. The context of an image-only model is that token
        already.
    """

    tokenizer: TokenizerSpec = TokenizerSpec()
    transformer: TransformerSpec = TransformerSpec()
    num_keypoints: int = 23
    keypoints3d: bool = False
    context_tokens: int = 6
    context_width: int = 512
    context_depth: int = 3
    encoder: str = "blazepose_full"
    encoder_channels: tuple[int, ...] = ()
    pyramid: str = "project"
    pyramid_scales: tuple[float, ...] = (4.0, 2.0, 1.0)
    box_token: bool = False

    def __post_init__(self) -> None:
        levels = (
            0
            if not self.encoder_channels
            else len(self.encoder_channels)
            if self.pyramid == "project"
            else len(self.pyramid_scales)
        )
        if self.transformer.levels != levels:
            object.__setattr__(
                self, "transformer", dataclasses.replace(self.transformer, levels=levels)
            )
        if self.pyramid not in ("project", "simple"):
            raise ValueError(f"pyramid {self.pyramid!r} must be 'project' or 'simple'")
        if self.trains_encoder and self.encoder_channels != (
            width := VitSpec.named(self.encoder).width,
        ):
            raise ValueError(
                f"encoder {self.encoder!r} has one map of {width} channels, not {self.encoder_channels}"
            )
        if self.upright and self.encoder_channels != encoders.find(self.encoder).channels:
            raise ValueError(
                f"encoder {self.encoder!r} has maps of {encoders.find(self.encoder).channels} channels, not {self.encoder_channels}"
            )
        if self.keypoints3d and not self.num_keypoints:
            raise ValueError("keypoints3d adds to the 2D keypoints: set num_keypoints")
        if not self.num_keypoints and not levels:
            raise ValueError(
                "a model without keypoints and without image sees nothing: set num_keypoints or encoder_channels"
            )
        if self.box_token and not self.num_keypoints:
            raise ValueError(
                "box_token: the context of a model without keypoints is a token of the box already"
            )

    @property
    def upright(self) -> bool:
        """Whether the network sees people upright, in the detector's region (CropCamera.upright),
        and not in the axes of the photo."""
        return bool(self.encoder_channels) and encoders.find(self.encoder).upright

    @property
    def trains_encoder(self) -> bool:
        """Whether the image encoder is part of the model, and its input the pixels of the crop."""
        return bool(self.encoder_channels) and encoders.find(self.encoder).trained

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "GenHmrSpec":
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        tuples = lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        values = tuples(values)
        return GenHmrSpec(
            **values
            | {
                "tokenizer": TokenizerSpec(**tuples(values["tokenizer"])),
                "transformer": TransformerSpec(**values["transformer"]),
            }
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Encoded:
    """What the decoder needs of an input; computed once, before sampling."""

    context: jax.Array  # (B, S, C)
    image_values: (
        list[list[jax.Array]] | None
    )  # for each layer of the transformer, see MaskedTransformer.image_values
    image_weight: jax.Array | None  # (B,)
    betas: jax.Array  # (B, 10)
    weak_camera: jax.Array  # (B, 3)


class ContextEncoder(nnx.Module):
    """2D pose (x, y in crop coordinates [-1, 1], confidence) and box information -> context tokens,
    in the type of the parameters.

    With `spec.keypoints3d` also the keypoints in 3D (metres from mid-hip; all zero: not known) and
    whether they are known.
    """

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec, width, k = spec, spec.transformer.width, spec.num_keypoints
        self.tokens = spec.context_tokens if k else 1
        size_in = 3 * k + 3 + (3 * k + 1 if spec.keypoints3d else 0)
        self.mlp = ResidualMlp(
            size_in,
            spec.context_width if k else width,
            spec.context_depth,
            self.tokens * width,
            rngs=rngs,
        )
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
            lifted = (
                jnp.zeros(keypoints.shape)
                if keypoints3d is None
                else keypoints3d / KEYPOINT3D_SCALE
            )
            is_known = jnp.any(lifted != 0, (1, 2))[:, None].astype(lifted.dtype)
            parts += [lifted.reshape(batch, -1), is_known]
        return self.mlp(jnp.concatenate(parts, -1)).reshape(batch, self.tokens, -1)


class GenHmr(nnx.Module):
    """The network of stage 2 beside the frozen tokenizer of stage 1."""

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        width, heads = spec.transformer.width, spec.transformer.heads
        self.context = ContextEncoder(spec, rngs=rngs)
        if spec.trains_encoder:
            self.encoder = Vit(VitSpec.named(spec.encoder), rngs=rngs)
        if spec.encoder_channels:
            if spec.pyramid == "project":
                self.pyramid = ProjectLevels(spec.encoder_channels, width, rngs=rngs)
            else:
                self.pyramid = SimplePyramid(
                    spec.encoder_channels[-1], width, spec.pyramid_scales, rngs=rngs
                )
        t = spec.tokenizer
        self.transformer = MaskedTransformer(
            spec.transformer, t.length, t.codebook_size, t.code_dim, rngs=rngs
        )
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
        """
        Args:
          keypoints: in crop coordinates, as `normalize_keypoints` gives them; confidence 0 = not
            seen.
          box: CropCamera.box_information.
          maps: the image encoder's maps, finest first, or None when there is no image.
          image_weight: 0 where a sample's image is to be ignored.
          images: crops in 0..1, in place of the maps, for an encoder that is part of the model.
          keypoints3d: metres from mid-hip, x right, y down, z away from the camera; all zero, or
            None: not known. Read by a model with `spec.keypoints3d`.
          drop_path: `vit.drop_path_factors`, when such an encoder is trained.
          remat: "blocks" keeps little for the backward pass: what goes into each layer of that
            encoder, into the pyramid and out of it.
          frozen_layers: first layers of that encoder that get no gradient, see `Vit`.

        Raises:
          ValueError: unknown remat.
        """
        if images is not None:
            maps = self.encoder(
                normalise(images, self.encoder.spec), drop_path, remat, frozen_layers
            )
        context = self.context(keypoints, box, keypoints3d)
        levels = (
            checkpointed(lambda maps: self.pyramid(maps), remat)(maps) if maps is not None else None
        )
        values = self.transformer.image_values(levels, remat) if levels is not None else None
        if values is not None and image_weight is None:
            image_weight = jnp.ones(box.shape[0])
        betas, weak = self.head(context, levels[-1] if levels is not None else None, image_weight)
        return Encoded(context, values, image_weight, betas, weak)

    def logits(
        self,
        tokens: Int[Array, "B L"],
        vectors: Float[Array, "N D"],
        encoded: Encoded,
        *,
        remat: str = "none",
    ) -> Float[Array, "B L N"]:
        """p(token | visible tokens, image, 2D pose), as logits in float32. `remat` as in
        `encode`."""
        return self.transformer(
            tokens, vectors, encoded.context, encoded.image_values, encoded.image_weight, remat
        )


def normalize_keypoints(
    keypoints: Float[Array, "B K 3"], view: CropCamera
) -> Float[Array, "B K 3"]:
    """Keypoints in px -> crop coordinates in [-1, 1] (held in [-2, 2]); those of confidence 0
    become all zero."""
    points = jnp.clip(view.to_crop(keypoints[..., :2]), -2.0, 2.0)
    seen = keypoints[..., 2:] > 0
    return jnp.where(seen, jnp.concatenate([points, keypoints[..., 2:]], -1), 0.0)


def graphs(spec: GenHmrSpec) -> tuple[nnx.GraphDef, nnx.GraphDef, dict[str, Any]]:
    """Structure without arrays: (graph of GenHmr, graph of PoseTokenizer, shapes of {"genhmr",
    "tokenizer", "codebook"})."""
    model_graph, model = nnx.split(nnx.eval_shape(lambda: GenHmr(spec, rngs=nnx.Rngs(0))))
    tokenizer_graph, tokenizer = nnx.split(
        nnx.eval_shape(lambda: PoseTokenizer(spec.tokenizer, rngs=nnx.Rngs(0)))
    )
    vectors = jax.ShapeDtypeStruct(
        (spec.tokenizer.codebook_size, spec.tokenizer.code_dim), jnp.float32
    )
    shapes = {
        "genhmr": nnx.to_pure_dict(model),
        "tokenizer": nnx.to_pure_dict(tokenizer),
        "codebook": {"vectors": vectors},
    }
    return model_graph, tokenizer_graph, shapes
