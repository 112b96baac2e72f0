"""Angles that are read from the coordinates: trunk and shoulder, as the ISB recommends."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.anatomy import COORDINATES

READ = (
    *("trunk_extension", "trunk_bending", "trunk_rotation"),
    *(f"shoulder_{angle}_{side}" for side in "rl" for angle in ("plane", "elevation", "axial")),
)
"""Names of the angles of `read_angles`."""


def read_angles(values: Float[np.ndarray, "F 47"]) -> Float[np.ndarray, "F 9"]:
    """Further angles, degrees, in the order of READ.

    The trunk is the torso relative to the pelvis, as in models with one joint of the back. The
    shoulder is the humerus relative to the torso in the sequence y-x-y (Wu et al. 2005): the plane
    of elevation (0: to the side, 90: forwards), the elevation, and the axial rotation (internal is
    positive). At little elevation only the sum of plane and axial rotation has a meaning.

    Args:
      values: of COORDINATES, degrees.
    """
    pick = lambda *names: np.stack([values[:, COORDINATES.index(name)] for name in names], -1)
    angles = ("extension", "bending", "rotation")
    lumbar, thorax = (
        Rotation.from_euler("ZXY", pick(*(f"{part}_{angle}" for angle in angles)), degrees=True)
        for part in ("lumbar", "thorax")
    )
    found = [(lumbar * thorax).as_euler("ZXY", degrees=True)]
    for side in "rl":  # a left arm as its mirror image: the signs of all its axes are mirrored
        raised = pick(f"clavicle_protraction_{side}", f"clavicle_elevation_{side}") * [1, -1]
        arm = pick(f"arm_flex_{side}", f"arm_add_{side}", f"arm_rot_{side}")
        turned = Rotation.from_euler("YX", raised, degrees=True)
        turned = turned * Rotation.from_euler("ZXY", arm, degrees=True)
        plane, elevation, axial = turned.as_euler("YXY", degrees=True).T
        # The ISB's elevation is a negative rotation about x: X(b) = Y(180) X(-b) Y(-180).
        wrap = lambda x: (x + 180) % 360 - 180
        found.append(np.stack([wrap(plane + 180), elevation, wrap(axial - 180)], -1))
    return np.concatenate(found, -1)
