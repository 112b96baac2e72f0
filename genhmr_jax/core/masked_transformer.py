"""The image-conditioned masked transformer: p(token | visible tokens, image, 2D pose) (GenHMR, stage 2).

N x [self-attention over context and pose tokens -> deformable cross-attention of the pose tokens to the image -> MLP], pre-norm,
and a head to the logits of the codebook. Without an image the cross-attention adds nothing; this is also what dropping the image
context means in training, per sample.

With parameters in bfloat16 the products are bfloat16; statistics, softmax, places in the image and logits are float32.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.deformable_attention import DeformableAttention
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.rows import by_rows


@dataclasses.dataclass(frozen=True)
class TransformerSpec:
    """Sizes of the masked transformer.

    Attributes:
      levels: feature maps that the cross-attention reads (0: a model that never sees an image).
      geometric: input and output know the code vectors, see MaskedTransformer.
      head_rank: 0 for a full linear head (the paper's), else the logits are products with learned code features of this many dims.
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


def _small(scale: float = 0.1):
    return nnx.initializers.variance_scaling(scale, "fan_in", "normal")


@jax.custom_vjp
def product_in_float32(x: Float[Array, "*b C"], w: Float[Array, "C N"]) -> Float[Array, "*b N"]:
    """x @ w, summed and returned in float32 (bfloat16 logits would be off by 0.4 %), with a backward pass in the type of x and w.

    Left to itself, that pass would multiply float32 gradients by bfloat16 arrays, which a GPU does at the speed of float32.
    """
    return jnp.matmul(x, w, preferred_element_type=jnp.float32)


def _product_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = kept
    gradient = gradient.astype(x.dtype)
    (to_x,), (to_w,) = jax.linear_transpose(lambda x: x @ w, x)(gradient), jax.linear_transpose(lambda w: x @ w, w)(gradient)
    return to_x, to_w


product_in_float32.defvjp(lambda x, w: (product_in_float32(x, w), (x, w)), _product_backward)


class SelfAttention(nnx.Module):
    """Multi-head self-attention; softmax in float32."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=_small(), rngs=rngs)

    def __call__(self, x: Float[Array, "B S C"]) -> Float[Array, "B S C"]:
        q, k, v = jnp.split(self.qkv(x).reshape(*x.shape[:2], 3 * self.heads, -1), 3, axis=2)
        return self.out(attention(q, k, v).reshape(x.shape))


class Block(nnx.Module):
    """One decoder layer."""

    def __init__(self, spec: TransformerSpec, *, rngs: nnx.Rngs):
        width = spec.width
        self.activation = {"gelu": jax.nn.gelu, "relu": jax.nn.relu}[spec.activation]
        self.norm_self, self.self_attention = nnx.LayerNorm(width, rngs=rngs), SelfAttention(width, spec.heads, rngs=rngs)
        if spec.levels:
            self.norm_cross = nnx.LayerNorm(width, rngs=rngs)
            self.cross_attention = DeformableAttention(width, spec.heads, spec.levels, spec.points, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, spec.mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(spec.mlp_ratio * width, width, kernel_init=_small(), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B S C"],
        context_length: int,
        reference: Float[Array, "B L 2"] | None,
        values: list[jax.Array] | None,
        image_weight: Float[Array, "B"] | None,
    ) -> Float[Array, "B S C"]:
        """`values` (B, H, W, N, D) as the cross-attention made them of the image's maps, or the maps (B, H, W, C), or None."""
        x = x + self.self_attention(self.norm_self(x))
        if values is not None:
            if values[0].ndim == 4:
                values = self.cross_attention.values(values)
            pose = x[:, context_length:]
            seen = self.cross_attention(self.norm_cross(pose), reference, values) * image_weight[:, None, None].astype(x.dtype)
            x = jnp.concatenate([x[:, :context_length], pose + seen], 1)
        return x + self.down(self.activation(self.up(self.norm_mlp(x))))


class MaskedTransformer(nnx.Module):
    """Logits of every pose token, given some of them.

    The codes are vectors with a geometry; with `spec.geometric` the input embedding and the head use it: a token enters as a linear
    map (one for each position) of its code vector, and the logits get a term w . [v, |v|^2] with w linear in the hidden state, which can
    express any isotropic Gaussian around a predicted embedding. Besides that, the usual embedding table and linear head.
    """

    def __init__(self, spec: TransformerSpec, length: int, codebook_size: int, code_dim: int, *, rngs: nnx.Rngs):
        self.spec, self.length = spec, length
        width, normal = spec.width, nnx.initializers.normal(0.02)
        self.embed = nnx.Param(normal(rngs.params(), (codebook_size + 1, width)))
        self.position = nnx.Param(normal(rngs.params(), (length, width)))
        if spec.levels:
            # Reference points start on a grid over the crop and are learned (kept in (0, 1) by a sigmoid).
            self.reference = nnx.Param(jax.random.uniform(rngs.params(), (length, 2), minval=-1.0, maxval=1.0))
        if spec.geometric:
            self.code_in = nnx.Param(normal(rngs.params(), (length, code_dim, width)))
            self.code_out = nnx.Param(0.3 * normal(rngs.params(), (length, width, code_dim + 1)))
        self.blocks = nnx.Dict({f"block_{i:02d}": Block(spec, rngs=rngs) for i in range(spec.layers)})
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        if spec.head_rank:
            self.head = nnx.Linear(width, spec.head_rank, rngs=rngs)
            self.code_features = nnx.Param(normal(rngs.params(), (spec.head_rank, codebook_size)))
        else:
            self.head = nnx.Linear(width, codebook_size, kernel_init=_small(0.01), rngs=rngs)
        self.prior = nnx.Param(jnp.zeros((length, codebook_size)))

    def image_values(self, maps: list[Float[Array, "B H W C"]], remat: str = "none") -> list[list[jax.Array]]:
        """What each layer's cross-attention reads of the image; computed once per image.

        With remat "blocks" these are the maps themselves: each layer makes its values of them, forward and again backward, and what is
        kept does not grow with the layers.
        """
        if remat == "blocks":
            return [maps] * self.spec.layers
        return [self.blocks[f"block_{i:02d}"].cross_attention.values(maps) for i in range(self.spec.layers)]

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        vectors: Float[Array, "N D"],
        context: Float[Array, "B S C"],
        image_values: list[list[jax.Array]] | None = None,
        image_weight: Float[Array, "B"] | None = None,
        remat: str = "none",
    ) -> Float[Array, "B L N"]:
        """Logits in float32.

        Args:
          tokens: ids, N (the size of the codebook) where unknown.
          vectors: the codebook.
          context: context tokens (2D pose, box), already embedded.
          image_values: from `image_values`, or None for no image at all.
          image_weight: 1 where the sample's image is seen, 0 where it is dropped (default: all seen).
          remat: "blocks" keeps each layer's input alone for the backward pass.

        Raises:
          ValueError: unknown remat.
        """
        x = self.embed[...][tokens] + self.position[...]
        # Codes have whatever scale the tokenizer gave them: here they enter with mean 0 and deviation 1.
        codes = (vectors - jnp.mean(vectors, 0)) / (jnp.std(vectors, 0) + 1e-6)
        if self.spec.geometric:
            padded = jnp.concatenate([codes, jnp.zeros_like(codes[:1])]).astype(x.dtype)
            x = x + jnp.einsum("bld,ldc->blc", padded[tokens], self.code_in[...])
        x = by_rows(jnp.concatenate([context, x], 1))
        reference = None
        if image_values is not None:
            reference = jnp.broadcast_to(jax.nn.sigmoid(self.reference[...].astype(jnp.float32)), (tokens.shape[0], self.length, 2))
            image_weight = jnp.ones(tokens.shape[0]) if image_weight is None else image_weight
        if remat == "blocks":
            x = self._scanned(x, context.shape[1], reference, image_values, image_weight)
        else:
            for i in range(self.spec.layers):
                values = None if image_values is None else image_values[i]
                block = checkpointed(functools.partial(self._block, i, context.shape[1]), remat)
                x = block(x, reference, values, image_weight)
        x = self.norm(x[:, context.shape[1] :])
        if self.spec.head_rank:
            logits = product_in_float32(self.head(x), self.code_features[...])
        else:
            logits = product_in_float32(x, self.head.kernel[...]) + self.head.bias[...]
        logits = by_rows(logits + self.prior[...])
        if self.spec.geometric:
            norm = jnp.sum(codes**2, -1, keepdims=True)
            features = jnp.concatenate([codes, (norm - jnp.mean(norm)) / (jnp.std(norm) + 1e-6)], -1)
            projected = jnp.einsum("blc,lcd->bld", x, self.code_out[...])
            logits = logits + product_in_float32(projected, features.astype(x.dtype).T)
        return logits

    def _scanned(self, x, context_length: int, reference, image_values, image_weight) -> Float[Array, "B S C"]:
        """All layers under one scan, each rematerialised: the program has the size of one layer, and compiles as fast."""
        values = None if image_values is None else image_values[0]  # the maps, the same for every layer
        graph, _ = nnx.split(self.blocks["block_00"])
        states = [nnx.split(self.blocks[f"block_{i:02d}"])[1] for i in range(self.spec.layers)]

        def layer(x: jax.Array, state: nnx.State) -> tuple[jax.Array, None]:
            block = nnx.merge(graph, state)
            return by_rows(block(by_rows(x), context_length, reference, by_rows(values), image_weight)), None

        return jax.lax.scan(checkpointed(layer, "blocks", scanned=True), x, jax.tree.map(lambda *a: jnp.stack(a), *states))[0]

    def _block(self, i: int, context_length: int, x, reference, values, image_weight) -> Float[Array, "B S C"]:
        return by_rows(self.blocks[f"block_{i:02d}"](by_rows(x), context_length, reference, by_rows(values), image_weight))
