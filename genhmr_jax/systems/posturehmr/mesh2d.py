"""The first stage: detected keypoints and image maps -> points -> the 2D mesh (PostureHMR, §3.2).

The paper's points come from heatmaps of an image network. Here simulated views, which have no
image, are training data too, so that a network regresses the points from the detected keypoints and
the maps of a frozen image encoder. The 2D mesh is a linear function of the points.

All coordinates are those of the crop, in which the person is upright: [-1, 1] inside of it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.geometry.keypoints import normalize_keypoints
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec

SCALE = 0.1
"""Half sides of the crop: the error of a point whose confidence is 1/e."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Mesh2dEstimate:
    """The 2D meshes of B people, float32.

    Attributes:
      points: (B, P, 2) keypoints and markers.
      spread: (B, P) log of the expected error of each point, half sides of the crop.
      vertices: (B, C, 2) the mesh.
      features: (B, F) of the whole picture, for the decoder without 2D mesh.
    """

    points: jax.Array
    spread: jax.Array
    vertices: jax.Array
    features: jax.Array

    @property
    def confidence(self) -> Float[Array, "B P"]:
        """Of the points, in (0, 1)."""
        return confidence_of(self.spread)


def confidence_of(spread: Float[Array, "B P"]) -> Float[Array, "B P"]:
    """exp(-expected error / SCALE)."""
    return jnp.exp(-jnp.exp(spread) / SCALE)


class Mesh2d(nnx.Module):
    """The network; it computes in the type of its parameters."""

    def __init__(self, spec: Mesh2dSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        normal = nnx.initializers.normal(0.02)

        def reduced(channels: int) -> nnx.Dict:
            layers = {
                "norm": nnx.LayerNorm(channels, rngs=rngs),
                "proj": nnx.Linear(channels, spec.cell_width, rngs=rngs),
            }
            return nnx.Dict(layers)

        levels = enumerate(spec.encoder_channels)
        self.levels = nnx.Dict({f"level_{i}": reduced(c) for i, c in levels})
        of_maps = len(spec.encoder_channels) * spec.cells**2 * spec.cell_width
        size_in = 6 * spec.num_keypoints + 4 + of_maps
        size_out = spec.points * spec.point_width
        self.mlp = ResidualMlp(size_in, spec.width, spec.depth, size_out, rngs=rngs)
        self.read = nnx.Param(normal(rngs.params(), (spec.points, spec.point_width, 3)))
        self.middle = nnx.Param(jnp.zeros((spec.points, 3)))
        # From points to vertices. The task replaces it by the least-squares fit.
        self.matrix = nnx.Param(jnp.zeros((spec.vertices, spec.points)))
        if spec.adaptive:
            shape = (spec.points, spec.vertices, spec.points)
            self.by_confidence = nnx.Param(jnp.zeros(shape))

    def __call__(self, inputs: Inputs) -> Mesh2dEstimate:
        """Estimate the points and the mesh.

        Args:
          inputs: in the upright axes (core.inputs.upright).
        """
        # 1. All that is known of the picture, as one vector.
        keypoints = normalize_keypoints(inputs.keypoints, inputs.view)
        parts = [keypoints, inputs.keypoints3d, self._cells(inputs)]
        flat = [x.reshape(inputs.rows, -1) for x in parts]
        has_image = jnp.zeros(inputs.rows) if inputs.maps is None else _weight(inputs)
        flat += [inputs.view.box_information(), has_image[:, None]]
        hidden = self.mlp(jnp.concatenate(flat, -1))
        # 2. Each point is read from its own features.
        of_points = hidden.reshape(inputs.rows, self.spec.points, -1)
        out = jnp.einsum("bpf,pfk->bpk", of_points, self.read[...]) + self.middle[...]
        out = out.astype(jnp.float32)
        points, spread = out[..., :2], out[..., 2] - 3.0  # an error of 5 % at first
        return Mesh2dEstimate(points, spread, self.mesh(points, spread), hidden)

    def mesh(
        self, points: Float[Array, "B P 2"], spread: Float[Array, "B P"]
    ) -> Float[Array, "B C 2"]:
        """The vertices of points.

        A matrix that depends on the confidences gets points without gradient, as in VirtualMarker
        (lib/models/simple3dmesh.py).
        """
        matrix = self.matrix[...].astype(jnp.float32)
        if not self.spec.adaptive:
            return matrix @ points
        points, spread = jax.lax.stop_gradient((points, spread))
        change = self.by_confidence[...].astype(jnp.float32)
        matrix = matrix + jnp.einsum("bq,qcp->bcp", confidence_of(spread), change)
        return jnp.einsum("bcp,bpx->bcx", matrix, points)

    def _cells(self, inputs: Inputs) -> Float[Array, "B F"]:
        """The cells of all maps, each reduced; zeros where there is no image."""
        spec, rows = self.spec, inputs.rows
        size = spec.cells**2 * spec.cell_width
        if inputs.maps is None:
            return jnp.zeros((rows, len(spec.encoder_channels) * size))
        found = []
        for name, cells in zip(sorted(self.levels), inputs.maps, strict=True):
            level = self.levels[name]
            kind = level["proj"].kernel[...].dtype
            reduced = level["proj"](level["norm"](cells.astype(kind)))
            found.append(_pooled(reduced, spec.cells).reshape(rows, -1))
        return jnp.concatenate(found, -1) * _weight(inputs)[:, None]


def _weight(inputs: Inputs) -> Float[Array, "B"]:
    """`image_weight`, or ones."""
    return jnp.ones(inputs.rows) if inputs.image_weight is None else inputs.image_weight


def _pooled(cells: Float[Array, "B H W C"], size: int) -> Float[Array, "B size size C"]:
    """Means over squares of cells, so that the map has `size` x `size` of them."""
    batch, height, width, channels = cells.shape
    if height % size or width % size:
        raise ValueError(f"a map of {height} x {width} cells cannot be pooled to {size} x {size}")
    cells = cells.reshape(batch, size, height // size, size, width // size, channels)
    return jnp.mean(cells, (2, 4))
