"""The lifter: from the outputs of BlazePose to the keypoints of our own body, in 2D and 3D.

BlazePose's landmarks follow the annotations of its training photos, and its 3D estimate is that of
another body. The lifter adds corrections to both. It is trained on rendered people, whose true
keypoints are known. Its trunk (lifter_trunk.py) computes a map of the region, and its head the
keypoints from that map and from BlazePose's landmarks and heatmaps. All are pure functions, in the
axes of the region.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.detect.blazepose import LANDMARKS, SIZE, from_landmarks
from genhmr_jax.detect.detections import CHANNELS, GRID
from genhmr_jax.detect.lifter import LifterSpec
from genhmr_jax.detect.lifter_trunk import trunk_map
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.nets.mlp import ResidualMlp

STEP_METRES, STEP_SIDES = 0.1, 0.02
"""Typical size of the corrections in 3D and in 2D, so that the network's outputs are about 1."""
SPREADS = 3.0
"""Logarithm of the largest expected error over STEP_SIDES."""


class LifterHead(nnx.Module):
    """Outputs of BlazePose (blazepose.Evidence) and the trunk's map -> keypoints."""

    def __init__(self, spec: LifterSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.reduce = nnx.Linear(CHANNELS, spec.map_channels, rngs=rngs)
        self.gather = nnx.Linear(GRID * GRID * spec.map_channels, spec.map_features, rngs=rngs)
        self.mlp = ResidualMlp(
            LANDMARKS * 14 + spec.map_features, spec.width, spec.depth, len(DETECTED) * 6, rngs=rngs
        )

    def __call__(
        self,
        landmarks: Float[Array, "B 39 5"],
        world: Float[Array, "B 39 3"],
        heat: Float[Array, "B 39 6"],
        inner: Float[Array, "B 8 8 288"],
        keys: Array | None = None,
    ) -> tuple[Float[Array, "B 23 2"], Float[Array, "B 23 3"], Float[Array, "B 23"]]:
        """The DETECTED keypoints of our body, in the axes of the region: x right, y down.

        Args:
          landmarks, world, heat: see blazepose.Evidence.
          inner: see lifter_trunk.trunk_map.
          keys: (B,) for dropout, in training.

        Returns:
          2D keypoints relative to the middle of the region, in its sides; 3D keypoints in metres
          from mid-hip, z away from the camera; the expected absolute error of a coordinate in 2D,
          in sides.
        """
        # 1. Normalise BlazePose's landmarks and heatmap locations.
        batch, named = landmarks.shape[0], jnp.asarray(from_landmarks(DETECTED), jnp.float32)
        points = landmarks[..., :2] / SIZE - 0.5
        centre = heat[..., :2] / SIZE - 0.5
        peak = heat[..., 3:5] / SIZE - 0.5
        visibility = jax.nn.sigmoid(landmarks[..., 3:])
        parts = [4.0 * points, landmarks[..., 2:3] / 100.0, visibility, 3.0 * world]
        parts += [(centre - points) / STEP_SIDES, 4.0 * (peak - points)]
        parts += [heat[..., 2:3], heat[..., 5:]]
        numbers = jnp.concatenate(parts, -1).reshape(batch, -1)
        # 2. Reduce the map.
        features = jax.nn.relu(self.reduce(self._dropout(inner, keys, 0)))
        features = jax.nn.relu(self.gather(self._dropout(features.reshape(batch, -1), keys, 1)))
        # 3. Predict corrections.
        inputs = jnp.concatenate([numbers, self._dropout(features, keys, 2)], -1)
        out = self.mlp(inputs).reshape(batch, len(DETECTED), 6)
        points2d = named @ centre + STEP_SIDES * out[..., :2]
        spread = STEP_SIDES * jnp.exp(jnp.clip(out[..., 5], -SPREADS, SPREADS))
        return points2d, named @ world + STEP_METRES * out[..., 2:5], spread

    def _dropout(self, x: Array, keys: Array | None, number: int) -> Array:
        """Dropout, with one key for each row; `number` distinguishes the calls."""
        if keys is None:
            return x
        keep = 1.0 - self.spec.drop
        draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, number), keep, x.shape[1:])
        return jnp.where(jax.vmap(draw)(keys), x / keep, 0.0)


@functools.cache
def head_graph(spec: LifterSpec) -> tuple[nnx.GraphDef, Any]:
    """The graph of the head, and the shapes of its parameters."""
    structure, state = nnx.split(nnx.eval_shape(lambda: LifterHead(spec, rngs=nnx.Rngs(0))))
    return structure, nnx.to_pure_dict(state)


def lift(
    spec: LifterSpec,
    head: Any,
    trunk: dict[str, Array],
    landmarks: Float[Array, "B 39 5"],
    world: Float[Array, "B 39 3"],
    heat: Float[Array, "B 39 6"],
    early: Float[Array, "B 16 16 88"],
    keys: Array | None = None,
) -> tuple[Float[Array, "B 23 2"], Float[Array, "B 23 3"], Float[Array, "B 23"]]:
    """The keypoints, see LifterHead.

    Args:
      head: its parameters.
      trunk: see lifter_trunk.trunk_weights.
      landmarks, world, heat, early: see blazepose.Evidence and blazepose.Landmarks.
      keys: (B,) for dropout, in training.
    """
    network = nnx.merge(head_graph(spec)[0], head)
    return network(landmarks, world, heat, trunk_map(trunk, early), keys)
