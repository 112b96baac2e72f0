"""The architecture and sizes of MaskHand, apart from the network (see core/sizes.py)."""

import dataclasses
from typing import Any

from genhmr_jax.core import encoders
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.detect import hands

POSE_TOKENS = (1, 6, 21)


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
    """

    tokenizer: TokenizerSpec = TokenizerSpec(skeleton="hand")
    transformer: TransformerSpec = TransformerSpec()
    gapr_blocks: int = 2
    branch_blocks: int = 2
    pose_tokens: int = 6
    encoder: str = ""
    encoder_depth: int = 0
    pyramid_scales: tuple[float, ...] = (4.0, 2.0, 1.0)

    def __post_init__(self) -> None:
        levels = len(self.encoder_channels)
        if self.trains_encoder:
            levels = len(self.pyramid_scales)
        if self.transformer.levels != levels:
            transformer = dataclasses.replace(self.transformer, levels=levels)
            object.__setattr__(self, "transformer", transformer)
        if self.tokenizer.skeleton != "hand":
            raise ValueError(f"the tokenizer is of a {self.tokenizer.skeleton}, not of a hand")
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
