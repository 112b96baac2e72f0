"""The lifter of hands: from the outputs of the landmark network to the keypoints of our own hand.

The landmark network was trained on photos and has another hand. The lifter corrects its keypoints
in 2D and 3D, as lifter_net.py does for bodies, and computes a better map of the region. It is
trained on rendered hands, whose true keypoints are known. All hands are right hands: a left one is
given as its mirror image.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax.keypoints import HAND21

from genhmr_jax.detect.hand_landmarks import CHANNELS, GRID, SIZE
from genhmr_jax.detect.hand_lifter import TRUNK
from genhmr_jax.detect.lifter import LifterSpec
from genhmr_jax.detect.lifter_net import Form, head_graph

HAND = Form(TRUNK, GRID, CHANNELS, len(HAND21) * 6, len(HAND21), 0.02, 0.01)


def lift(
    spec: LifterSpec,
    head: Any,
    trunk: dict[str, Array],
    landmarks: Float[Array, "B 21 3"],
    world: Float[Array, "B 21 3"],
    early: Float[Array, "B 14 14 64"],
    keys: Array | None = None,
) -> tuple[
    Float[Array, "B 21 2"], Float[Array, "B 21 3"], Float[Array, "B 21"], Float[Array, "B 7 7 672"]
]:
    """The keypoints HAND21 of our hand, in the axes of the region: x right, y down.

    Args:
      head: parameters of lifter_net.LifterHead.
      trunk: see trunks.changed.
      landmarks, world, early: see hand_landmarks.HandEstimate.
      keys: (B,) for dropout, in training.

    Returns:
      2D keypoints relative to the middle of the region, in its sides; 3D keypoints in metres from
      the wrist, z away from the camera; the expected absolute error of a coordinate in 2D, in
      sides; and the map of the trunk.
    """
    # 1. Normalise the landmarks.
    batch, points = landmarks.shape[0], landmarks[..., :2] / SIZE - 0.5
    own = world - world[:, :1]
    parts = [4.0 * points, landmarks[..., 2:] / 50.0, 15.0 * own]
    numbers = jnp.concatenate(parts, -1).reshape(batch, -1)
    # 2. Add the corrections. The wrist of the 3D keypoints is the origin.
    network, inner = nnx.merge(head_graph(HAND, spec)[0], head), HAND.trunk.map(trunk, early)
    change2d, change3d, spread = network(numbers, inner, keys)
    return points + change2d, own + change3d - change3d[:, :1], spread, inner
