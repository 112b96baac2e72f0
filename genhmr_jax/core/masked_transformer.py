"""The image-conditioned masked transformer: p(token | visible tokens, image, 2D pose) (stage 2).

The transformer predicts the masked tokens of a pose. Its sequence consists of the context tokens
(2D pose, box) and the L pose tokens. A pose token is the id of one of N codes, or the mask id N
where it is masked. Every layer is, pre-norm,

    self-attention over context and pose tokens
    -> deformable cross-attention of the pose tokens to the feature maps of the image
    -> MLP,

and a head gives the logits of the N codes for every pose token. In the cross-attention (Deformable
DETR, Zhu et al. 2021) a token samples each map at a few points: at learned offsets from its
reference point, with learned weights. For a sample without an image the cross-attention adds
nothing. Training drops the image of some samples, so that one network handles inputs with and
without an image. core/sampling.py calls the network repeatedly to sample a pose.

Between these calls only the pose tokens change. Computed once are the context, the values of the
image for each layer (`image_values`) and the code vectors as the network uses them (`codes`). The
keys and values of the context cannot be kept: context tokens attend to the pose tokens, so that
from the second layer on they change with every call. In the first layer they are constant, but its
products with the context are 1.2 % of those of a call for the shipped model (6 of 36 tokens in one
of 4 layers), and 0.04 % at the paper's size. The embeddings of all codes at all positions would be
a table four times as large as the layers.

With parameters in bfloat16 the products are bfloat16, and statistics, softmax, locations in the
image and logits are float32. `by_rows` only tells the compiler to split an array over the devices
by rows, and `checkpointed` to compute a layer again in the backward pass: neither changes values.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.core.sizes import TransformerSpec
from genhmr_jax.nets.attention import attention
from genhmr_jax.nets.deformable_attention import DeformableAttention
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.rows import by_rows


def _small(scale: float = 0.1) -> nnx.Initializer:
    """A small initialisation: at first a branch hardly changes the sum that it is added to."""
    return nnx.initializers.variance_scaling(scale, "fan_in", "normal")


@jax.custom_vjp
def product_in_float32(x: Float[Array, "*b C"], w: Float[Array, "C N"]) -> Float[Array, "*b N"]:
    """x @ w, summed and returned in float32, with a backward pass in the type of x and w.

    bfloat16 logits would have an error of 0.4 %. The default backward pass would multiply float32
    gradients by bfloat16 arrays, at the speed of float32 on a GPU.
    """
    return jnp.matmul(x, w, preferred_element_type=jnp.float32)


def _product_backward(
    inputs: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = inputs
    gradient = gradient.astype(x.dtype)
    (to_x,) = jax.linear_transpose(lambda x: x @ w, x)(gradient)
    (to_w,) = jax.linear_transpose(lambda w: x @ w, w)(gradient)
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
    """One layer: self-attention, cross-attention to the image, MLP."""

    def __init__(self, spec: TransformerSpec, *, rngs: nnx.Rngs):
        width = spec.width
        self.activation = {"gelu": jax.nn.gelu, "relu": jax.nn.relu}[spec.activation]
        self.norm_self = nnx.LayerNorm(width, rngs=rngs)
        self.self_attention = SelfAttention(width, spec.heads, rngs=rngs)
        if spec.levels:
            self.norm_cross = nnx.LayerNorm(width, rngs=rngs)
            self.cross_attention = DeformableAttention(
                width, spec.heads, spec.levels, spec.points, rngs=rngs
            )
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
        """Apply the layer.

        Args:
          x: context tokens, then pose tokens.
          context_length: number of context tokens.
          reference: reference points of the pose tokens in the image, in (0, 1).
          values: values (B, heads, H, W, C / heads) of this layer's cross-attention, or the maps
            (B, H, W, C) from which it computes them, or None without an image.
          image_weight: 1 for samples with an image, 0 for the others.
        """
        x = x + self.self_attention(self.norm_self(x))
        if values is not None:
            if values[0].ndim == 4:
                values = self.cross_attention.values(values)
            pose = x[:, context_length:]
            from_image = self.cross_attention(self.norm_cross(pose), reference, values)
            from_image = from_image * image_weight[:, None, None].astype(x.dtype)
            x = jnp.concatenate([x[:, :context_length], pose + from_image], 1)
        return x + self.down(self.activation(self.up(self.norm_mlp(x))))


def transformer_remat(remat: str) -> str:
    """The choice of nets/remat.py for MaskedTransformer, which has no "products"."""
    return "blocks" if remat == "products" else remat


class MaskedTransformer(nnx.Module):
    """Logits of every pose token, given the visible ones.

    Every token has an embedding from a table, and the head is linear. With `spec.geometric` both
    also use the code vectors v. A linear map of its code vector (one map for each position) is
    added to the embedding of a token. A term w . [v, |v|^2], with w linear in the hidden state, is
    added to the logits: it can express any isotropic Gaussian around a predicted embedding.
    """

    def __init__(
        self,
        spec: TransformerSpec,
        length: int,
        codebook_size: int,
        code_dim: int,
        *,
        learned_reference: bool = True,
        rngs: nnx.Rngs,
    ):
        self.spec, self.length = spec, length
        width, normal = spec.width, nnx.initializers.normal(0.02)
        self.embed = nnx.Param(normal(rngs.params(), (codebook_size + 1, width)))
        self.position = nnx.Param(normal(rngs.params(), (length, width)))
        if spec.levels and learned_reference:
            # Reference points are learned; a sigmoid limits them to (0, 1). They are random at
            # first, near the middle of the crop.
            self.reference = nnx.Param(
                jax.random.uniform(rngs.params(), (length, 2), minval=-1.0, maxval=1.0)
            )
        if spec.geometric:
            self.code_in = nnx.Param(normal(rngs.params(), (length, code_dim, width)))
            self.code_out = nnx.Param(0.3 * normal(rngs.params(), (length, width, code_dim + 1)))
        self.blocks = nnx.Dict(
            {f"block_{i:02d}": Block(spec, rngs=rngs) for i in range(spec.layers)}
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        if spec.head_rank:
            self.head = nnx.Linear(width, spec.head_rank, rngs=rngs)
            self.code_features = nnx.Param(normal(rngs.params(), (spec.head_rank, codebook_size)))
        else:
            self.head = nnx.Linear(width, codebook_size, kernel_init=_small(0.01), rngs=rngs)
        self.prior = nnx.Param(jnp.zeros((length, codebook_size)))

    def image_values(
        self, maps: list[Float[Array, "B H W C"]], remat: str = "none"
    ) -> list[list[jax.Array]]:
        """Compute the inputs of each layer's cross-attention, once for each image.

        With remat "blocks" these are the maps themselves. Each layer then computes its values from
        them, forward and again backward, so that memory does not grow with the number of layers.
        """
        layers = range(self.spec.layers)
        if remat == "blocks":
            return [maps for _ in layers]
        return [self.blocks[f"block_{i:02d}"].cross_attention.values(maps) for i in layers]

    def codes(self, vectors: Float[Array, "N D"]) -> Float[Array, "N D+1"]:
        """What the network uses of the code vectors v, once for all calls: [v, |v|^2].

        The scale of the code vectors depends on the tokenizer: v and |v|^2 are normalised to mean 0
        and deviation 1.
        """
        codes = (vectors - jnp.mean(vectors, 0)) / (jnp.std(vectors, 0) + 1e-6)
        norm = jnp.sum(codes**2, -1, keepdims=True)
        norm = (norm - jnp.mean(norm)) / (jnp.std(norm) + 1e-6)
        return jnp.concatenate([codes, norm], -1)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        codes: Float[Array, "N D+1"],
        context: Float[Array, "B S C"],
        image_values: list[list[jax.Array]] | None = None,
        image_weight: Float[Array, "B"] | None = None,
        remat: str = "none",
        *,
        token_features: Float[Array, "B L C"] | None = None,
        reference: Float[Array, "B L 2"] | None = None,
        before_layers: Callable[[Float[Array, "B S C"]], Float[Array, "B S C"]] | None = None,
    ) -> Float[Array, "B L N"]:
        """Compute the logits, in float32.

        Args:
          tokens: ids; N where masked.
          codes: of the method `codes`.
          context: context tokens (2D pose, box), already embedded.
          image_values: of the method `image_values`, or None without an image.
          image_weight: 1 for samples with an image, 0 where it is dropped (default: 1).
          remat: "blocks" stores only each layer's input for the backward pass.
          token_features: added to the embedding of each pose token.
          reference: reference points of the pose tokens in the image, in place of the learned ones;
            0..1 in the image.
          before_layers: applied to the sequence, context and pose tokens, before the layers.

        Raises:
          ValueError: unknown remat.
        """
        # 1. Embed the tokens. The mask id has a zero vector.
        x = self.embed[...][tokens] + self.position[...]
        codes = codes.astype(x.dtype)
        if self.spec.geometric:
            padded = jnp.pad(codes[:, :-1], ((0, 1), (0, 0)))
            x = x + jnp.einsum("bld,ldc->blc", padded[tokens], self.code_in[...])
        if token_features is not None:
            x = x + token_features
        x = by_rows(jnp.concatenate([context, x], 1))
        if before_layers is not None:
            x = before_layers(x)

        # 2. Apply the layers.
        if image_values is not None:
            if reference is None:
                points = jax.nn.sigmoid(self.reference[...].astype(jnp.float32))
                reference = jnp.broadcast_to(points, (tokens.shape[0], self.length, 2))
            image_weight = jnp.ones(tokens.shape[0]) if image_weight is None else image_weight
        if remat == "blocks":
            x = self._scanned(x, context.shape[1], reference, image_values, image_weight)
        else:
            for i in range(self.spec.layers):
                values = None if image_values is None else image_values[i]
                block = checkpointed(functools.partial(self._block, i, context.shape[1]), remat)
                x = block(x, reference, values, image_weight)
        x = self.norm(x[:, context.shape[1] :])

        # 3. The logits of the pose tokens: the head, a learned prior, and the geometric term.
        if self.spec.head_rank:
            logits = product_in_float32(self.head(x), self.code_features[...])
        else:
            logits = product_in_float32(x, self.head.kernel[...]) + self.head.bias[...]
        logits = by_rows(logits + self.prior[...])
        if self.spec.geometric:
            projected = jnp.einsum("blc,lcd->bld", x, self.code_out[...])
            logits = logits + product_in_float32(projected, codes.T)
        return logits

    def _scanned(
        self,
        x: Float[Array, "B S C"],
        context_length: int,
        reference: Float[Array, "B L 2"] | None,
        image_values: list[list[jax.Array]] | None,
        image_weight: Float[Array, "B"] | None,
    ) -> Float[Array, "B S C"]:
        """Apply all layers in one scan, each rematerialised: the program has the size of one layer.

        `image_values` are the maps themselves, the same for every layer.
        """
        maps = None if image_values is None else image_values[0]
        graph, _ = nnx.split(self.blocks["block_00"])
        states = [nnx.split(self.blocks[f"block_{i:02d}"])[1] for i in range(self.spec.layers)]

        def layer(x: jax.Array, state: nnx.State) -> tuple[jax.Array, None]:
            block = nnx.merge(graph, state)
            x = block(by_rows(x), context_length, reference, by_rows(maps), image_weight)
            return by_rows(x), None

        layer = checkpointed(layer, "blocks", scanned=True)
        return jax.lax.scan(layer, x, jax.tree.map(lambda *a: jnp.stack(a), *states))[0]

    def _block(
        self,
        i: int,
        context_length: int,
        x: Float[Array, "B S C"],
        reference: Float[Array, "B L 2"] | None,
        values: list[jax.Array] | None,
        image_weight: Float[Array, "B"] | None,
    ) -> Float[Array, "B S C"]:
        """Apply layer i."""
        block = self.blocks[f"block_{i:02d}"]
        return by_rows(block(by_rows(x), context_length, reference, by_rows(values), image_weight))
