"""The pose tokenizer: a VQ-VAE from J joint rotations to L discrete tokens (stage 1).

    rotations -> encoder -> L latent vectors -> nearest code vectors -> decoder -> rotations

The encoder maps a pose to L latent vectors. Each of them is replaced by the nearest of N code
vectors, whose index is the token. The decoder maps the L code vectors, or any other embeddings,
back to rotations. Training minimises the difference between the input pose and the decoded pose.
Gradients pass the replacement unchanged (straight-through), and a code vector is the moving average
of the latent vectors that it replaces (core/quantizer.py). In stage 2 the tokenizer is frozen, and
a transformer predicts its tokens. There are two architectures with one interface:

* `conv`: that of the paper, 1-D residual convolutions along the joint axis and nearest-neighbour
  upsampling to the token length (96 tokens, 2048 codes of 256 dims). Small, but slow on a CPU.
* `parts`: the shipped default. Each part of the skeleton (of a body root, trunk, legs, arms; of a
  hand wrist and fingers) has its own tokens, and a residual MLP to and from them. A token describes
  one part, and so does its confidence.

The networks represent a rotation in 6D, by the first two rows of its matrix (Zhou et al. 2019; as
in TokenHMR's tokenizer). Gram-Schmidt makes any output of the decoder a rotation.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from smpl_jax import rotations

from genhmr_jax.core import quantizer
from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.nets.mlp import ResidualMlp


class PartsCoder(nnx.Module):
    """One residual MLP for each body part, from its joints to its tokens or back.

    The MLP of a part maps n rows to m rows, (B, n, i) -> (B, m, o), as one flat vector. A row is a
    joint or a token. The MLP consists of `spec.depth` blocks x + W2 gelu(W1 norm(x)) between an
    input and an output projection.

    Args:
      rows_in, rows_out: indices of the rows of each part. Every row belongs to one part.
      size_in, size_out: i, o.
      spec: of the tokenizer.
    """

    def __init__(
        self,
        rows_in: Sequence[Sequence[int]],
        size_in: int,
        rows_out: Sequence[Sequence[int]],
        size_out: int,
        spec: TokenizerSpec,
        *,
        rngs: nnx.Rngs,
    ):
        self.rows_in, self.rows_out = tuple(map(tuple, rows_in)), tuple(map(tuple, rows_out))
        self.size_out = size_out
        mlp = lambda rows, more: ResidualMlp(
            len(rows) * size_in, spec.width, spec.depth, len(more) * size_out, rngs=rngs
        )
        rows = zip(rows_in, rows_out, strict=True)
        self.parts = nnx.Dict({f"part_{p}": mlp(*both) for p, both in enumerate(rows)})

    def function(self) -> Callable[[Float[Array, "B n i"]], Float[Array, "B m o"]]:
        """The network as a function, for many calls with the same parameters.

        They are stacked here, once, and the MLPs are computed as a batched one: a call is a program
        of the size of one MLP, and for one pose it takes two thirds of the time. In the training of
        the parameters the stacks would cost more than they save.
        """
        split = [nnx.split(self.parts[f"part_{p}"]) for p in range(len(self.rows_in))]
        graph, parts = split[0][0], len(split)
        stacked = jax.tree.map(_stacked, *(state for _, state in split))
        # Rows of the parts, (P, n_max). A shorter part repeats its last row: the kernels are zero
        # there, and no part sees another.
        most = max(map(len, self.rows_in))
        source = np.array([rows + rows[-1:] * (most - len(rows)) for rows in self.rows_in])
        # Where the parts' results, (P, m_max) rows, have each row of the output.
        most = max(map(len, self.rows_out))
        place = [p * most + k for p, rows in enumerate(self.rows_out) for k in range(len(rows))]
        target = np.array(place)[np.argsort(np.concatenate(self.rows_out))]

        def network(x: Float[Array, "B n i"]) -> Float[Array, "B m o"]:
            batch = x.shape[0]
            flat = _rows(x, source.reshape(-1)).reshape(batch, parts, -1)
            mlp = lambda state, flat: nnx.merge(graph, state)(flat)
            out = jax.vmap(mlp, (0, 1), 1)(stacked, flat)  # (B, P, m_max o)
            return _rows(out.reshape(batch, parts * most, -1), target)

        return network

    def __call__(self, x: Float[Array, "B n i"]) -> Float[Array, "B m o"]:
        x = _rows(x, np.concatenate(self.rows_in))
        pieces, start = [], 0
        for p, rows in enumerate(self.rows_in):
            piece = x[:, start : start + len(rows)].reshape(x.shape[0], -1)
            pieces.append(self.parts[f"part_{p}"](piece).reshape(x.shape[0], -1, self.size_out))
            start += len(rows)
        return _rows(jnp.concatenate(pieces, 1), np.argsort(np.concatenate(self.rows_out)))


def _stacked(*arrays: jax.Array) -> jax.Array:
    """Arrays of one rank on a new first axis, each filled up with zeros to the largest shape."""
    shape = np.max([array.shape for array in arrays], 0)
    fill = lambda array: [(0, n - m) for n, m in zip(shape, array.shape, strict=True)]
    filled = [a if a.shape == tuple(shape) else jnp.pad(a, fill(a)) for a in arrays]
    return jnp.concatenate(filled).reshape(len(arrays), *shape)


def _rows(x: Float[Array, "B n i"], index: np.ndarray) -> Float[Array, "B m i"]:
    """The rows x[:, index]."""
    if np.array_equal(index, np.arange(x.shape[1])):
        return x
    return jnp.take(x, index, 1, mode="clip")


def _token_rows(spec: TokenizerSpec) -> list[range]:
    """The tokens of each part."""
    ends = np.cumsum(spec.part_tokens).tolist()
    return [range(end - count, end) for end, count in zip(ends, spec.part_tokens, strict=True)]


class PartsEncoder(nnx.Module):
    """Pose (B, J, 6) -> latent vectors (B, L, D)."""

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.coder = PartsCoder(spec.parts, 6, _token_rows(spec), spec.code_dim, spec, rngs=rngs)

    def __call__(self, rot6d: Float[Array, "B J 6"]) -> Float[Array, "B L D"]:
        return self.coder(rot6d)


class PartsDecoder(nnx.Module):
    """Token embeddings (B, L, D) -> pose (B, J, 6)."""

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.coder = PartsCoder(_token_rows(spec), spec.code_dim, spec.parts, 6, spec, rngs=rngs)

    def function(self) -> Callable[[Float[Array, "B L D"]], Float[Array, "B J 6"]]:
        """The network as a function, see PartsCoder."""
        return self.coder.function()

    def __call__(self, z: Float[Array, "B L D"]) -> Float[Array, "B J 6"]:
        return self.coder(z)


def nearest_resize(x: Float[Array, "B n C"], length: int) -> Float[Array, "B m C"]:
    """Nearest-neighbour resizing of the second axis, as in PyTorch: floor(i * in / out)."""
    return x[:, np.arange(length) * x.shape[1] // length]


class ConvStack(nnx.Module):
    """A stack of 1-D convolutions along the joints or tokens, channels last.

    Convolution; then for each of `lengths` nearest-neighbour resizing and a convolution; then
    dilated residual blocks, the largest dilation first; then a convolution.
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

    def function(self) -> Callable[[Float[Array, "B n i"]], Float[Array, "B m o"]]:
        """The network as a function."""
        return self.__call__

    def __call__(self, x: Float[Array, "B n i"]) -> Float[Array, "B m o"]:
        x = jax.nn.relu(self.inp(x.astype(self.inp.kernel[...].dtype)))
        for i, length in enumerate(self.lengths):
            x = jax.nn.relu(self.resized[f"conv_{i}"](nearest_resize(x, length)))
        for _, block in sorted(self.blocks.items()):
            x = x + block["b"](jax.nn.relu(block["a"](jax.nn.relu(x))))
        return self.out(x)


class PoseTokenizer(nnx.Module):
    """Encoder and decoder. The codebook is separate state (core/quantizer.py).

    Both networks compute in the type of their parameters. Their results are float32.
    """

    def __init__(self, spec: TokenizerSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        if spec.arch == "parts":
            self.encoder = PartsEncoder(spec, rngs=rngs)
            self.decoder = PartsDecoder(spec, rngs=rngs)
        else:
            joints, halfway = spec.joints, (spec.joints + spec.num_tokens) // 2
            self.encoder = ConvStack(6, spec.code_dim, (halfway, spec.num_tokens), spec, rngs=rngs)
            self.decoder = ConvStack(spec.code_dim, 6, (halfway, joints), spec, rngs=rngs)

    def encode(self, rotmats: Float[Array, "B J 3 3"]) -> Float[Array, "B L D"]:
        """Encode rotation matrices of the J joints (root first) as one latent vector per token."""
        return self.encoder(rotations.matrix_to_rot6d(rotmats, "rows")).astype(jnp.float32)

    def decode(self, embeddings: Float[Array, "B L D"]) -> Float[Array, "B J 3 3"]:
        """Decode token embeddings (code vectors or any others) to rotation matrices."""
        return _rotations(self.decoder(embeddings))

    def decoding(self) -> Callable[[Float[Array, "B L D"]], Float[Array, "B J 3 3"]]:
        """`decode` as a function, for many calls with the same parameters."""
        network = self.decoder.function()
        return lambda embeddings: _rotations(network(embeddings))

    def tokenize(
        self, vectors: Float[Array, "N D"], rotmats: Float[Array, "B J 3 3"]
    ) -> Int[Array, "B L"]:
        """Encode rotation matrices as tokens: for each latent vector the id of the nearest code.

        Args:
          vectors: the N code vectors.
          rotmats: rotation matrices of the J joints.
        """
        return quantizer.nearest(vectors, self.encode(rotmats))


def _rotations(rot6d: Float[Array, "B J 6"]) -> Float[Array, "B J 3 3"]:
    """Rotation matrices, in float32."""
    return rotations.rot6d_to_matrix(rot6d.astype(jnp.float32), "rows")
