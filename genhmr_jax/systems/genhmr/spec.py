"""The architecture and sizes of GenHMR, apart from the network (see core/sizes.py)."""

import dataclasses
from typing import Any

from genhmr_jax.core import encoders
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.nets.sizes import check_sizes

PYRAMIDS = ("project", "simple")


@dataclasses.dataclass(frozen=True)
class GenHmrSpec:
    """The architecture and sizes of a model.

    Attributes:
      num_keypoints: K of the 2D pose context; 0 makes an image-only model (the paper's setting).
      context_tokens: number of context tokens for all keypoints together; without feedback.
      context_width, context_depth: of the MLP that makes them, or with feedback of the one that
        reads the current estimate.
      encoder: a name in core/encoders.py. A ViT is part of the model; of other encoders the maps
        are inputs.
      encoder_channels: channels of the image encoder's maps, finest first; () makes a model without
        image.
      pyramid: "project" (maps at several scales) or "simple" (a ViT's single map, at
        `pyramid_scales`).
      feedback: whether each step gets the projection of the estimate of the step before it
        (core/feedback.py). It replaces the context tokens. The paper's model has none.
      score_width: width of the network that scores estimates, of a model with feedback.
      box_token: whether there is a separate context token of the box information (CLIFF, Li et al.
        2022), after those that mix it with the keypoints. The context of an image-only model always
        is such a token.
    """

    tokenizer: TokenizerSpec = TokenizerSpec()
    transformer: TransformerSpec = TransformerSpec()
    num_keypoints: int = 23
    context_tokens: int = 6
    context_width: int = 512
    context_depth: int = 3
    encoder: str = "blazepose_full"
    encoder_channels: tuple[int, ...] = ()
    pyramid: str = "project"
    pyramid_scales: tuple[float, ...] = (4.0, 2.0, 1.0)
    feedback: bool = False
    score_width: int = 256
    box_token: bool = False

    def __post_init__(self) -> None:
        levels = len(self.encoder_channels)
        if levels and self.pyramid != "project":
            levels = len(self.pyramid_scales)
        if self.transformer.levels != levels:
            transformer = dataclasses.replace(self.transformer, levels=levels)
            object.__setattr__(self, "transformer", transformer)
        check_sizes(self, "context_width", "score_width" if self.feedback else "context_tokens")
        check_sizes(self, "context_depth", least=0)
        if self.num_keypoints not in (0, len(DETECTED)):
            choices = f"0 or {len(DETECTED)}"
            raise ValueError(f"num_keypoints is {self.num_keypoints}: choose {choices}")
        if self.encoder_channels:
            encoders.find(self.encoder)  # raises ValueError
        if not all(isinstance(n, int) and n > 0 for n in self.encoder_channels):
            raise ValueError(f"encoder_channels {self.encoder_channels}: give numbers of channels")
        if self.pyramid not in PYRAMIDS:
            raise ValueError(f"pyramid {self.pyramid!r} must be {' or '.join(PYRAMIDS)}")
        if self.trains_encoder or self.upright:
            channels = encoders.find(self.encoder).channels
            if self.encoder_channels != channels:
                maps = f"maps of {channels} channels, not {self.encoder_channels}"
                raise ValueError(f"encoder {self.encoder!r} has {maps}")
        if not self.num_keypoints and not levels:
            remedy = "set num_keypoints or encoder_channels"
            raise ValueError(f"a model without keypoints and without image has no input: {remedy}")
        if self.box_token and self.feedback:
            raise ValueError("box_token: a model with feedback has no context tokens")
        if self.box_token and not self.num_keypoints:
            reason = "the context of a model without keypoints is a token of the box already"
            raise ValueError(f"box_token: {reason}")

    @property
    def upright(self) -> bool:
        """Whether inputs are in the axes of the detector's region (CropCamera.upright).

        In these axes people are upright. Otherwise inputs are in the axes of the photo.
        """
        return bool(self.encoder_channels) and encoders.find(self.encoder).upright

    @property
    def trains_encoder(self) -> bool:
        """Whether the image encoder is part of the model, whose input is then the crop's pixels."""
        return bool(self.encoder_channels) and encoders.find(self.encoder).trained

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "GenHmrSpec":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON and back."""
        tuples = lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        parts = {
            "tokenizer": TokenizerSpec(**tuples(values["tokenizer"])),
            "transformer": TransformerSpec(**values["transformer"]),
        }
        return GenHmrSpec(**tuples(values) | parts)
