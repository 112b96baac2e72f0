"""A skeleton for joint angles: bodies, joints, axes and ranges of motion, as data.

Names of bodies and coordinates are those of OpenSim's full-body models (Rajagopal et al. 2016, IEEE
TBME 63:2068), where these have the joint. In the anatomical position - upright, arms hanging, palms
forward - every body has the axes x forward, y up, z to the right, and all coordinates are zero.

Sequences are those of the ISB (Wu et al. 2002, J. Biomech. 35:543, and 2005, 38:981; the knee after
Grood and Suntay 1983): flexion about z, then adduction about x, then rotation about y. The shoulder
has this sequence too, as in OpenSim's models; `systems/biopose/reading.py` gives the ISB's as well.
Signs are those of OpenSim: flexion, adduction, internal rotation, dorsiflexion, inversion,
pronation and ulnar deviation are positive. The spine extends, and bends to the right, positively;
it turns to the left.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_FLEXED_BACK = (0.0, 0.0, -1.0)
# The subtalar axis rises by 42 degrees from the sole, and points 23 degrees inwards from the
# direction of the foot: means of Inman, The Joints of the Ankle, 1976.
_UP, _IN = math.radians(42), math.radians(23)
_SUBTALAR = (
    math.cos(_UP) * math.cos(_IN), math.sin(_UP), -math.cos(_UP) * math.sin(_IN)
)  # fmt: skip


class Coordinate(NamedTuple):
    """A rotation of a joint, about an axis that the rotations before it have turned.

    Attributes:
      name: in OpenSim's style.
      axis: unit vector in the frame of the joint.
      low, high: the range, degrees.
    """

    name: str
    axis: tuple[float, float, float]
    low: float
    high: float


class Segment(NamedTuple):
    """A body, and the joint by which it is attached to its parent.

    Attributes:
      name: of the body.
      parent: its parent, or "" for the pelvis.
      joint: name of the joint.
      group: bodies of a group have one scale.
      coordinates: in the order of the rotations.
    """

    name: str
    parent: str
    joint: str
    group: str
    coordinates: tuple[Coordinate, ...]


# Ranges are those of the American Academy of Orthopaedic Surgeons (Joint Motion: Method of
# Measuring and Recording, 1965), widened by 15 degrees: they are means of adults, and athletes
# exceed them. Exceptions: lumbar and thoracic parts of the trunk after White and Panjabi (Clinical
# Biomechanics of the Spine, 1990), widened alike; the clavicle after Ludewig et al. 2009 (JBJS 91:
# 378) and the same margin; the shoulder, whose ranges are of a sequence of axes and not of clinical
# movements, so that they only exclude the second solution of a rotation.
_PELVIS = (
    Coordinate("pelvis_tilt", Z, -180, 180),
    Coordinate("pelvis_list", X, -90, 90),
    Coordinate("pelvis_rotation", Y, -180, 180),
)
_RIGHT = (
    Segment("femur_r", "pelvis", "hip_r", "femur", (
        Coordinate("hip_flexion_r", Z, -45, 135),
        Coordinate("hip_adduction_r", X, -60, 45),
        Coordinate("hip_rotation_r", Y, -60, 60),
    )),
    Segment("tibia_r", "femur_r", "knee_r", "tibia", (
        Coordinate("knee_angle_r", _FLEXED_BACK, -15, 155),
    )),
    Segment("talus_r", "tibia_r", "ankle_r", "foot", (
        Coordinate("ankle_angle_r", Z, -65, 35),
    )),
    Segment("calcn_r", "talus_r", "subtalar_r", "foot", (
        Coordinate("subtalar_angle_r", _SUBTALAR, -30, 50),
    )),
    Segment("toes_r", "calcn_r", "mtp_r", "foot", (
        Coordinate("mtp_angle_r", Z, -55, 85),
    )),
)  # fmt: skip
_TRUNK = (
    Segment("lumbar", "pelvis", "back", "lumbar", (
        Coordinate("lumbar_extension", Z, -75, 40),
        Coordinate("lumbar_bending", X, -40, 40),
        Coordinate("lumbar_rotation", Y, -30, 30),
    )),
    Segment("torso", "lumbar", "thorax", "torso", (
        Coordinate("thorax_extension", Z, -60, 40),
        Coordinate("thorax_bending", X, -45, 45),
        Coordinate("thorax_rotation", Y, -50, 50),
    )),
    Segment("head", "torso", "neck", "head", (
        Coordinate("neck_flexion", _FLEXED_BACK, -60, 60),
        Coordinate("neck_bending", X, -60, 60),
        Coordinate("neck_rotation", Y, -75, 75),
    )),
)  # fmt: skip
_RIGHT_ARM = (
    Segment("clavicle_r", "torso", "sternoclavicular_r", "clavicle", (
        Coordinate("clavicle_protraction_r", Y, -45, 45),
        Coordinate("clavicle_elevation_r", (-1.0, 0.0, 0.0), -25, 60),
    )),
    Segment("humerus_r", "clavicle_r", "acromial_r", "humerus", (
        Coordinate("arm_flex_r", Z, -120, 180),
        Coordinate("arm_add_r", X, -180, 90),
        Coordinate("arm_rot_r", Y, -135, 135),
    )),
    Segment("ulna_r", "humerus_r", "elbow_r", "forearm", (
        Coordinate("elbow_flex_r", Z, -15, 165),
    )),
    # From full supination: 80 degrees before the middle position, which is at 90.
    Segment("radius_r", "ulna_r", "radioulnar_r", "forearm", (
        Coordinate("pro_sup_r", Y, -5, 185),
    )),
    Segment("hand_r", "radius_r", "wrist_r", "hand", (
        Coordinate("wrist_flex_r", Z, -85, 95),
        Coordinate("wrist_dev_r", X, -35, 45),
    )),
)  # fmt: skip


def _left(segment: Segment) -> Segment:
    """The mirror image: an axis (x, y, z) of rotation becomes (-x, -y, z)."""
    name = lambda text: f"{text.removesuffix('_r')}_l" if text.endswith("_r") else text
    coordinates = tuple(
        Coordinate(name(c.name), (-c.axis[0], -c.axis[1], c.axis[2]), c.low, c.high)
        for c in segment.coordinates
    )
    parent, joint = name(segment.parent), name(segment.joint)
    return Segment(name(segment.name), parent, joint, segment.group, coordinates)


SEGMENTS = (
    Segment("pelvis", "", "ground_pelvis", "pelvis", _PELVIS),
    *_RIGHT,
    *map(_left, _RIGHT),
    *_TRUNK,
    *_RIGHT_ARM,
    *map(_left, _RIGHT_ARM),
)
"""The 24 bodies; a parent comes before its children."""

BODIES = tuple(segment.name for segment in SEGMENTS)
PARENTS = tuple(BODIES.index(s.parent) if s.parent else -1 for s in SEGMENTS)
GROUPS = tuple(dict.fromkeys(segment.group for segment in SEGMENTS))
"""The 11 groups of bodies with one scale."""
GROUP = np.array([GROUPS.index(segment.group) for segment in SEGMENTS])

ROOT = ("pelvis_tx", "pelvis_ty", "pelvis_tz")
"""Translations of the pelvis, metres, in the axes of the ground."""
ANGLES = tuple(c.name for segment in SEGMENTS for c in segment.coordinates)
"""The 44 angles; the first three are of the pelvis."""
COORDINATES = (*ANGLES[:3], *ROOT, *ANGLES[3:])
"""All 47 coordinates in the order of OpenSim's files."""

OWNER = np.array([i for i, segment in enumerate(SEGMENTS) for _ in segment.coordinates])
"""The body of each angle."""
AXES = np.array([c.axis for segment in SEGMENTS for c in segment.coordinates])
LIMITS = np.radians([(c.low, c.high) for segment in SEGMENTS for c in segment.coordinates])
"""(44, 2) radians."""


def mirrored(angles: Float[np.ndarray, "*batch 44"]) -> Float[np.ndarray, "*batch 44"]:
    """The angles of the mirror image of a pose: sides exchanged, and bending and turning negated.

    The pelvis turns as if the mirror were its own sagittal plane in the anatomical position.
    """
    other = {"_r": "_l", "_l": "_r"}
    source = [ANGLES.index(n[:-2] + other[n[-2:]] if n[-2:] in other else n) for n in ANGLES]
    middle = [s.name for s in SEGMENTS if not s.name.endswith(("_r", "_l"))]
    turned = np.array([BODIES[o] in middle and not a[2] for o, a in zip(OWNER, AXES, strict=True)])
    return np.where(turned, -1.0, 1.0) * angles[..., source]


def rotation_about(
    axis: Float[np.ndarray, "3"], angle: Float[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch 3 3"]:
    """Rotation matrices about a unit axis, radians (Rodrigues)."""
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
