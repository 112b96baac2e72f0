"""The network of MaskHand: 2D pose, image and tokens -> logits of the tokens (stage 2).

    21 keypoints -> graph convolutions on the hand's skeleton -> pose tokens
    [pose tokens, box token, masked tokens] -> GAPR blocks -> synthesizer -> logits

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

from genhmr_jax.core.masked_transformer import (
    MaskedTransformer,
    SelfAttention,
    transformer_remat,
)
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.mesh import normalised_adjacency
from genhmr_jax.nets.graph import GraphResidualBlock
from genhmr_jax.nets.heads import ShapeCameraHead
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.rows import by_rows
from genhmr_jax.nets.vit import Vit, VitSpec, normalise
from genhmr_jax.systems.maskhand.spec import MaskHandSpec

LIFTED_SCALE = 10.0
"""Of 3D keypoints in metres, as inputs."""
HAND_SIZE = 0.1
"""Metres: the head regresses the weak camera in this unit, so that its outputs are about 1."""
SQUEEZE = 4
"""The width over that of the squeeze-and-excitation's inner layer."""


def skeleton_adjacency() -> Float[np.ndarray, "21 21"]:
    """The normalised adjacency of the 21 keypoints of a hand, with loops."""
    edges = [(0, i) if i % 4 == 1 else (i - 1, i) for i in range(1, len(HAND21))]
    return normalised_adjacency(np.array(edges), len(HAND21))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DetectedHand:
    """The detected keypoints of B hands, in the axes of the network.

    Attributes:
      view: the camera, whose crop is the hand's region.
      keypoints: (B, 21, 3) crop coordinates and confidence; zero where not detected.
      keypoints3d: (B, 21, 3) metres from the wrist; all zero where not known.
    """

    view: CropCamera
    keypoints: Float[Array, "B 21 3"]
    keypoints3d: Float[Array, "B 21 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """The encoded inputs of B hands; computed once, before sampling.

    Attributes:
      view: the network's camera. photo: the photo's. turn: (B, 3, 3) from its axes to the photo's.
      context: (B, S, C) context tokens.
      image_values: see MaskedTransformer.image_values; None without an image.
      image_weight: (B,) 0 where the image of a row is ignored.
      betas, weak_camera: (B, 10), (B, 3) in the axes of the network.
    """

    view: CropCamera
    photo: CropCamera
    turn: Float[Array, "B 3 3"]
    context: Float[Array, "B S C"]
    image_values: list[list[jax.Array]] | None
    image_weight: Float[Array, "B"] | None
    betas: Float[Array, "B 10"]
    weak_camera: Float[Array, "B 3"]


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

    def __call__(self, hand: DetectedHand) -> Float[Array, "B S C"]:
        kind = self.position[...].dtype
        nodes = jnp.concatenate([hand.keypoints, LIFTED_SCALE * hand.keypoints3d], -1)
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
        self.transformer = MaskedTransformer(t, *of_tokens, rngs=rngs)
        self.head = ShapeCameraHead(t.width, t.heads, rngs=rngs)
        if spec.trains_encoder:
            self.encoder = Vit(vit_of(spec), rngs=rngs)
            scales = spec.encoder_channels[-1], t.width, spec.pyramid_scales
            self.pyramid = SimplePyramid(*scales, rngs=rngs)
        elif spec.encoder_channels:
            self.pyramid = ProjectLevels(spec.encoder_channels, t.width, rngs=rngs)

    def encode(
        self,
        hand: DetectedHand,
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
          hand, photo, turn: see Encoded.
          maps: the image encoder's maps around the hand, finest first, or None.
          image_weight: 0 where the image of a row must be ignored.
          images: pixels around the hand in 0..1, for a ViT that is part of the model.
          drop_path: `vit.drop_path_factors`, in the training of a ViT.
          remat: what is stored for the backward pass (nets/remat.py).
          frozen_layers: number of first layers of the ViT without gradient, see `Vit`.
        """
        # 1. The image: maps of the encoder, and values of the transformer.
        levels, values = None, None
        if images is not None:
            pixels = normalise(images, self.encoder.spec)
            maps = self.encoder(pixels, drop_path, remat, frozen_layers)
        if maps is not None and self.spec.encoder_channels:
            with jax.named_scope("pyramid"):
                levels = checkpointed(lambda maps: self.pyramid(maps), remat)(maps)
            values = self.transformer.image_values(levels, transformer_remat(remat))
            rows = hand.keypoints.shape[0]
            image_weight = jnp.ones(rows) if image_weight is None else image_weight
        # 2. The 2D pose and the box; shape and camera from them and the image.
        pose = self.branch(hand)
        box = self.box(hand.view.box_information().astype(pose.dtype))
        context = jnp.concatenate([pose, box[:, None]], 1)
        coarsest = None if levels is None else levels[-1]
        betas, weak = self.head(context, coarsest, image_weight)
        weak = weak * np.array([1 / HAND_SIZE, HAND_SIZE, HAND_SIZE], np.float32)
        return Encoded(hand.view, photo, turn, context, values, image_weight, betas, weak)

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
        image = encoded.image_values, encoded.image_weight, transformer_remat(remat)
        refined = functools.partial(self._refined, remat=remat)
        with jax.named_scope("transformer"):
            return self.transformer(tokens, codes, encoded.context, *image, before_layers=refined)

    def _refined(self, x: Float[Array, "B S C"], remat: str) -> Float[Array, "B S C"]:
        """The sequence after the GAPR blocks."""
        for _, block in sorted(self.gapr.items()):
            apply = checkpointed(lambda x, block=block: by_rows(block(x)), remat)
            x = apply(x)
        return x


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
