"""The architecture and sizes of MaskHand, apart from the network (see core/sizes.py)."""

import dataclasses
import math
from typing import Any

from smpl_jax.keypoints import HAND21

from genhmr_jax.core import encoders
from genhmr_jax.core.feedback import Form
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.detect import hands
from genhmr_jax.nets.sizes import check_sizes

POSE_TOKENS = (1, 6, 21)
_TURN = 2 * math.pi / 3 / math.sqrt(3)
HAND_FORM = Form(
    keypoints=tuple(HAND21),
    roots=("wrist",),
    # A flat hand, fingers up, its back towards the camera.
    mean_pose=(-_TURN, -_TURN, _TURN, *[0.0] * 45),
    size=0.1,
    spread=0.1,
    near=(0.005, 0.01),
)
"""The form of a hand for feedback."""


def of_hands(tokenizer: TokenizerSpec) -> TokenizerSpec:
    """The same. Raises ValueError: a tokenizer of bodies."""
    if tokenizer.skeleton != "hand":
        raise ValueError(f"the tokenizer is of a {tokenizer.skeleton}, not of a hand")
    return tokenizer


@dataclasses.dataclass(frozen=True)
class MaskHandSpec:
    """The architecture and sizes of a model.

    Attributes:
      tokenizer: of hands.
      transformer: the context-infused masked synthesizer; its `levels` are those of the maps.
      gapr_blocks: number of blocks of the graph-based anatomical pose refinement.
      branch_blocks: number of graph convolutions of the 2D pose branch.
      pose_tokens: number of tokens of the 2D pose, one of POSE_TOKENS: a learned mean of all
        keypoints (the paper's figure), learned means for wrist and fingers, or one a keypoint.
      encoder: of the image. "": a model without image. "hand_landmarks": the last map of the frozen
        landmark network, which is an input. A ViT of core/encoders.py is part of the model, and
        the pixels are the input.
      encoder_depth: number of a ViT's first layers to use; 0: all layers.
      pyramid_scales: of a ViT's map (nets/pyramid.py).
      feedback: whether each step gets the projection of the estimate of the step before it
        (core/feedback.py), as in GenHMR; the paper's model has none. `correction_width`,
        `correction_depth`, `token_features` and `score_width` are sizes of the networks that read
        the estimate (core/feedback_networks.py).
    """

    tokenizer: TokenizerSpec = TokenizerSpec(skeleton="hand")
    transformer: TransformerSpec = TransformerSpec()
    gapr_blocks: int = 2
    branch_blocks: int = 2
    pose_tokens: int = 6
    encoder: str = ""
    encoder_depth: int = 0
    pyramid_scales: tuple[float, ...] = (4.0, 2.0, 1.0)
    feedback: bool = False
    correction_width: int = 256
    correction_depth: int = 3
    token_features: int = 64
    score_width: int = 128

    def __post_init__(self) -> None:
        levels = len(self.encoder_channels)
        if self.trains_encoder:
            levels = len(self.pyramid_scales)
        if self.transformer.levels != levels:
            transformer = dataclasses.replace(self.transformer, levels=levels)
            object.__setattr__(self, "transformer", transformer)
        of_hands(self.tokenizer)
        check_sizes(self, "correction_width", "token_features", "score_width")
        names = "gapr_blocks", "branch_blocks", "correction_depth", "encoder_depth"
        check_sizes(self, *names, least=0)
        if self.pose_tokens not in POSE_TOKENS:
            choices = ", ".join(map(str, POSE_TOKENS))
            raise ValueError(f"pose_tokens is {self.pose_tokens}: choose among {choices}")

    @property
    def encoder_channels(self) -> tuple[int, ...]:
        """Channels of the encoder's maps; () without image.

        Raises:
          ValueError: unknown encoder, or one of people.
        """
        if self.encoder in ("", hands.ENCODER):
            return (hands.CHANNELS,) if self.encoder else ()
        found = encoders.find(self.encoder)
        if not found.trained:
            raise ValueError(f"encoder {self.encoder!r} is of people: {hands.ENCODER} is of hands")
        return found.channels

    @property
    def trains_encoder(self) -> bool:
        """Whether the image encoder is part of the model, whose input is then pixels."""
        return self.encoder not in ("", hands.ENCODER)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "MaskHandSpec":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON and back."""
        tuples = lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        parts = {
            "tokenizer": TokenizerSpec(**tuples(values["tokenizer"])),
            "transformer": TransformerSpec(**values["transformer"]),
        }
        return MaskHandSpec(**tuples(values) | parts)
