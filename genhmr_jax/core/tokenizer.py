"""The pose tokenizer: a VQ-VAE from 24 SMPL joint rotations to a short sequence of discrete tokens (GenHMR, stage 1).

Two architectures behind one interface:

* ``conv``  the paper's: 1-D residual convolutions along the joint axis, nearest-neighbour upsampling to the token length
            (method.md §1; 96 tokens x 2048 codes x 256 dims by default). Small, slow on a CPU.
* ``parts`` the shipped default: each body part (root, trunk, legs, arms) has its own tokens, and its own residual MLP to and
            from them. So a token means something local: its confidence is a confidence about that part.

Rotations travel as 6D in the "rows" layout (Zhou et al. 2019, as in TokenHMR's tokenizer).
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

# Joints of each part in SMPL's order: root | spine1-3, neck, head | left leg | right leg | left arm | right arm
PARTS = ((0,), (3, 6, 9, 12, 15), (1, 4, 7, 10), (2, 5, 8, 11), (13, 16, 18, 20, 22), (14, 17, 19, 21, 23))


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """Sizes of the tokenizer. `part_tokens` (tokens of each of PARTS) is read by "parts", `num_tokens` by "conv"."""

    arch: str = "parts"
    part_tokens: tuple[int, ...] = (5, 5, 5, 5, 5, 5)
    num_tokens: int = 96
    codebook_size: int = 1024
    code_dim: int = 16
    width: int = 256
    depth: int = 2
    dilation_growth: int = 3

    def __post_init__(self) -> None:
        if self.arch not in ("parts", "conv"):
            raise ValueError(f"tokenizer arch {self.arch!r}: choose 'parts' or 'conv'")
        if self.arch == "parts" and len(self.part_tokens) != len(PARTS):
            raise ValueError(f"part_tokens {self.part_tokens}: {len(PARTS)} numbers are needed, one for each of root, trunk, legs, arms")

    @property
    def length(self) -> int:
        """Tokens per pose."""
        return sum(self.part_tokens) if self.arch == "parts" else self.num_tokens


class PartsCoder(nnx.Module):
    """One residual MLP for each body part: (B, n_p, i) -> (B, m_p, o) for the n_p rows of the part, in the order of PARTS."""

    def __init__(
        self, rows_in: Sequence[int], size_in: int, rows_out: Sequence[int], size_out: int, spec: TokenizerSpec, *, rngs: nnx.Rngs
    ):
        self.rows_in, self.size_out = tuple(rows_in), size_out
        self.parts = nnx.Dict(
            {
                f"part_{p}": ResidualMlp(n * size_in, spec.width, spec.depth, m * size_out, rngs=rngs)
                for p, (n, m) in enumerate(zip(rows_in, rows_out, strict=True))
            }
        )

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
        self.coder = PartsCoder([len(p) for p in PARTS], 6, spec.part_tokens, spec.code_dim, spec, rngs=rngs)

    def __call__(self, rot6d: Float[Array, "B 24 6"]) -> Float[Array, "B L D"]:
        return self.coder(rot6d[:, np.concatenate(PARTS)])


class PartsDecoder(nnx.Module):
    """(B, L, D) -> pose (B, 24, 6)."""

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.coder = PartsCoder(spec.part_tokens, spec.code_dim, [len(p) for p in PARTS], 6, spec, rngs=rngs)

    def __call__(self, z: Float[Array, "B L D"]) -> Float[Array, "B 24 6"]:
        return self.coder(z)[:, np.argsort(np.concatenate(PARTS))]


class ConvStack(nnx.Module):
    """Conv -> nearest-neighbour resizes through `lengths` with a conv each -> dilated residual blocks -> conv (channels last)."""

    def __init__(self, size_in: int, size_out: int, lengths: Sequence[int], spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.lengths = tuple(lengths)
        conv = lambda i, o, k=3, d=1: nnx.Conv(i, o, (k,), kernel_dilation=d, padding="SAME", rngs=rngs)  # noqa: E731
        self.inp = conv(size_in, spec.width)
        self.resized = nnx.Dict({f"conv_{i}": conv(spec.width, spec.width) for i in range(len(lengths))})
        dilations = [spec.dilation_growth**i for i in reversed(range(spec.depth))]
        self.blocks = nnx.Dict(
            {
                f"block_{i:02d}": nnx.Dict({"a": conv(spec.width, spec.width, 3, d), "b": conv(spec.width, spec.width, 1)})
                for i, d in enumerate(dilations)
            }
        )
        self.out = conv(spec.width, size_out)

    def __call__(self, x: Float[Array, "B n i"]) -> Float[Array, "B m o"]:
        x = jax.nn.relu(self.inp(x.astype(self.inp.kernel[...].dtype)))
        for i, length in enumerate(self.lengths):
            x = x[:, jnp.arange(length) * x.shape[1] // length]  # nearest neighbour: floor(i * in / out)
            x = jax.nn.relu(self.resized[f"conv_{i}"](x))
        for _, block in sorted(self.blocks.items()):
            x = x + block["b"](jax.nn.relu(block["a"](jax.nn.relu(x))))
        return self.out(x)


class PoseTokenizer(nnx.Module):
    """Encoder and decoder; the codebook is separate state (see quantizer.py).

    Both compute in the type of their parameters; vectors and rotations that come out are float32.
    """

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        if spec.arch == "parts":
            self.encoder, self.decoder = PartsEncoder(spec, rngs=rngs), PartsDecoder(spec, rngs=rngs)
        else:
            halfway = (24 + spec.num_tokens) // 2
            self.encoder = ConvStack(6, spec.code_dim, (halfway, spec.num_tokens), spec, rngs=rngs)
            self.decoder = ConvStack(spec.code_dim, 6, (halfway, 24), spec, rngs=rngs)

    def encode(self, rotmats: Float[Array, "B 24 3 3"]) -> Float[Array, "B L D"]:
        """Rotation matrices of the 24 joints (root first) -> one latent vector a token."""
        return self.encoder(rotations.matrix_to_rot6d(rotmats, "rows")).astype(jnp.float32)

    def decode(self, embeddings: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
        """Token embeddings (codes or anything between them) -> rotation matrices."""
        return rotations.rot6d_to_matrix(self.decoder(embeddings).astype(jnp.float32), "rows")

    def tokenize(self, vectors: Float[Array, "N D"], rotmats: Float[Array, "B 24 3 3"]) -> Int[Array, "B L"]:
        """Rotation matrices -> token ids, given the codebook vectors."""
        return quantizer.nearest(vectors, self.encode(rotmats))
