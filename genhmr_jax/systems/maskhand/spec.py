"""The architecture and sizes of MaskHand, apart from the network (see core/sizes.py)."""

import dataclasses
from typing import Any

from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec

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
      encoder_channels: channels of the image encoder's maps, finest first; () makes a model without
        image.
    """

    tokenizer: TokenizerSpec = TokenizerSpec(skeleton="hand")
    transformer: TransformerSpec = TransformerSpec()
    gapr_blocks: int = 2
    branch_blocks: int = 2
    pose_tokens: int = 6
    encoder_channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        levels = len(self.encoder_channels)
        if self.transformer.levels != levels:
            transformer = dataclasses.replace(self.transformer, levels=levels)
            object.__setattr__(self, "transformer", transformer)
        if self.tokenizer.skeleton != "hand":
            raise ValueError(f"the tokenizer is of a {self.tokenizer.skeleton}, not of a hand")
        if self.pose_tokens not in POSE_TOKENS:
            choices = ", ".join(map(str, POSE_TOKENS))
            raise ValueError(f"pose_tokens is {self.pose_tokens}: choose among {choices}")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "MaskHandSpec":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON and back."""
        tuples = lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        parts = {
            "tokenizer": TokenizerSpec(**tuples(values["tokenizer"])),
            "transformer": TransformerSpec(**values["transformer"]),
        }
        return MaskHandSpec(**tuples(values) | parts)
