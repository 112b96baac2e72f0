"""The lifter: from BlazePose's landmarks, heatmaps and inner map to the keypoints of our own body,
in 2D and in 3D.

BlazePose's landmarks are where annotators of photos put them, and its 3D guess is of another body.
This network starts from both and learns what to add on rendered people, whose truth is known; it
sees the map from which BlazePose computes all its landmarks, which tells more than they do. Pure
function of (model, arrays), all in the axes of BlazePose's region.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.detect.blazepose import LANDMARKS, SIZE, from_landmarks
from genhmr_jax.detect.detections import CHANNELS, GRID
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.nets.mlp import ResidualMlp

STEP_METRES, STEP_SIDES = 0.1, 0.02
"""About the size of the corrections in 3D and in 2D: outputs of the network are near 1."""


@dataclasses.dataclass(frozen=True)
class LifterSpec:
    """Everything that fixes the arrays of a lifter; drop: share of what goes in that training
    hides."""

    map_channels: int = 48
    map_features: int = 384
    width: int = 512
    depth: int = 3
    drop: float = 0.35


class Lifter(nnx.Module):
    """Outputs of BlazePose (blazepose.Evidence) -> keypoints."""

    def __init__(self, spec: LifterSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.reduce = nnx.Linear(CHANNELS, spec.map_channels, rngs=rngs)
        self.gather = nnx.Linear(GRID * GRID * spec.map_channels, spec.map_features, rngs=rngs)
        self.mlp = ResidualMlp(
            LANDMARKS * 14 + spec.map_features, spec.width, spec.depth, len(DETECTED) * 5, rngs=rngs
        )

    def __call__(
        self,
        landmarks: Float[Array, "B 39 5"],
        world: Float[Array, "B 39 3"],
        heat: Float[Array, "B 39 6"],
        inner: Float[Array, "B 8 8 288"],
        keys: Array | None = None,
    ) -> tuple[Float[Array, "B 23 2"], Float[Array, "B 23 3"]]:
        """Where the DETECTED keypoints of our body are.

        Args:
          landmarks, world, heat, inner: see blazepose.Evidence.
          keys: (B,), in training: some of what goes in is hidden.

        Returns:
          from the middle of the region in its sides, x right, y down; and in metres from mid-hip, x
          right, y down, z away from the camera, all in the axes of the region.
        """
        batch, named = landmarks.shape[0], jnp.asarray(from_landmarks(DETECTED), jnp.float32)
        points, centre, peak = (
            x / SIZE - 0.5 for x in (landmarks[..., :2], heat[..., :2], heat[..., 3:5])
        )
        seen = jax.nn.sigmoid(landmarks[..., 3:])
        parts = [4.0 * points, landmarks[..., 2:3] / 100.0, seen, 3.0 * world]
        parts += [
            (centre - points) / STEP_SIDES,
            4.0 * (peak - points),
            heat[..., 2:3],
            heat[..., 5:],
        ]
        numbers = jnp.concatenate(parts, -1).reshape(batch, -1)
        features = jax.nn.relu(self.reduce(self._thinned(inner, keys, 0)))
        features = jax.nn.relu(self.gather(self._thinned(features.reshape(batch, -1), keys, 1)))
        out = self.mlp(jnp.concatenate([numbers, self._thinned(features, keys, 2)], -1)).reshape(
            batch, len(DETECTED), 5
        )
        return named @ centre + STEP_SIDES * out[..., :2], named @ world + STEP_METRES * out[
            ..., 2:
        ]

    def _thinned(self, x: Array, keys: Array | None, number: int) -> Array:
        """Dropout, drawn for each row from its own key."""
        if keys is None:
            return x
        keep = 1.0 - self.spec.drop
        draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, number), keep, x.shape[1:])
        return jnp.where(jax.vmap(draw)(keys), x / keep, 0.0)
