"""The wrist and the forearm of a body of SMPL's form, so that the hand has a given orientation.

The forearm carries pronation: a hand that turns about the forearm takes the skin of the forearm
with it. SMPL has no joint for that. So elbow and wrist share the twist about the forearm, and
neither place shows the whole of it. NumPy, float64.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

FLEXION, EXTENSION = 75.0, 70.0
RADIAL, ULNAR = 20.0, 35.0
PRONATION, SUPINATION = 70.0, 85.0
"""Ranges of motion, degrees (e-hand.com, nor002)."""

NEUTRAL = 28.0
"""Pronation of the rest pose of SMPL's form, degrees. In the neutral position the thumb is in the
plane in which the elbow bends, on the side to which it bends. Forearms at rest have the thumb
forward, but elbows bend forward and up: 28 degrees up is the mean of the arms that are bent by more
than 30 degrees (17 to 39 degrees in 20 arms of 12 photos, recovered by the shipped model)."""

TOLERANCE = 30.0
"""Degrees beyond a range up to which a hand is believed: both estimates have errors."""


@dataclasses.dataclass(frozen=True)
class WristAngles:
    """Anatomical angles of a hand relative to its upper arm and forearm, degrees.

    Attributes:
      pronation: of the forearm from its neutral position, elbow and wrist together; supination is
        negative. NEUTRAL in the rest pose, where the other angles are zero.
      flexion: towards the palm; extension is negative.
      radial: deviation towards the thumb; ulnar deviation is negative.
    """

    pronation: float
    flexion: float
    radial: float

    @property
    def excess(self) -> float:
        """Degrees by which the angles leave the ranges of motion, the largest of the three."""
        beyond = lambda angle, most, least: max(angle - most, -least - angle, 0.0)
        return max(
            beyond(self.pronation, PRONATION, SUPINATION),
            beyond(self.flexion, FLEXION, EXTENSION),
            beyond(self.radial, RADIAL, ULNAR),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SolvedWrist:
    """Rotations relative to the parents (3, 3) of elbow and wrist, and the angles of the hand."""

    elbow: Float[np.ndarray, "3 3"]
    wrist: Float[np.ndarray, "3 3"]
    angles: WristAngles


def twist_about(
    rotation: Float[np.ndarray, "3 3"], axis: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3 3"], float]:
    """Decompose R = swing twist: first the twist about a unit axis, then the shortest swing.

    Returns:
      the swing, and the angle of the twist, radians, in (-pi, pi] (the projection of the quaternion
      on the axis; Dobrowolski, "Swing-twist decomposition in Clifford algebra", 2015).
    """
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    angle = 2.0 * np.arctan2(np.dot([x, y, z], axis), w)
    angle = float(np.pi - np.mod(np.pi - angle, 2 * np.pi))
    return rotation @ _about(axis, -angle), angle


def solve_wrist(
    elbow: Float[np.ndarray, "3 3"],
    upper_arm: Float[np.ndarray, "3 3"],
    hand: Float[np.ndarray, "3 3"],
    axis: Float[np.ndarray, "3"],
    right: bool,
) -> SolvedWrist:
    """Elbow and wrist for which the hand has a given orientation; the forearm keeps its direction.

    The elbow turns about its own bone, so that elbow and wrist have the same twist, half of the
    sum. Where the sum exceeds the range of the forearm, the shoulder is at fault rather than the
    forearm: nothing is cut off, as long as the angles are plausible (`WristAngles.excess`).

    Args:
      elbow: rotation of the elbow relative to the upper arm.
      upper_arm: orientation of the upper arm (the shoulder's joint) in any axes.
      hand: wanted orientation of the hand in the same axes.
      axis: unit vector from elbow to wrist in the rest pose.
      right: whether it is a right arm.
    """
    swing, of_elbow = twist_about(elbow, axis)
    local = (upper_arm @ elbow).T @ hand
    bent, of_wrist = twist_about(local, axis)
    total = of_elbow + of_wrist
    if abs(total) > np.pi:  # the twist of the elbow and that of the wrist go around the same way
        total -= 2 * np.pi * np.sign(total)
    half = _about(axis, total / 2)
    # The bend in the axes of the hand: R = twist, then bend about axes that turn with it.
    turn = _about(axis, of_wrist)
    bend = Rotation.from_matrix(turn.T @ bent @ turn).as_rotvec()
    # The arm of a side points along its x. A turn about +x pronates either arm: the left one points
    # along +x, the right one is its mirror image, and turns in x are the same in the mirror.
    side = 1.0 if right else -1.0
    pronation = np.degrees(total * np.sign(axis[0])) + NEUTRAL
    angles = pronation, *np.degrees([side * bend[2], side * bend[1]])
    new_elbow = swing @ half
    new_wrist = (upper_arm @ new_elbow).T @ hand
    return SolvedWrist(new_elbow, new_wrist, WristAngles(*map(float, angles)))


def _about(axis: np.ndarray, angle: float) -> np.ndarray:
    return Rotation.from_rotvec(np.asarray(axis) * angle).as_matrix()
