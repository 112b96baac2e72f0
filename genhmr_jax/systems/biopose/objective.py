"""The losses of NeurIK: angles, scales, markers, joints, velocities, and the size of its errors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from smpl_jax.rotations import compose, matrix_to_axis_angle

from genhmr_jax.systems.biopose.frames import Answer, pose_of
from genhmr_jax.systems.biopose.kinematics import Pose, place
from genhmr_jax.systems.biopose.samples import Sample
from genhmr_jax.systems.biopose.skeleton import Skeleton

TERMS = ("angle", "pelvis", "scale", "marker", "joint", "velocity", "spread")


class Errors(NamedTuple):
    """Errors of windows: of angles (radians), turn of the pelvis (rotation vector in its axes), and
    its shift (metres)."""

    angles: Float[Array, "B T 41"]
    turn: Float[Array, "B T 3"]
    shift: Float[Array, "B T 3"]

    def joined(self) -> Float[Array, "B T 47"]:
        """In the order of the network's outputs."""
        return jnp.concatenate(self, -1)


def errors_of(pose: Pose, sample: Sample) -> Errors:
    """The errors of poses (B, T, ...)."""
    truth = sample.truth
    back = jnp.swapaxes(truth.rotation, -1, -2)
    turn = matrix_to_axis_angle(compose(back, pose.rotation))
    shift = jnp.einsum(
        "...ij,...j->...i", back, pose.translation - truth.translation, precision="highest"
    )
    return Errors(pose.angles - truth.angles, turn, shift)


def row_terms(
    skeleton: Skeleton, answer: Answer, sample: Sample
) -> tuple[dict[str, Float[Array, "B"]], Errors]:
    """The terms of each window, means over frames whose labels are used; and the errors.

    Radians and metres; velocity: how the errors of angles and turns change between two frames,
    radians. Markers and joints are those of the mean skeleton with the scales of the answer and of
    the labels, so that the network can reach zero.

    Args:
      skeleton: the mean one.
    """
    pose = pose_of(sample.frames.start, answer.outputs)
    errors = errors_of(pose, sample)
    joined = errors.joined()
    good = sample.good
    over = lambda x, w: jnp.sum(w * jnp.mean(x, -1), 1) / jnp.maximum(jnp.sum(w, 1), 1)
    # 1. Angles, and how they change.
    both = good[:, 1:] * good[:, :-1]
    turning = joined[..., :-3]
    change = jnp.abs(turning[:, 1:] - turning[:, :-1])
    # 2. The skeleton in space.
    placed = jax.vmap(place, (None, 0, 0))
    found = placed(skeleton, pose, answer.scales)
    true = placed(skeleton, sample.truth, sample.scales)
    distance = lambda a, b: jnp.linalg.norm(a - b + 1e-9, axis=-1)
    # 3. The spread: the negative logarithm of a Laplace density, whose scale is the mean absolute
    # error. It does not change the angles.
    size = jax.lax.stop_gradient(jnp.abs(joined))
    density = size * jnp.exp(-answer.spread) + answer.spread
    terms = {
        "angle": over(jnp.abs(errors.angles), good),
        "pelvis": over(jnp.abs(joined[..., -6:]), good),
        "scale": jnp.mean(jnp.abs(answer.scales - sample.scales), -1),
        "marker": over(distance(found.markers, true.markers), good),
        "joint": over(distance(found.centres, true.centres), good),
        "velocity": over(change, both),
        "spread": over(density, good),
    }
    return terms, errors
