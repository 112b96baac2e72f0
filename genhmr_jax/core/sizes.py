"""Sizes of the tokenizer and of the masked transformer.

They are apart from the networks, whose import takes longer than a photo: with stored programs no
network is built.
"""

import dataclasses
from typing import Any

import numpy as np

from genhmr_jax.nets.sizes import check_heads, check_sizes

BODY_PARTS = (
    (0,),  # root
    (3, 6, 9, 12, 15),  # trunk: spine1 to spine3, neck, head
    (1, 4, 7, 10),  # left leg
    (2, 5, 8, 11),  # right leg
    (13, 16, 18, 20, 22),  # left arm
    (14, 17, 19, 21, 23),  # right arm
)
"""Joints of each body part, as indices of SMPL's 24 joints."""
HAND_PARTS = ((0,), *((j, j + 1, j + 2) for j in range(1, 16, 3)))
"""Wrist, index, middle, little, ring finger and thumb, as indices of MANO's 16 joints."""
SKELETONS = {"body": BODY_PARTS, "hand": HAND_PARTS}
ARCHITECTURES = ("parts", "conv")
ACTIVATIONS = ("gelu", "relu")


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """Sizes of the tokenizer.

    Attributes:
      arch: one of ARCHITECTURES.
      part_tokens: number of tokens of each part of the skeleton, for "parts".
      num_tokens: number of tokens of a pose, L, for "conv".
      codebook_size: number of code vectors, N.
      code_dim: dimensions of a code vector, D.
      width: channels of the hidden layers.
      depth: number of residual blocks of an MLP, or of a stack of convolutions.
      dilation_growth: ratio of the dilations of two successive blocks, for "conv".
      skeleton: whose poses they are, one of SKELETONS.
    """

    arch: str = "parts"
    part_tokens: tuple[int, ...] = (5, 5, 5, 5, 5, 5)
    num_tokens: int = 96
    codebook_size: int = 1024
    code_dim: int = 16
    width: int = 256
    depth: int = 2
    dilation_growth: int = 3
    skeleton: str = "body"

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"tokenizer arch {self.arch!r}: choose {' or '.join(ARCHITECTURES)}")
        if self.skeleton not in SKELETONS:
            choices = " or ".join(SKELETONS)
            raise ValueError(f"tokenizer skeleton {self.skeleton!r}: choose {choices}")
        if self.arch == "parts" and len(self.part_tokens) != len(self.parts):
            names = {"body": "root, trunk, legs, arms", "hand": "wrist and fingers"}
            needed = f"{len(self.parts)} numbers are needed, one for each of {names[self.skeleton]}"
            raise ValueError(f"part_tokens {self.part_tokens}: {needed}")
        if self.arch == "parts" and not all(isinstance(n, int) and n > 0 for n in self.part_tokens):
            raise ValueError(f"part_tokens {self.part_tokens}: each part needs a token")
        if self.arch == "conv":
            check_sizes(self, "num_tokens", "dilation_growth")
        check_sizes(self, "codebook_size", "code_dim", "width")
        check_sizes(self, "depth", least=0)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "TokenizerSpec":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON and back."""
        return TokenizerSpec(**values | {"part_tokens": tuple(values["part_tokens"])})

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The joints of each part."""
        return SKELETONS[self.skeleton]

    @property
    def joints(self) -> int:
        """Number of joints, J."""
        return sum(map(len, self.parts))

    @property
    def length(self) -> int:
        """Number of tokens of a pose, L."""
        return sum(self.part_tokens) if self.arch == "parts" else self.num_tokens

    @property
    def independent_parts(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] | None:
        """(joints, tokens that determine them) of each part; None if all depend on all."""
        if self.arch != "parts":
            return None
        ends = np.cumsum(self.part_tokens).tolist()
        tokens = [tuple(range(end - n, end)) for end, n in zip(ends, self.part_tokens, strict=True)]
        return tuple(zip(self.parts, tokens, strict=True))


@dataclasses.dataclass(frozen=True)
class TransformerSpec:
    """Sizes of the masked transformer.

    Attributes:
      width: channels of a token.
      layers: number of layers.
      heads: of each attention.
      mlp_ratio: hidden channels of the MLP relative to `width`.
      levels: number of feature maps of the cross-attention (0: a network without an image).
      points: number of sampled points of each map, for each token and head.
      activation: of the MLP.
      geometric: input and output use the code vectors, see MaskedTransformer.
      head_rank: 0 for a full linear head (the paper's), else the logits are products with learned
        code features of this many dims.
    """

    width: int = 192
    layers: int = 4
    heads: int = 6
    mlp_ratio: int = 4
    levels: int = 3
    points: int = 4
    activation: str = "gelu"  # or "relu", a third cheaper on a CPU
    geometric: bool = True
    head_rank: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, "width", "heads", "mlp_ratio")
        check_sizes(self, "layers", least=0)
        if self.levels:
            check_sizes(self, "points")
        check_heads(self.width, self.heads)
        if self.activation not in ACTIVATIONS:
            choices = " or ".join(ACTIVATIONS)
            raise ValueError(f"activation {self.activation!r}: choose {choices}")
        check_sizes(self, "head_rank", least=0)
