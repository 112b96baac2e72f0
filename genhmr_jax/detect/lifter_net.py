"""The lifter: from the outputs of BlazePose to the keypoints of our own body, in 2D and 3D.

BlazePose's landmarks follow the annotations of its training photos, and its 3D estimate is that of
another body. The lifter adds corrections to both. It is trained on rendered people, whose true
keypoints are known. Its trunk (trunks.py) computes a map of the region, and its head the keypoints
from that map and from BlazePose's landmarks and heatmaps. All are pure functions, in the axes of
the region. The lifter of hands (hand_lifter_net.py) has the same head.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.detect.blazepose import LANDMARKS, SIZE, from_landmarks
from genhmr_jax.detect.detections import CHANNELS, GRID
from genhmr_jax.detect.lifter import TRUNK, LifterSpec
from genhmr_jax.detect.trunks import Trunk
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.nets.mlp import ResidualMlp

SPREADS = 3.0
"""Logarithm of the largest expected error over the head's step in 2D."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What differs between the lifters of bodies and of hands.

    Attributes:
      trunk: the trained copy of a stage of the pose network.
      grid, channels: size of the trunk's map.
      numbers: of other inputs of the head.
      points: number of keypoints.
      step2d, step3d: typical size of the corrections in sides of the region and in metres, so that
        the network's outputs are about 1.
    """

    trunk: Trunk
    grid: int
    channels: int
    numbers: int
    points: int
    step2d: float
    step3d: float


BODY = Form(TRUNK, GRID, CHANNELS, LANDMARKS * 14, len(DETECTED), 0.02, 0.1)


class LifterHead(nnx.Module):
    """Outputs of a pose network and the trunk's map -> corrections of the keypoints."""

    def __init__(self, form: Form, spec: LifterSpec, *, rngs: nnx.Rngs):
        self.form, self.spec = form, spec
        self.reduce = nnx.Linear(form.channels, spec.map_channels, rngs=rngs)
        self.gather = nnx.Linear(form.grid**2 * spec.map_channels, spec.map_features, rngs=rngs)
        inputs = form.numbers + spec.map_features
        self.mlp = ResidualMlp(inputs, spec.width, spec.depth, form.points * 6, rngs=rngs)

    def __call__(
        self,
        numbers: Float[Array, "B N"],
        inner: Float[Array, "B H W C"],
        keys: Array | None = None,
    ) -> tuple[Float[Array, "B K 2"], Float[Array, "B K 3"], Float[Array, "B K"]]:
        """Corrections in 2D and 3D.

        Args:
          numbers: the pose network's outputs, about 1.
          inner: see Trunk.map.
          keys: (B,) for dropout, in training.

        Returns:
          corrections in sides of the region, and in metres; the expected absolute error of a
          coordinate in 2D, in sides.
        """
        batch = numbers.shape[0]
        features = jax.nn.relu(self.reduce(self._dropout(inner, keys, 0)))
        features = jax.nn.relu(self.gather(self._dropout(features.reshape(batch, -1), keys, 1)))
        inputs = jnp.concatenate([numbers, self._dropout(features, keys, 2)], -1)
        out = self.mlp(inputs).reshape(batch, self.form.points, 6)
        spread = self.form.step2d * jnp.exp(jnp.clip(out[..., 5], -SPREADS, SPREADS))
        return self.form.step2d * out[..., :2], self.form.step3d * out[..., 2:5], spread

    def _dropout(self, x: Array, keys: Array | None, number: int) -> Array:
        """Dropout, with one key for each row; `number` distinguishes the calls."""
        if keys is None:
            return x
        keep = 1.0 - self.spec.drop
        draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, number), keep, x.shape[1:])
        return jnp.where(jax.vmap(draw)(keys), x / keep, 0.0)


@functools.cache
def head_graph(form: Form, spec: LifterSpec) -> tuple[nnx.GraphDef, Any]:
    """The graph of the head, and the shapes of its parameters."""
    structure, state = nnx.split(nnx.eval_shape(lambda: LifterHead(form, spec, rngs=nnx.Rngs(0))))
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
    """The DETECTED keypoints of our body, in the axes of the region: x right, y down.

    Args:
      head: parameters of the head.
      trunk: see trunks.changed.
      landmarks, world, heat, early: see blazepose.Evidence and blazepose.Landmarks.
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
    parts += [(centre - points) / BODY.step2d, 4.0 * (peak - points)]
    parts += [heat[..., 2:3], heat[..., 5:]]
    numbers = jnp.concatenate(parts, -1).reshape(batch, -1)
    # 2. Add the corrections.
    network = nnx.merge(head_graph(BODY, spec)[0], head)
    change2d, change3d, spread = network(numbers, BODY.trunk.map(trunk, early), keys)
    return named @ centre + change2d, named @ world + change3d, spread
