"""The heads of HMR2.0 and TokenHMR: from the query to a body.

Both add the outputs of their linear heads to a mean body. It is taken from the checkpoint
(`init_*`), not from a mean-params file, whose 6D layout is another one.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.systems.regressors.query_decoder import QueryDecoder, QueryDecoderSpec
from genhmr_jax.systems.regressors.tokenhmr_tokenizer import (
    BODY_JOINTS,
    CODE_DIM,
    CODES,
    TOKENS,
    TokenDecoder,
)


@dataclasses.dataclass(frozen=True)
class Body:
    """rotmats (B, 24, 3, 3) camera coordinates; betas (B, 10); weak_camera (B, 3) of the crop."""

    rotmats: jax.Array
    betas: jax.Array
    weak_camera: jax.Array


jax.tree_util.register_dataclass(Body, ["rotmats", "betas", "weak_camera"], [])


class MeanBody(nnx.Module):
    """The body to which the outputs of a head are added: buffers of the checkpoint, not trained."""

    def __init__(self):
        self.pose = nnx.Param(jnp.tile(jnp.array([1.0, 0, 0, 0, 1, 0]), 24))
        self.betas = nnx.Param(jnp.zeros(10))
        self.camera = nnx.Param(jnp.array([0.9, 0.0, 0.0]))


class Hmr2Head(nnx.Module):
    """HMR2.0: rotations in 6D, betas and camera, each by one linear layer of the query.

    39,547,037 parameters without the mean body.
    """

    def __init__(self, spec: QueryDecoderSpec, layout: str, *, rngs: nnx.Rngs):
        self.layout = layout
        self.decoder, self.mean = QueryDecoder(spec, rngs=rngs), MeanBody()
        self.pose = nnx.Linear(spec.width, 144, rngs=rngs)
        self.betas = nnx.Linear(spec.width, 10, rngs=rngs)
        self.camera = nnx.Linear(spec.width, 3, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B S E"]) -> Body:
        x = self.decoder(tokens)
        rot6d = (self.pose(x) + self.mean.pose[...]).astype(jnp.float32).reshape(-1, 24, 6)
        return Body(rotations.rot6d_to_matrix(rot6d, self.layout), *_shape_and_camera(self, x))


def _shape_and_camera(head: nnx.Module, x: Array) -> tuple[Array, Array]:
    betas, camera = head.betas(x) + head.mean.betas[...], head.camera(x) + head.mean.camera[...]
    return betas.astype(jnp.float32), camera.astype(jnp.float32)


class MixerLayer(nnx.Module):
    """A layer of TokenHMR's MLP-Mixer: x + y + channel MLP(norm(x + y)), y = token MLP(norm(x))."""

    def __init__(
        self, tokens: int, width: int, token_mlp: int, channel_mlp: int, *, rngs: nnx.Rngs
    ):
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.token_up = nnx.Linear(tokens, token_mlp, rngs=rngs)
        self.token_down = nnx.Linear(token_mlp, tokens, rngs=rngs)
        self.channel_up = nnx.Linear(width, channel_mlp, rngs=rngs)
        self.channel_down = nnx.Linear(channel_mlp, width, rngs=rngs)

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        gelu = lambda t: jax.nn.gelu(t, approximate=False)
        y = self.token_down(gelu(self.token_up(jnp.swapaxes(self.norm1(x), 1, 2))))
        x = x + jnp.swapaxes(y, 1, 2)
        return x + self.channel_down(gelu(self.channel_up(self.norm2(x))))


class TokenClassifier(nnx.Module):
    """Query (B, C) -> logits (B, 160, 2048) over the codebook. 10,870,080 parameters."""

    def __init__(self, width: int, hidden: int = 64, layers: int = 4, *, rngs: nnx.Rngs):
        self.hidden = hidden
        self.spread = nnx.Linear(width, TOKENS * hidden, rngs=rngs)
        self.spread_norm = nnx.LayerNorm(TOKENS * hidden, epsilon=1e-5, rngs=rngs)
        mixer = lambda: MixerLayer(TOKENS, hidden, 64, 256, rngs=rngs)
        self.mixers = nnx.Dict({f"mixer_{i}": mixer() for i in range(layers)})
        self.last = nnx.Linear(hidden, hidden, rngs=rngs)
        self.last_norm = nnx.LayerNorm(hidden, epsilon=1e-5, rngs=rngs)
        self.classes = nnx.Linear(hidden, CODES, rngs=rngs)

    def __call__(self, x: Float[Array, "B C"]) -> Float[Array, "B 160 2048"]:
        x = jax.nn.relu(self.spread_norm(self.spread(x))).reshape(-1, TOKENS, self.hidden)
        for _, mixer in sorted(self.mixers.items()):
            x = mixer(x)
        return self.classes(jax.nn.relu(self.last_norm(self.last(x))))


class TokenHmrHead(nnx.Module):
    """TokenHMR: the body pose by expected codes of a codebook, the rest by linear layers.

    The rest are the root, hands, betas and camera. The mean pose is added to the 6D numbers of
    every part, and the sum is orthonormalised once (tokenhmr/lib/models/heads/token_head.py, L103
    and L123 of TokenHMR). The 6D layout is "rows".
    """

    def __init__(self, spec: QueryDecoderSpec, *, rngs: nnx.Rngs):
        self.decoder, self.mean = QueryDecoder(spec, rngs=rngs), MeanBody()
        self.classifier = TokenClassifier(spec.width, rngs=rngs)
        self.tokens = TokenDecoder(rngs=rngs)
        self.codebook = nnx.Param(0.02 * jax.random.normal(rngs.params(), (CODES, CODE_DIM)))
        self.orient = nnx.Linear(spec.width, 6, rngs=rngs)
        self.hands = nnx.Linear(spec.width, 12, rngs=rngs)
        self.betas = nnx.Linear(spec.width, 10, rngs=rngs)
        self.camera = nnx.Linear(spec.width, 3, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B S E"]) -> Body:
        x = self.decoder(tokens)
        probability = jax.nn.softmax(self.classifier(x).astype(jnp.float32))
        body = self.tokens(probability @ self.codebook[...].astype(jnp.float32))
        parts = [self.orient(x)[:, None], body, self.hands(x).reshape(-1, 2, 6)]
        mean = self.mean.pose[...].reshape(1 + BODY_JOINTS + 2, 6)
        rot6d = jnp.concatenate([p.astype(jnp.float32) for p in parts], 1) + mean
        return Body(rotations.rot6d_to_matrix(rot6d, "rows"), *_shape_and_camera(self, x))
