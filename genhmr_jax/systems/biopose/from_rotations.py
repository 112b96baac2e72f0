"""Joint angles read from the rotations of a body in SMPL's form, without markers and without a fit.

Each body of the skeleton turns as a joint of the body does. Knees of SMPL bend about any axis, and
the forearm turns in elbow and wrist: what the joints of the skeleton cannot do is left out. A line
for each angle, fitted to those of inverse kinematics on training motions, calibrates the result.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax.rotations import axis_angle_to_matrix, compose

from genhmr_jax.geometry.anatomy import ANGLES, BODIES
from genhmr_jax.systems.biopose.branches import gap
from genhmr_jax.systems.biopose.ik import CHUNK, values_of
from genhmr_jax.systems.biopose.kinematics import Pose
from genhmr_jax.systems.biopose.skeleton import Skeleton, rest_of, rig_joint, skeleton_of
from genhmr_jax.systems.biopose.start import angles_between, turned_towards_children

_ENDS = 6.0  # degrees: fewer of a range of motion decide no slope


@dataclasses.dataclass(frozen=True)
class Calibration:
    """q = offset + slope x reading, of ANGLES[3:]; offsets in radians."""

    slope: Float[np.ndarray, "41"]
    offset: Float[np.ndarray, "41"]

    @classmethod
    def none(cls) -> "Calibration":
        """The readings themselves."""
        return cls(np.ones(len(ANGLES) - 3), np.zeros(len(ANGLES) - 3))


def read(
    body: smpl_jax.SmplModel,
    betas: Float[np.ndarray, "S"],
    poses: Float[np.ndarray, "F 24 3"],
    calibration: Calibration,
) -> Float[np.ndarray, "F 47"]:
    """COORDINATES of a motion, degrees; the translation of the pelvis is zero.

    Args:
      body: in SMPL's form. betas: its shape.
      poses: axis-angle, radians, in the axes of the ground.
      calibration: of the angles.
    """
    skeleton, rest = skeleton_of(body, betas), rest_of(body, betas)
    count = len(poses)
    rows = np.minimum(np.arange(-(-count // CHUNK) * CHUNK), count - 1)
    rig = tuple(body.joint_names.index(rig_joint(name)) for name in BODIES)
    frames = np.asarray(rest.frames, np.float32)
    found = _read(skeleton, frames, np.asarray(poses, np.float32)[rows], rig, body.parents)
    rotation, angles = (np.asarray(x)[:count] for x in found)
    angles = calibration.offset + calibration.slope * angles
    pose = Pose(rotation, np.zeros((count, 3), np.float32), angles.astype(np.float32))
    return values_of(pose).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("rig", "parents"))
def _read(
    skeleton: Skeleton,
    frames: Float[Array, "B 3 3"],
    poses: Float[Array, "F 24 3"],
    rig: tuple[int, ...],
    parents: tuple[int, ...],
) -> tuple[Float[Array, "F 3 3"], Float[Array, "F 41"]]:
    """Rotation of the pelvis, and the inner angles."""
    local, world = axis_angle_to_matrix(poses), []
    for joint, parent in enumerate(parents):
        own = local[:, joint]
        world.append(own if parent < 0 else compose(world[parent], own))
    bodies = compose(jnp.stack(world, 1)[:, np.array(rig)], frames)
    bodies = turned_towards_children(skeleton.turns, bodies)
    return bodies[:, 0], angles_between(skeleton.turns, bodies)[:, 3:]


def fitted(readings: Float[np.ndarray, "N 44"], truth: Float[np.ndarray, "N 44"]) -> Calibration:
    """The calibration that brings readings nearest to the truth, least squares for each angle.

    A second pass leaves out the tenth of the frames that are furthest from the line. An angle that
    hardly moves gets an offset only.

    Args:
      readings: of ANGLES, radians, not calibrated. truth: the same.
    """
    near = truth + gap(readings, truth)
    slope, offset = np.ones(len(ANGLES)), np.zeros(len(ANGLES))
    for number in range(len(ANGLES)):
        x, y = near[:, number], truth[:, number]
        for _ in range(2):
            if x.std() > np.radians(_ENDS):
                slope[number] = np.cov(x, y)[0, 1] / x.var(ddof=1)
            offset[number] = y.mean() - slope[number] * x.mean()
            away = np.abs(offset[number] + slope[number] * x - y)
            x, y = (v[away <= np.quantile(away, 0.9)] for v in (x, y))
    return Calibration(slope[3:], offset[3:])
