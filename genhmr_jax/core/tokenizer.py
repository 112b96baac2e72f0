"""The pose tokenizer: a VQ-VAE from 24 SMPL joint rotations to L discrete tokens (stage 1).

The encoder maps a pose to L latent vectors. Each of them is replaced by the nearest of N code
vectors (core/quantizer.py), whose index is the token. The decoder maps the L code vectors, or any
other embeddings, back to rotations. Stage 2 predicts these tokens; the tokenizer is frozen there.
There are two architectures with one interface:

* `conv`: that of the paper, 1-D residual convolutions along the joint axis and nearest-neighbour
  upsampling to the token length (96 tokens, 2048 codes of 256 dims). Small, but slow on a CPU.
* `parts`: the shipped default. Each body part (root, trunk, legs, arms) has its own tokens, and a
  residual MLP to and from them. A token describes one part, and so does its confidence.

Networks use rotations in 6D, layout "rows" (Zhou et al. 2019; as in TokenHMR's tokenizer).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from smpl_jax import rotations

from genhmr_jax.core import quantizer
from genhmr_jax.nets.mlp import ResidualMlp

PARTS = (
    (0,),  # root
    (3, 6, 9, 12, 15),  # trunk: spine1 to spine3, neck, head
    (1, 4, 7, 10),  # left leg
    (2, 5, 8, 11),  # right leg
    (13, 16, 18, 20, 22),  # left arm
    (14, 17, 19, 21, 23),  # right arm
)
"""Joints of each body part, as indices of SMPL's 24 joints."""
ARCHITECTURES = ("parts", "conv")


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """Sizes of the tokenizer.

    Attributes:
      arch: one of ARCHITECTURES.
      part_tokens: tokens of each of PARTS, for "parts".
      num_tokens: for "conv".
    """

    arch: str = "parts"
    part_tokens: tuple[int, ...] = (5, 5, 5, 5, 5, 5)
    num_tokens: int = 96
    codebook_size: int = 1024
    code_dim: int = 16
    width: int = 256
    depth: int = 2
    dilation_growth: int = 3

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"tokenizer arch {self.arch!r}: choose {' or '.join(ARCHITECTURES)}")
        if self.arch == "parts" and len(self.part_tokens) != len(PARTS):
            needed = f"{len(PARTS)} numbers are needed, one for each of root, trunk, legs, arms"
            raise ValueError(f"part_tokens {self.part_tokens}: {needed}")

    @property
    def length(self) -> int:
        """Tokens per pose."""
        return sum(self.part_tokens) if self.arch == "parts" else self.num_tokens


class PartsCoder(nnx.Module):
    """One residual MLP for each body part.

    It maps the n_p rows of part p to m_p rows: (B, n_p, i) -> (B, m_p, o). Rows are in the order of
    PARTS.
    """

    def __init__(
        self,
        rows_in: Sequence[int],
        size_in: int,
        rows_out: Sequence[int],
        size_out: int,
        spec: TokenizerSpec,
        *,
        rngs: nnx.Rngs,
    ):
        self.rows_in, self.size_out = tuple(rows_in), size_out
        mlp = lambda n, m: ResidualMlp(n * size_in, spec.width, spec.depth, m * size_out, rngs=rngs)
        rows = zip(rows_in, rows_out, strict=True)
        self.parts = nnx.Dict({f"part_{p}": mlp(n, m) for p, (n, m) in enumerate(rows)})

    def __call__(self, x: Float[Array, "B n i"]) -> Float[Array, "B m o"]:
        pieces, start = [], 0
        for p, n in enumerate(self.rows_in):
            piece = x[:, start : start + n].reshape(x.shape[0], -1)
            pieces.append(self.parts[f"part_{p}"](piece).reshape(x.shape[0], -1, self.size_out))
            start += n
        return jnp.concatenate(pieces, 1)


class PartsEncoder(nnx.Module):
    """Pose (B, 24, 6) -> (B, L, D)."""

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.coder = PartsCoder(
            [len(p) for p in PARTS], 6, spec.part_tokens, spec.code_dim, spec, rngs=rngs
        )

    def __call__(self, rot6d: Float[Array, "B 24 6"]) -> Float[Array, "B L D"]:
        return self.coder(rot6d[:, np.concatenate(PARTS)])


class PartsDecoder(nnx.Module):
    """(B, L, D) -> pose (B, 24, 6)."""

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.coder = PartsCoder(
            spec.part_tokens, spec.code_dim, [len(p) for p in PARTS], 6, spec, rngs=rngs
        )

    def __call__(self, z: Float[Array, "B L D"]) -> Float[Array, "B 24 6"]:
        return self.coder(z)[:, np.argsort(np.concatenate(PARTS))]


def nearest_resize(x: Float[Array, "B n C"], length: int) -> Float[Array, "B m C"]:
    """Nearest-neighbour resizing of the second axis, as in PyTorch: floor(i * in / out)."""
    return x[:, np.arange(length) * x.shape[1] // length]


class ConvStack(nnx.Module):
    """A stack of 1-D convolutions, channels last.

    Convolution -> nearest-neighbour resizing through `lengths`, each with a convolution -> dilated
    residual blocks -> convolution.
    """

    def __init__(
        self,
        size_in: int,
        size_out: int,
        lengths: Sequence[int],
        spec: TokenizerSpec,
        *,
        rngs: nnx.Rngs,
    ):
        self.lengths = tuple(lengths)
        conv = lambda i, o, k=3, d=1: nnx.Conv(
            i, o, (k,), kernel_dilation=d, padding="SAME", rngs=rngs
        )
        width = spec.width
        self.inp = conv(size_in, width)
        self.resized = nnx.Dict({f"conv_{i}": conv(width, width) for i in range(len(lengths))})
        dilations = [spec.dilation_growth**i for i in reversed(range(spec.depth))]
        block = lambda d: nnx.Dict({"a": conv(width, width, 3, d), "b": conv(width, width, 1)})
        self.blocks = nnx.Dict({f"block_{i:02d}": block(d) for i, d in enumerate(dilations)})
        self.out = conv(width, size_out)

    def __call__(self, x: Float[Array, "B n i"]) -> Float[Array, "B m o"]:
        x = jax.nn.relu(self.inp(x.astype(self.inp.kernel[...].dtype)))
        for i, length in enumerate(self.lengths):
            x = jax.nn.relu(self.resized[f"conv_{i}"](nearest_resize(x, length)))
        for _, block in sorted(self.blocks.items()):
            x = x + block["b"](jax.nn.relu(block["a"](jax.nn.relu(x))))
        return self.out(x)


class PoseTokenizer(nnx.Module):
    """Encoder and decoder; the codebook is separate state (see quantizer.py).

    Both compute in the type of their parameters. Their results are float32.
    """

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        if spec.arch == "parts":
            self.encoder = PartsEncoder(spec, rngs=rngs)
            self.decoder = PartsDecoder(spec, rngs=rngs)
        else:
            halfway = (24 + spec.num_tokens) // 2
            self.encoder = ConvStack(6, spec.code_dim, (halfway, spec.num_tokens), spec, rngs=rngs)
            self.decoder = ConvStack(spec.code_dim, 6, (halfway, 24), spec, rngs=rngs)

    def encode(self, rotmats: Float[Array, "B 24 3 3"]) -> Float[Array, "B L D"]:
        """Rotation matrices of the 24 joints (root first) -> one latent vector for each token."""
        return self.encoder(rotations.matrix_to_rot6d(rotmats, "rows")).astype(jnp.float32)

    def decode(self, embeddings: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
        """Token embeddings (codes or any other vectors) -> rotation matrices."""
        return rotations.rot6d_to_matrix(self.decoder(embeddings).astype(jnp.float32), "rows")

    def tokenize(
        self, vectors: Float[Array, "N D"], rotmats: Float[Array, "B 24 3 3"]
    ) -> Int[Array, "B L"]:
        """Rotation matrices -> token ids, given the codebook vectors."""
        return quantizer.nearest(vectors, self.encode(rotmats))
