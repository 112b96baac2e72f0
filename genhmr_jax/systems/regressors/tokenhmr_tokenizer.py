"""TokenHMR's pose tokenizer: 21 body joints <-> 160 tokens of 2048 codes x 256 dims.

Convolutions along the joints, no norm.

13,136,134 parameters in encoder and decoder.
"""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax import rotations

BODY_JOINTS, TOKENS, CODES, CODE_DIM, WIDTH = 21, 160, 2048, 256, 512
UP_TO = (40, 80, 160, 320)  # the encoder stretches 21 joints to these, then halves
DOWN_TO = tuple(int(n) for n in np.linspace(BODY_JOINTS, TOKENS, 4, endpoint=False))[
    ::-1
]  # 125, 90, 55, 21


def _conv(size_in: int, size_out: int, kernel: int, rngs: nnx.Rngs, **others: object) -> nnx.Conv:
    return nnx.Conv(
        size_in, size_out, (kernel,), padding=others.pop("padding", "SAME"), rngs=rngs, **others
    )


def nearest_resize(x: Float[Array, "B n C"], length: int) -> Float[Array, "B m C"]:
    """Nearest neighbour as PyTorch has it: floor(i * in / out)."""
    return x[:, np.arange(length) * x.shape[1] // length]


class ResidualBlocks(nnx.Module):
    """x + conv1(relu(conv3(relu(x)))) twice, dilated by 3, then by 1."""

    def __init__(self, *, rngs: nnx.Rngs):
        block = lambda dilation: nnx.Dict(
            {
                "conv1": _conv(WIDTH, WIDTH, 3, rngs, kernel_dilation=dilation),
                "conv2": _conv(WIDTH, WIDTH, 1, rngs),
            }
        )
        self.blocks = nnx.Dict({"block_0": block(3), "block_1": block(1)})

    def __call__(self, x: Float[Array, "B n C"]) -> Float[Array, "B n C"]:
        for _, block in sorted(self.blocks.items()):
            x = x + block["conv2"](jax.nn.relu(block["conv1"](jax.nn.relu(x))))
        return x


class TokenEncoder(nnx.Module):
    """Rotation matrices of SMPL's joints 1..21 -> (B, 160, 256), before quantization."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.inp = _conv(6, WIDTH, 3, rngs)
        self.resized = nnx.Dict(
            {f"conv_{i}": _conv(WIDTH, WIDTH, 3, rngs) for i in range(len(UP_TO))}
        )
        self.halve = _conv(WIDTH, WIDTH, 4, rngs, strides=2, padding=((1, 1),))
        self.blocks, self.out = ResidualBlocks(rngs=rngs), _conv(WIDTH, CODE_DIM, 3, rngs)

    def __call__(self, rotmats: Float[Array, "B 21 3 3"]) -> Float[Array, "B 160 256"]:
        x = jax.nn.relu(self.inp(rotations.matrix_to_rot6d(rotmats, "rows")))
        for i, length in enumerate(UP_TO):
            x = jax.nn.relu(self.resized[f"conv_{i}"](nearest_resize(x, length)))
        return self.out(self.blocks(self.halve(x)))


class TokenDecoder(nnx.Module):
    """(B, 160, 256), codes or anything between them -> 6D ("rows") of SMPL's joints 1..21, not
    orthonormal.

    `DecodeTokens` returns the same (tokenization/models/vanilla_pose_vqvae.py, L297 of TokenHMR):
    the head adds a mean pose before it orthonormalises, so the lengths of these vectors count.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.inp = _conv(CODE_DIM, WIDTH, 3, rngs)
        self.resized = nnx.Dict(
            {f"conv_{i}": _conv(WIDTH, WIDTH, 3, rngs) for i in range(len(DOWN_TO))}
        )
        self.blocks, self.mix, self.out = (
            ResidualBlocks(rngs=rngs),
            _conv(WIDTH, WIDTH, 3, rngs),
            _conv(WIDTH, 6, 3, rngs),
        )

    def __call__(self, embeddings: Float[Array, "B 160 256"]) -> Float[Array, "B 21 6"]:
        x = jax.nn.relu(self.inp(embeddings))
        for i, length in enumerate(DOWN_TO):
            x = jax.nn.relu(self.resized[f"conv_{i}"](nearest_resize(x, length)))
        return self.out(self.mix(self.blocks(x)))
