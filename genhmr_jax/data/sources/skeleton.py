"""A motion of any skeleton: a tree of joints, offsets at rest, and rotations by frame and joint."""

import dataclasses

import numpy as np

from genhmr_jax.geometry.skeleton import forward_kinematics
from genhmr_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class SkeletonMotion:
    """A motion clip; parents come before their children.

    Attributes:
      names: of the J joints.
      parents: (J,) index of each joint's parent; -1 for the root.
      offsets: (J, 3) from the parent to the joint at rest, in the file's unit of length.
      rotations: (N, J, 3, 3) of each joint relative to its parent; the identity is the rest pose.
      root: (N, 3) position of the root.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    rotations: np.ndarray
    root: np.ndarray

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, J, 3) of the joints, and rotations (N, J, 3, 3) from the rest pose."""
        offsets = np.broadcast_to(self.offsets, (len(self.root), *self.offsets.shape)).copy()
        offsets[:, 0] = self.root
        rotations, positions = forward_kinematics(self.parents, offsets, self.rotations)
        return positions, rotations

    def frames(self, kept: np.ndarray) -> "SkeletonMotion":
        """The motion of these frames alone."""
        return dataclasses.replace(self, rotations=self.rotations[kept], root=self.root[kept])


MOST_JOINTS = 1000


def check_joints(joints: int, channels: int, where: object) -> None:
    """Raises InputError for a skeleton of far more joints than channels.

    Its motion has a matrix for each joint and frame, but a number in the file only for each
    channel: a file of a megabyte could need a terabyte.
    """
    if joints > min(2 * channels + 8, MOST_JOINTS):
        problem = f"has {joints} joints with {channels} channels in all"
        raise InputError(where, problem, "is it the motion of a person?")


def check_sane(numbers: np.ndarray, where: object) -> None:
    """Raises InputError if lengths, or angles in degrees, are not finite or above 1e6."""
    if not (np.abs(numbers) < 1e6).all():
        problem = "has numbers that are not finite, or far too large"
        raise InputError(where, problem, "download it again")
