"""The decoder of TokenHMR's pose tokenizer: 160 tokens (2048 codes of 256 dims) -> 21 body joints.

It has convolutions along the joints and no normalisation; 6,436,870 parameters. The tokenizer's
encoder is not needed: the head predicts tokens from the image.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.core.tokenizer import nearest_resize

BODY_JOINTS, TOKENS, CODES, CODE_DIM, WIDTH = 21, 160, 2048, 256, 512
DOWN_TO = (125, 90, 55, 21)  # lengths to which the 160 tokens are resized, one after another


def _conv(size_in: int, size_out: int, kernel: int, rngs: nnx.Rngs, dilation: int = 1) -> nnx.Conv:
    options = {"kernel_dilation": dilation, "padding": "SAME"}
    return nnx.Conv(size_in, size_out, (kernel,), rngs=rngs, **options)


class ResidualBlocks(nnx.Module):
    """x + conv1(relu(conv3(relu(x)))) twice, dilated by 3, then by 1."""

    def __init__(self, *, rngs: nnx.Rngs):
        def block(dilation: int) -> nnx.Dict:
            conv1 = _conv(WIDTH, WIDTH, 3, rngs, dilation)
            return nnx.Dict({"conv1": conv1, "conv2": _conv(WIDTH, WIDTH, 1, rngs)})

        self.blocks = nnx.Dict({"block_0": block(3), "block_1": block(1)})

    def __call__(self, x: Float[Array, "B n C"]) -> Float[Array, "B n C"]:
        for _, block in sorted(self.blocks.items()):
            x = x + block["conv2"](jax.nn.relu(block["conv1"](jax.nn.relu(x))))
        return x


class TokenDecoder(nnx.Module):
    """Embeddings (codes or any other vectors) -> 6D numbers ("rows") of SMPL's joints 1..21.

    They are not orthonormal: the head adds a mean pose before it orthonormalises, so that the
    lengths of these vectors matter. `DecodeTokens` returns the same
    (tokenization/models/vanilla_pose_vqvae.py, L297 of TokenHMR).
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.inp = _conv(CODE_DIM, WIDTH, 3, rngs)
        names = [f"conv_{i}" for i in range(len(DOWN_TO))]
        self.resized = nnx.Dict({name: _conv(WIDTH, WIDTH, 3, rngs) for name in names})
        self.blocks = ResidualBlocks(rngs=rngs)
        self.mix = _conv(WIDTH, WIDTH, 3, rngs)
        self.out = _conv(WIDTH, 6, 3, rngs)

    def __call__(self, embeddings: Float[Array, "B 160 256"]) -> Float[Array, "B 21 6"]:
        x = jax.nn.relu(self.inp(embeddings))
        for i, length in enumerate(DOWN_TO):
            x = jax.nn.relu(self.resized[f"conv_{i}"](nearest_resize(x, length)))
        return self.out(self.mix(self.blocks(x)))
