"""The network of MaskHand: 2D pose, image and tokens -> logits of the tokens (stage 2).

    21 keypoints -> graph convolutions on the hand's skeleton -> pose tokens
    [pose tokens, box token, masked tokens] -> GAPR blocks -> synthesizer -> logits

With feedback, which is ours, it also gets the estimate of the step before; core/steps.py has the
steps. Shape and camera are then corrected in each step, and not regressed once.

GAPR is the paper's graph-based anatomical pose refinement. The synthesizer is the layers of
core/masked_transformer.py: self-attention, deformable cross-attention to the image's maps, MLP.
Where the paper and its figures leave a size open, it is a field of MaskHandSpec or named here.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from smpl_jax.keypoints import HAND21

from genhmr_jax.core import encoders
from genhmr_jax.core.feedback import DetectedKeypoints, Estimate, joints_of_tokens
from genhmr_jax.core.feedback_networks import (
    CELL_WIDTH,
    Correction,
    FeedbackSpec,
    Score,
    Scorer,
    cells_at,
)
from genhmr_jax.core.masked_transformer import (
    MaskedTransformer,
    SelfAttention,
    transformer_remat,
)
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.hand_crop import MARGIN, palm_region
from genhmr_jax.geometry.hand_pixels import EXTENT
from genhmr_jax.geometry.mesh import normalised_adjacency
from genhmr_jax.nets.graph import GraphResidualBlock
from genhmr_jax.nets.heads import ShapeCameraHead
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.rows import by_rows
from genhmr_jax.nets.vit import Vit, VitSpec, normalise
from genhmr_jax.systems.maskhand.spec import HAND_FORM, MaskHandSpec

SQUEEZE = 4
"""The width over that of the squeeze-and-excitation's inner layer."""


def skeleton_adjacency() -> Float[np.ndarray, "21 21"]:
    """The normalised adjacency of the 21 keypoints of a hand, with loops."""
    edges = [(0, i) if i % 4 == 1 else (i - 1, i) for i in range(1, len(HAND21))]
    return normalised_adjacency(np.array(edges), len(HAND21))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """The encoded inputs of B hands; computed once, before sampling.

    Attributes:
      detected: the detected keypoints, in the axes of the network, and its camera.
      photo: the photo's camera. turn: (B, 3, 3) from the axes of the network to the photo's.
      context: (B, S, C) context tokens.
      image_values: see MaskedTransformer.image_values; None without an image.
      cells: for each map (B, 1, H, W, CELL_WIDTH), which the correction reads at the joints; None
        without an image, or without feedback.
      image_weight: (B,) 0 where the image of a row is ignored.
      betas, weak_camera: (B, 10), (B, 3) in the axes of the network, of a model without feedback.
    """

    detected: DetectedKeypoints
    photo: CropCamera
    turn: Float[Array, "B 3 3"]
    context: Float[Array, "B S C"]
    image_values: list[list[jax.Array]] | None
    cells: list[Float[Array, "B 1 H W C"]] | None
    image_weight: Float[Array, "B"] | None
    betas: Float[Array, "B 10"] | None
    weak_camera: Float[Array, "B 3"] | None


class PoseBranch(nnx.Module):
    """The 2D pose (and 3D keypoints, ours) -> context tokens, by graph convolutions."""

    def __init__(self, spec: MaskHandSpec, *, rngs: nnx.Rngs):
        self.tokens, width = spec.pose_tokens, spec.transformer.width
        normal = nnx.initializers.normal(0.02)
        self.node = nnx.Linear(6, width, rngs=rngs)
        self.position = nnx.Param(normal(rngs.params(), (len(HAND21), width)))
        blocks = {
            f"block_{i}": GraphResidualBlock(width, rngs=rngs) for i in range(spec.branch_blocks)
        }
        self.blocks = nnx.Dict(blocks)
        if self.tokens < len(HAND21):
            self.pool = nnx.Param(np.log(_groups(self.tokens) + 0.01))
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, hand: DetectedKeypoints) -> Float[Array, "B S C"]:
        kind = self.position[...].dtype
        nodes = jnp.concatenate([hand.keypoints, hand.keypoints3d / HAND_FORM.spread], -1)
        x = self.node(nodes.astype(kind)) + self.position[...]
        adjacency = skeleton_adjacency()
        for _, block in sorted(self.blocks.items()):
            x = block(x, jnp.asarray(adjacency))
        if self.tokens < len(HAND21):
            x = jax.nn.softmax(self.pool[...]) @ x
        return self.out(x)


def _groups(tokens: int) -> Float[np.ndarray, "S 21"]:
    """The keypoints of each token at first: all of one, or wrist and fingers of six."""
    if tokens == 1:
        return np.ones((1, len(HAND21)), np.float32)
    number = np.array([0, *np.repeat(np.arange(1, 6), 4)])
    return (np.arange(6)[:, None] == number).astype(np.float32)


class GaprBlock(nnx.Module):
    """A graph transformer block: graph convolution, then attention beside convolution, then SE.

    The adjacency of the graph convolution is learned, over all tokens of the sequence:

        Q  = graph(Q)
        Q' = Q + MHA(norm Q) + Conv(norm Q)
        Q  = Q' + SE(norm Q')
    """

    def __init__(self, spec: MaskHandSpec, length: int, *, rngs: nnx.Rngs):
        width = spec.transformer.width
        small = nnx.initializers.variance_scaling(0.1, "fan_in", "normal")
        # Rows are softmaxes. At first a token takes most from itself, the rest from all equally.
        self.adjacency = nnx.Param(np.log(length) * jnp.eye(length))
        self.graph = GraphResidualBlock(width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = SelfAttention(width, spec.transformer.heads, rngs=rngs)
        self.conv = nnx.Conv(width, width, (3,), kernel_init=small, rngs=rngs)
        self.norm_out = nnx.LayerNorm(width, rngs=rngs)
        self.squeeze = nnx.Linear(width, width // SQUEEZE, rngs=rngs)
        self.excite = nnx.Linear(width // SQUEEZE, width, rngs=rngs)

    def __call__(self, x: Float[Array, "B S C"]) -> Float[Array, "B S C"]:
        x = self.graph(x, jax.nn.softmax(self.adjacency[...].astype(jnp.float32)))
        normal = self.norm(x)
        x = x + self.attention(normal) + self.conv(normal)
        normal = self.norm_out(x)
        scale = self.excite(jax.nn.relu(self.squeeze(jnp.mean(normal, 1))))
        return x + normal * jax.nn.sigmoid(scale)[:, None]


class MaskHand(nnx.Module):
    """The network of stage 2, without the frozen tokenizer of stage 1."""

    def __init__(self, spec: MaskHandSpec, *, rngs: nnx.Rngs):
        self.spec, sizes, t = spec, spec.tokenizer, spec.transformer
        self.branch = PoseBranch(spec, rngs=rngs)
        self.box = nnx.Linear(3, t.width, rngs=rngs)
        length = spec.pose_tokens + 1 + sizes.length
        blocks = {f"block_{i}": GaprBlock(spec, length, rngs=rngs) for i in range(spec.gapr_blocks)}
        self.gapr = nnx.Dict(blocks)
        of_tokens = (sizes.length, sizes.codebook_size, sizes.code_dim)
        learned = {"learned_reference": not spec.feedback}
        self.transformer = MaskedTransformer(t, *of_tokens, **learned, rngs=rngs)
        if spec.feedback:
            of_estimate = _feedback(spec)
            self.correction = Correction(of_estimate, sizes.length, t.width, rngs=rngs)
            self.scorer = Scorer(of_estimate, rngs=rngs)
            if t.levels:
                self.cell = nnx.Linear(t.width, CELL_WIDTH, rngs=rngs)
        else:
            self.head = ShapeCameraHead(t.width, t.heads, rngs=rngs)
        if spec.trains_encoder:
            self.encoder = Vit(vit_of(spec), rngs=rngs)
            scales = spec.encoder_channels[-1], t.width, spec.pyramid_scales
            self.pyramid = SimplePyramid(*scales, rngs=rngs)
        elif spec.encoder_channels:
            self.pyramid = ProjectLevels(spec.encoder_channels, t.width, rngs=rngs)

    def encode(
        self,
        detected: DetectedKeypoints,
        photo: CropCamera,
        turn: Float[Array, "B 3 3"],
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
          maps: the image encoder's maps around the hand, finest first, or None.
          image_weight: 0 where the image of a row must be ignored.
          images: pixels around the hand in 0..1, for a ViT that is part of the model.
          drop_path: `vit.drop_path_factors`, in the training of a ViT.
          remat: what is stored for the backward pass (nets/remat.py).
          frozen_layers: number of first layers of the ViT without gradient, see `Vit`.
        """
        # 1. The image: maps of the encoder, and values of the transformer.
        levels, values, cells = None, None, None
        if images is not None:
            pixels = normalise(images, self.encoder.spec)
            maps = self.encoder(pixels, drop_path, remat, frozen_layers)
        if maps is not None and self.spec.encoder_channels:
            with jax.named_scope("pyramid"):
                levels = checkpointed(lambda maps: self.pyramid(maps), remat)(maps)
            values = self.transformer.image_values(levels, transformer_remat(remat))
            rows = detected.keypoints.shape[0]
            image_weight = jnp.ones(rows) if image_weight is None else image_weight
        # 2. The 2D pose and the box; without feedback, shape and camera from them and the image.
        pose = self.branch(detected)
        box = self.box(detected.view.box_information().astype(pose.dtype))
        context = jnp.concatenate([pose, box[:, None]], 1)
        if self.spec.feedback:
            cells = None if levels is None else [self.cell(m)[:, None] for m in levels]
            betas = weak = None
        else:
            coarsest = None if levels is None else levels[-1]
            betas, weak = self.head(context, coarsest, image_weight)
            weak = weak * weak_unit()
        return Encoded(detected, photo, turn, context, values, cells, image_weight, betas, weak)

    def _in_maps(
        self, points: Float[Array, "B P 2"], detected: DetectedKeypoints
    ) -> Float[Array, "B P 2"]:
        """Crop coordinates -> 0..1 in the encoder's maps; at most half a map outside."""
        if self.spec.trains_encoder:
            # The picture (geometry/hand_pixels.py), of which a ViT gets the middle columns.
            seen = np.array(encoders.find(self.spec.encoder).extent, np.float32)
            inside = points * MARGIN / EXTENT / seen
            return jnp.clip((inside + 1) / 2, -0.5, 1.5)
        # The region of the network's last pass, which is close to the one that it would take next.
        region = palm_region(detected.keypoints[..., :2], least=0.01)[:, None]
        offset, cos, sin = (
            points - region[..., :2],
            *(f(region[..., 3]) for f in (jnp.cos, jnp.sin)),
        )
        across = cos * offset[..., 0] + sin * offset[..., 1]
        down = cos * offset[..., 1] - sin * offset[..., 0]
        inside = jnp.stack([across, down], -1) / region[..., 2:3]
        return jnp.clip(inside + 0.5, -0.5, 1.5)

    def _at_joints(self, encoded: Encoded, estimate: Estimate) -> Float[Array, "B F"] | None:
        """The image's features at the joints of an estimate."""
        points = self._in_maps(estimate.joints2d, encoded.detected)
        levels = self.spec.transformer.levels
        return cells_at(encoded.cells, points, encoded.image_weight, levels)

    def corrected(
        self, encoded: Encoded, estimate: Estimate
    ) -> tuple[Float[Array, "B L C"], Estimate]:
        """The features of the tokens for the next step, and its corrected shape and camera."""
        with jax.named_scope("correction"):
            at_joints = self._at_joints(encoded, estimate)
            return self.correction(estimate, encoded.detected, at_joints)

    def score(self, encoded: Encoded, estimate: Estimate, flags: Float[Array, "B 0"]) -> Score:
        """Estimate the errors of an estimate."""
        return self.scorer(estimate, encoded.detected, self._at_joints(encoded, estimate), flags)

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
          estimate, token_features: of a model with feedback: the current estimate, and what the
            correction made of it.
          remat: see `encode`.
        """
        image = encoded.image_values, encoded.image_weight, transformer_remat(remat)
        how = {"before_layers": functools.partial(self._refined, remat=remat)}
        if self.spec.feedback and encoded.image_values is not None:
            points = self._in_maps(estimate.joints2d, encoded.detected)
            how["reference"] = points[:, joints_of_tokens(self.spec.tokenizer)]
        how["token_features"] = token_features
        with jax.named_scope("transformer"):
            return self.transformer(tokens, codes, encoded.context, *image, **how)

    def _refined(self, x: Float[Array, "B S C"], remat: str) -> Float[Array, "B S C"]:
        """The sequence after the GAPR blocks."""
        for _, block in sorted(self.gapr.items()):
            apply = checkpointed(lambda x, block=block: by_rows(block(x)), remat)
            x = apply(x)
        return x


def weak_unit() -> Float[np.ndarray, "3"]:
    """The factors from a weak camera in units of a hand, whose numbers are about 1, to metres."""
    size = HAND_FORM.size
    return np.array([1 / size, size, size], np.float32)


def _feedback(spec: MaskHandSpec) -> FeedbackSpec:
    """The sizes of the networks that read the estimate."""
    widths = spec.correction_width, spec.correction_depth, spec.score_width
    counts = len(HAND21), spec.transformer.levels
    return FeedbackSpec(HAND_FORM, *counts, *widths, token_features=spec.token_features)


def vit_of(spec: MaskHandSpec) -> VitSpec:
    """Sizes of the ViT that is part of the model."""
    named = VitSpec.named(spec.encoder)
    return dataclasses.replace(named, depth=spec.encoder_depth or named.depth)


@functools.lru_cache(maxsize=16)
def graphs(spec: MaskHandSpec) -> tuple[nnx.GraphDef, nnx.GraphDef, dict[str, Any]]:
    """The graphs of MaskHand and PoseTokenizer, and the shapes of all parameters.

    The shapes are under "maskhand", "tokenizer" and "codebook".
    """
    sizes = spec.tokenizer
    model_graph, model = nnx.split(nnx.eval_shape(lambda: MaskHand(spec, rngs=nnx.Rngs(0))))
    tokenizer_graph, tokenizer = nnx.split(
        nnx.eval_shape(lambda: PoseTokenizer(sizes, rngs=nnx.Rngs(0)))
    )
    vectors = jax.ShapeDtypeStruct((sizes.codebook_size, sizes.code_dim), jnp.float32)
    shapes = {
        "maskhand": nnx.to_pure_dict(model),
        "tokenizer": nnx.to_pure_dict(tokenizer),
        "codebook": {"vectors": vectors},
    }
    return model_graph, tokenizer_graph, shapes


def network(spec: MaskHandSpec, params: dict[str, Any]) -> MaskHand:
    """The network with its parameters."""
    return nnx.merge(graphs(spec)[0], params["maskhand"])


def tokenizer(spec: MaskHandSpec, params: dict[str, Any]) -> PoseTokenizer:
    """The tokenizer with its parameters."""
    return nnx.merge(graphs(spec)[1], params["tokenizer"])
