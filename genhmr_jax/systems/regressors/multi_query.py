"""The decoder and head of MQ-HMR: one learned query for each joint, over the image's pyramid.

BioPose (arXiv 2501.07800), overview figure: learned pose queries go through N layers of
self-attention, deformable cross-attention to multi-scale maps, and an MLP; a head turns them into
rotations; a second branch estimates shape and camera from the encoder's output. It is the decoder
of GenHMR without tokens and masks, and has the same layers (core/masked_transformer.Block). The
paper gives no sizes, and no details of the branch: they are ours.

The refinement at test time moves the queries after the last layer (`coordinates`, `rotations`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.core.masked_transformer import Block
from genhmr_jax.core.sizes import TransformerSpec
from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from genhmr_jax.nets.remat import checkpointed
from genhmr_jax.nets.rows import by_rows
from genhmr_jax.nets.sizes import check_sizes
from genhmr_jax.systems.regressors.heads import Body, MeanBody

JOINTS = 24


@dataclasses.dataclass(frozen=True)
class MultiQuerySpec:
    """Sizes of the decoder.

    Attributes:
      queries: number of learned queries. With 24, each is a joint, and one linear layer turns every
        query into a rotation; with any other number, one layer turns all of them into all
        rotations.
      width, layers, heads, mlp_ratio, points, activation: as in core.sizes.TransformerSpec.
      scales: of the pyramid of a ViT's map (nets.pyramid.SimplePyramid).
    """

    queries: int = JOINTS
    width: int = 512
    layers: int = 6
    heads: int = 8
    mlp_ratio: int = 4
    points: int = 4
    activation: str = "gelu"
    scales: tuple[float, ...] = (4.0, 2.0, 1.0)

    def __post_init__(self) -> None:
        check_sizes(self, "queries")
        self.transformer(1)  # raises ValueError: sizes that do not fit
        object.__setattr__(self, "scales", tuple(self.scales))  # lists of a JSON

    @property
    def of_joints(self) -> bool:
        """Whether each query is a joint."""
        return self.queries == JOINTS

    def transformer(self, levels: int) -> TransformerSpec:
        """The sizes of the layers over so many maps."""
        sizes = (self.width, self.layers, self.heads, self.mlp_ratio, levels, self.points)
        return TransformerSpec(*sizes, self.activation)


class MultiQueryHead(nnx.Module):
    """Maps of an encoder -> queries, and from these to a body."""

    def __init__(self, spec: MultiQuerySpec, channels: tuple[int, ...], *, rngs: nnx.Rngs):
        self.spec, width, normal = spec, spec.width, nnx.initializers.normal(0.02)
        if len(channels) > 1:
            self.pyramid = ProjectLevels(channels, width, rngs=rngs)
        else:
            self.pyramid = SimplePyramid(channels[0], width, spec.scales, rngs=rngs)
        levels = len(channels) if len(channels) > 1 else len(spec.scales)
        self.queries = nnx.Param(normal(rngs.params(), (spec.queries, width)))
        # Reference points are learned; a sigmoid limits them to (0, 1). They are random at first,
        # near the middle of the crop, as in core/masked_transformer.py.
        self.reference = nnx.Param(
            jax.random.uniform(rngs.params(), (spec.queries, 2), minval=-1.0, maxval=1.0)
        )
        sizes = spec.transformer(levels)
        self.blocks = nnx.Dict(
            {f"block_{i:02d}": Block(sizes, rngs=rngs) for i in range(spec.layers)}
        )
        self.norm, self.mean = nnx.LayerNorm(width, rngs=rngs), MeanBody()
        shape = (width, 6) if spec.of_joints else (spec.queries * width, 6 * JOINTS)
        self.pose = nnx.Linear(*shape, rngs=rngs)
        self.shape_up = nnx.Linear(width, width, rngs=rngs)
        self.betas = nnx.Linear(width, 10, rngs=rngs)
        self.camera = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, maps: list[Float[Array, "B H W _"]], remat: str = "none") -> Body:
        """The bodies.

        Args:
          maps: of the encoder, finest first.
          remat: what is stored for the backward pass (nets/remat.py).
        """
        queries, betas, camera = self.decode(maps, remat)
        return Body(self.rotations(self.coordinates(queries)), betas, camera)

    def decode(
        self, maps: list[Float[Array, "B H W _"]], remat: str = "none"
    ) -> tuple[Float[Array, "B Q C"], Float[Array, "B 10"], Float[Array, "B 3"]]:
        """Queries after the last layer, betas, and weak camera of the crop; float32."""
        levels = checkpointed(lambda maps: self.pyramid(maps), remat)(maps)
        rows = levels[0].shape[0]
        # 1. The queries.
        points = jax.nn.sigmoid(self.reference[...].astype(jnp.float32))
        reference = jnp.broadcast_to(points, (rows, *points.shape))
        x = jnp.broadcast_to(self.queries[...], (rows, *self.queries.shape))
        weight = jnp.ones(rows)
        for name in sorted(self.blocks):
            layer = functools.partial(self._layer, name)
            x = checkpointed(layer, "none" if remat == "none" else "blocks")(
                x, reference, levels, weight
            )
        queries = self.norm(x).astype(jnp.float32)
        # 2. Shape and camera, from the coarsest map.
        hidden = jax.nn.gelu(self.shape_up(jnp.mean(levels[-1], (1, 2))))
        betas = self.betas(hidden) + self.mean.betas[...]
        camera = self.camera(hidden) + self.mean.camera[...]
        return queries, betas.astype(jnp.float32), camera.astype(jnp.float32)

    def _layer(
        self, name: str, x: Array, reference: Array, levels: list[Array], weight: Array
    ) -> Float[Array, "B Q C"]:
        return by_rows(self.blocks[name](by_rows(x), 0, reference, levels, weight))

    def coordinates(self, queries: Float[Array, "B Q C"]) -> Float[Array, "B L D"]:
        """What the head sees of the queries: their coordinates in an orthonormal basis of its rows.

        The head is linear. So a query moves the pose by its part in the space of the head's rows
        alone, and a gradient step of the queries on any loss of the pose, or one that penalises
        their distance from the start, stays in it. The same step of these coordinates gives the
        same pose, with 6 numbers a joint (L = 24), or 144 in all (L = 1), in place of Q C.
        """
        basis, _ = self._factors()
        given = queries if self.spec.of_joints else queries.reshape(queries.shape[0], 1, -1)
        return given @ basis

    def rotations(self, coordinates: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
        """Rotation matrices of `coordinates`."""
        _, factor = self._factors()
        bias, mean = self.pose.bias[...], self.mean.pose[...].reshape(JOINTS, 6)
        rot6d = (coordinates @ factor + bias).reshape(-1, JOINTS, 6) + mean
        return rotations.rot6d_to_matrix(rot6d.astype(jnp.float32), "rows")

    def _factors(self) -> tuple[Array, Array]:
        """An orthonormal basis of the head's rows, and the matrix from it to the head's output."""
        return jnp.linalg.qr(self.pose.kernel[...].astype(jnp.float32))
