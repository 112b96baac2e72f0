"""The network of GenHMR: image, 2D pose and tokens -> logits of the tokens.

With feedback it also gets the estimate of the step before; core/steps.py has the steps.

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

from genhmr_jax.core import encoders
from genhmr_jax.core.feedback import DetectedKeypoints, Estimate, joints_of_tokens
from genhmr_jax.core.feedback_networks import (
    CELL_WIDTH,
    Correction,
    FeedbackSpec,
    Score,
    Scorer,
    cells_at,
    detected_size,
)
from genhmr_jax.core.masked_transformer import MaskedTransformer, transformer_remat
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.nets.heads import ShapeCameraHead
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.vit import Vit, VitSpec, normalise
from genhmr_jax.systems.genhmr.names import ASSIGNMENTS, BODY_FORM
from genhmr_jax.systems.genhmr.spec import GenHmrSpec


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Encoded:
    """The encoded inputs of B people; computed once, before sampling.

    Attributes:
      detected: the detected keypoints, in the axes of the network.
      turn: (B, 3, 3) from these axes to those of the photo's camera; None: they are the same.
      photo: the photo's camera, whose crop the results refer to.
      image_values: for each layer of the transformer, see MaskedTransformer.image_values; None
        without an image.
      cells: for each map (B, 1, H, W, CELL_WIDTH), which `Correction` and `Scorer` read at the
        joints; None without an image, or without feedback.
      image_weight: (B,) 0 where the image of a row is ignored.
      context: (B, S, C) context tokens.
      betas, weak_camera: (B, 10), (B, 3) in the axes of the network: the shape and the camera of a
        model without feedback.
    """

    detected: DetectedKeypoints
    turn: jax.Array | None
    photo: CropCamera
    image_values: list[list[jax.Array]] | None
    cells: list[jax.Array] | None
    image_weight: jax.Array | None
    context: jax.Array
    betas: jax.Array | None
    weak_camera: jax.Array | None


class ContextEncoder(nnx.Module):
    """2D pose and box information -> context tokens, in the type of the parameters."""

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec, width = spec, spec.transformer.width
        self.tokens = spec.context_tokens if spec.num_keypoints else 1
        inner = spec.context_width if spec.num_keypoints else width
        sizes = detected_size(spec.num_keypoints), inner, spec.context_depth
        self.mlp = ResidualMlp(*sizes, self.tokens * width, rngs=rngs)
        if spec.box_token:
            self.box_alone = nnx.Linear(3, width, rngs=rngs)

    def __call__(self, detected: DetectedKeypoints) -> Float[Array, "B S C"]:
        context = self.mlp(detected.flat(BODY_FORM))
        context = context.reshape(context.shape[0], self.tokens, -1)
        if not self.spec.box_token:
            return context
        box = self.box_alone(detected.view.box_information().astype(context.dtype))
        return jnp.concatenate([context, box[:, None]], 1)


class GenHmr(nnx.Module):
    """The network of stage 2, without the frozen tokenizer of stage 1."""

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        width, heads = spec.transformer.width, spec.transformer.heads
        if spec.trains_encoder:
            self.encoder = Vit(VitSpec.named(spec.encoder), rngs=rngs)
        channels = spec.encoder_channels
        if channels and spec.pyramid == "project":
            self.pyramid = ProjectLevels(channels, width, rngs=rngs)
        elif channels:
            self.pyramid = SimplePyramid(channels[-1], width, spec.pyramid_scales, rngs=rngs)
        t = spec.tokenizer
        sizes = (t.length, t.codebook_size, t.code_dim)
        learned = {"learned_reference": not spec.feedback}
        self.transformer = MaskedTransformer(spec.transformer, *sizes, **learned, rngs=rngs)
        if spec.feedback:
            self.correction = Correction(_feedback(spec), t.length, width, rngs=rngs)
            self.scorer = Scorer(_feedback(spec), rngs=rngs)
            if channels:
                self.cell = nnx.Linear(width, CELL_WIDTH, rngs=rngs)
        else:
            self.context = ContextEncoder(spec, rngs=rngs)
            self.head = ShapeCameraHead(width, heads, rngs=rngs)

    def encode(
        self,
        detected: DetectedKeypoints,
        photo: CropCamera,
        turn: Float[Array, "B 3 3"] | None = None,
        maps: list[Float[Array, "B H W _"]] | None = None,
        image_weight: Float[Array, "B"] | None = None,
        images: Float[Array, "B 256 256 3"] | None = None,
        *,
        drop_path: Float[Array, "B depth 2"] | None = None,
        remat: str = "none",
        frozen_layers: int = 0,
    ) -> Encoded:
        """Encode the inputs, once before sampling.

        Args:
          detected, photo, turn: see Encoded.
          maps: the image encoder's maps, finest first, or None without an image.
          image_weight: 0 where the image of a row must be ignored.
          images: crops in 0..1, in place of the maps, for an encoder that is part of the model.
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
        levels, values, cells = None, None, None
        rows = detected.keypoints.shape[0]
        if maps is not None:
            with jax.named_scope("pyramid"):
                levels = checkpointed(lambda maps: self.pyramid(maps), remat)(maps)
            values = self.transformer.image_values(levels, transformer_remat(remat))
            image_weight = jnp.ones(rows) if image_weight is None else image_weight
        # 2. The 2D pose and the box; without feedback, shape and camera from them and the image.
        if self.spec.feedback:
            cells = None if levels is None else [self.cell(m)[:, None] for m in levels]
            kind = self.transformer.position[...].dtype
            context = jnp.zeros((rows, 0, self.spec.transformer.width), kind)
            betas = weak = None
        else:
            context = self.context(detected)
            coarsest = None if levels is None else levels[-1]
            betas, weak = self.head(context, coarsest, image_weight)
        return Encoded(detected, turn, photo, values, cells, image_weight, context, betas, weak)

    def at_joints(self, encoded: Encoded, estimate: Estimate) -> Float[Array, "B F"] | None:
        """The image's features at the joints of an estimate; zeros where there is no image.

        None if the model has no image at all.
        """
        levels = self.spec.transformer.levels
        if not levels:
            return None
        points = self._in_maps(estimate.joints2d)
        return cells_at(encoded.cells, points, encoded.image_weight, levels)

    def _in_maps(self, points: Float[Array, "B P 2"]) -> Float[Array, "B P 2"]:
        """Crop coordinates -> 0..1 in the encoder's maps; at most half a map outside."""
        extent = jnp.array(encoders.find(self.spec.encoder).extent)
        return jnp.clip((points / extent + 1) / 2, -0.5, 1.5)

    def corrected(
        self, encoded: Encoded, estimate: Estimate
    ) -> tuple[Float[Array, "B L C"], Estimate]:
        """The features of the tokens for the next step, and its corrected shape and camera."""
        with jax.named_scope("correction"):
            return self.correction(estimate, encoded.detected, self.at_joints(encoded, estimate))

    def logits(
        self,
        tokens: Int[Array, "B L"],
        codes: Float[Array, "N D+1"],
        encoded: Encoded,
        estimate: Estimate | None = None,
        token_features: Float[Array, "B L C"] | None = None,
        *,
        remat: str = "none",
    ) -> Float[Array, "B L N"]:
        """Logits of p(token | visible tokens, image, 2D pose), float32.

        Args:
          tokens: ids; N where masked.
          codes: of `MaskedTransformer.codes`.
          encoded: of `encode`.
          estimate: the current one, for a model with feedback.
          token_features: of `corrected`.
          remat: see `encode`.
        """
        context, values, weight = encoded.context, encoded.image_values, encoded.image_weight
        reference = None
        if self.spec.feedback and values is not None:
            reference = self._in_maps(estimate.joints2d)
            reference = reference[:, joints_of_tokens(self.spec.tokenizer)]
        how = {"token_features": token_features, "reference": reference}
        with jax.named_scope("transformer"):
            return self.transformer(
                tokens, codes, context, values, weight, transformer_remat(remat), **how
            )

    def score(self, encoded: Encoded, estimate: Estimate, flags: Float[Array, "B 3"]) -> Score:
        """Estimate the errors of an estimate.

        It is compared with the keypoints as they were detected, also where it follows from other
        names of them.

        Args:
          encoded: with the keypoints as detected.
          estimate: the bodies.
          flags: one-hot, the one of ASSIGNMENTS that led to the estimate.
        """
        return self.scorer(estimate, encoded.detected, self.at_joints(encoded, estimate), flags)


def _feedback(spec: GenHmrSpec) -> FeedbackSpec:
    """The sizes of the networks that read the estimate."""
    widths = spec.context_width, spec.context_depth, spec.score_width
    levels = spec.transformer.levels
    return FeedbackSpec(BODY_FORM, spec.num_keypoints, levels, *widths, flags=len(ASSIGNMENTS))


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
