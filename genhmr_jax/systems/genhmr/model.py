"""The network of GenHMR: image, 2D pose and tokens -> logits of the tokens.

With feedback it also gets the estimate of the step before; systems/genhmr/steps.py has the steps.

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

from genhmr_jax.core import confidence, encoders
from genhmr_jax.core.masked_transformer import MaskedTransformer, transformer_remat
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.nets.deformable_attention import attend
from genhmr_jax.nets.heads import ShapeCameraHead
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.vit import Vit, VitSpec, normalise
from genhmr_jax.systems.genhmr.feedback import (
    ASSIGNMENTS,
    DetectedKeypoints,
    Estimate,
    joints_of_tokens,
)
from genhmr_jax.systems.genhmr.spec import GenHmrSpec

CELL_WIDTH = 16
"""Channels of the image's features that are read at the joints of the current estimate."""
FEATURE_WIDTH = 64
"""Channels of the features of a token, before they become those of the transformer."""
MOST_STEPS = 3
"""Number of steps that differ for `Correction`: later ones count as the last of them."""
NEAR = (0.05, confidence.NEAR)
"""Metres: distances of a joint from the truth within which `Scorer` gives the probability."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Score:
    """Estimates of the errors of B estimates, float32.

    Attributes:
      near: (B, 24, len(NEAR)) logits of the probability that a joint is within each of NEAR, after
        one similarity transform of all joints.
      log_error: (B, 2) log of the mean error of the joints in metres, after that transform
        (PA-MPJPE) and relative to the pelvis (MPJPE).
    """

    near: jax.Array
    log_error: jax.Array


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
        size_out = self.tokens * width
        self.mlp = ResidualMlp(detected_size(spec), inner, spec.context_depth, size_out, rngs=rngs)
        if spec.box_token:
            self.box_alone = nnx.Linear(3, width, rngs=rngs)

    def __call__(self, detected: DetectedKeypoints) -> Float[Array, "B S C"]:
        context = self.mlp(detected.flat())
        context = context.reshape(context.shape[0], self.tokens, -1)
        if not self.spec.box_token:
            return context
        box = self.box_alone(detected.view.box_information().astype(context.dtype))
        return jnp.concatenate([context, box[:, None]], 1)


class Correction(nnx.Module):
    """The current estimate -> features of each token; corrected shape and camera.

    One network for all steps: the first estimate is the mean pose. It reads the detected keypoints,
    the estimate, the distances between both, and the image at the estimate's joints.
    """

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        self.spec, self.length = spec, spec.tokenizer.length
        width, inner, depth = spec.transformer.width, spec.context_width, spec.context_depth
        size_in = estimate_size(spec) + MOST_STEPS
        self.mlp = ResidualMlp(size_in, inner, depth, self.length * FEATURE_WIDTH + 13, rngs=rngs)
        self.spread = nnx.Linear(FEATURE_WIDTH, width, rngs=rngs)

    def __call__(
        self, estimate: Estimate, detected: DetectedKeypoints, at_joints: Float[Array, "B F"] | None
    ) -> tuple[Float[Array, "B L C"], Estimate]:
        """The features of the tokens, and the estimate with the corrected shape and camera.

        Args:
          estimate: the current one.
          detected: the keypoints.
          at_joints: of `GenHmr.at_joints`.
        """
        step = jax.nn.one_hot(jnp.minimum(estimate.step, MOST_STEPS - 1), MOST_STEPS)
        out = self.mlp(_estimate_inputs(estimate, detected, at_joints, step))
        change = 0.3 * out[:, -13:].astype(jnp.float32)
        estimate = dataclasses.replace(
            estimate, betas=estimate.betas + change[:, :10], camera=estimate.camera + change[:, 10:]
        )
        token_features = out[:, :-13].reshape(out.shape[0], self.length, FEATURE_WIDTH)
        return self.spread(token_features), estimate


class Scorer(nnx.Module):
    """How good an estimate is: for each joint, and as a whole.

    It compares the estimate with the keypoints as they were detected, also where the estimate
    follows from another assignment.
    """

    def __init__(self, spec: GenHmrSpec, *, rngs: nnx.Rngs):
        size_in = estimate_size(spec) + len(ASSIGNMENTS)
        self.mlp = ResidualMlp(size_in, spec.score_width, 2, 24 * len(NEAR) + 2, rngs=rngs)

    def __call__(
        self,
        estimate: Estimate,
        detected: DetectedKeypoints,
        at_joints: Float[Array, "B F"] | None,
        assignment: Int[Array, "B"],
    ) -> Score:
        """Score estimates.

        Args:
          estimate: the bodies.
          detected: the keypoints as detected.
          at_joints: of `GenHmr.at_joints`.
          assignment: the one of ASSIGNMENTS that led to the estimate.
        """
        flag = jax.nn.one_hot(assignment, len(ASSIGNMENTS))
        out = self.mlp(_estimate_inputs(estimate, detected, at_joints, flag)).astype(jnp.float32)
        near = out[:, :-2].reshape(out.shape[0], 24, len(NEAR))
        return Score(near, out[:, -2:])


def _estimate_inputs(
    estimate: Estimate, detected: DetectedKeypoints, at_joints: jax.Array | None, flags: jax.Array
) -> Float[Array, "B I"]:
    """All that is known of an estimate, as the input of a network."""
    parts = [detected.flat(), estimate.flat(), estimate.gaps(detected), flags]
    return jnp.concatenate(parts + ([] if at_joints is None else [at_joints]), -1)


def detected_size(spec: GenHmrSpec) -> int:
    """Number of values of DetectedKeypoints.flat."""
    return 6 * spec.num_keypoints + 4


def estimate_size(spec: GenHmrSpec) -> int:
    """Number of values of `_estimate_inputs`, without its flags."""
    at_joints = 24 * CELL_WIDTH * spec.transformer.levels
    return detected_size(spec) + 157 + 5 * spec.num_keypoints + at_joints


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
            self.correction = Correction(spec, rngs=rngs)
            self.scorer = Scorer(spec, rngs=rngs)
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
        if not self.spec.encoder_channels:
            return None
        rows, levels = estimate.betas.shape[0], self.spec.transformer.levels
        if encoded.cells is None:
            return jnp.zeros((rows, 24 * levels * CELL_WIDTH))
        points = self._in_maps(estimate.joints2d)[:, :, None, None]
        ones = jnp.ones(points.shape[:-1])
        found = [attend(cells.astype(jnp.float32), points, ones) for cells in encoded.cells]
        found = jnp.concatenate(found, -1).reshape(rows, -1)
        return found * encoded.image_weight[:, None]

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

    def score(self, encoded: Encoded, estimate: Estimate, assignment: Int[Array, "B"]) -> Score:
        """Estimate the errors of an estimate; see Scorer. The gradient only reaches the scorer.

        The keypoints of `encoded` are those as detected.
        """
        at_joints = self.at_joints(encoded, estimate)
        stopped = jax.lax.stop_gradient((estimate, encoded.detected, at_joints))
        return self.scorer(*stopped, assignment)


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
