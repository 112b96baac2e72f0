"""A motion of any skeleton: joints in a tree, offsets at rest, and how each joint turns in each frame."""

import dataclasses

import numpy as np

from genhmr_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class SkeletonMotion:
    """A motion clip; parents come before their children.

    Attributes:
      names: of the J joints.
      parents: (J,) index of each joint's parent; -1 for the root.
      offsets: (J, 3) from the parent to the joint when nothing turns, in the file's unit of length.
      rotations: (N, J, 3, 3) of each joint relative to its parent; the identity is the rest pose.
      root: (N, 3) position of the root.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    rotations: np.ndarray
    root: np.ndarray

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """Forward kinematics: positions (N, J, 3) of the joints, and their rotations (N, J, 3, 3) relative to the rest pose."""
        turned, positions = np.empty_like(self.rotations), np.empty(self.rotations.shape[:2] + (3,))
        for j, parent in enumerate(self.parents):
            if parent < 0:
                turned[:, j], positions[:, j] = self.rotations[:, j], self.root
            else:
                turned[:, j] = turned[:, parent] @ self.rotations[:, j]
                positions[:, j] = positions[:, parent] + turned[:, parent] @ self.offsets[j]
        return positions, turned

    def frames(self, kept: np.ndarray) -> "SkeletonMotion":
        """Only these frames."""
        return dataclasses.replace(self, rotations=self.rotations[kept], root=self.root[kept])


def check_sane(numbers: np.ndarray, where: object) -> None:
    """Raises InputError if lengths, or angles in degrees, are not finite or beyond anything that a recording has."""
    if not (np.abs(numbers) < 1e6).all():
        raise InputError(where, "has numbers that are not finite, or far too large", "download it again")
