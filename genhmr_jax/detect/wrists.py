"""The wrists of detected people, and where their hands should be."""

import dataclasses

import numpy as np
from jaxtyping import Float

from genhmr_jax.detect.blazepose import Region
from genhmr_jax.geometry.keypoints import DETECTED

# The first region beyond a wrist, in units of the forearm: its side, and the distance of its centre
# from the wrist.
PER_FOREARM, BEYOND_WRIST = 1.1, 0.3
SEARCH_PER_FOREARM = 3.0  # side of the square around it in which palms are searched
FOREARM_PER_TORSO = 0.45  # a foreshortened forearm is not shorter than this share of the torso
MIN_WRIST = 0.3  # confidence of a wrist from which a hand is searched there
SIDES = ("left", "right")


@dataclasses.dataclass(frozen=True, eq=False)
class Wrist:
    """A visible wrist of a person.

    Attributes:
      person, right: index of the person, and whether it is the right wrist.
      point, confidence: px, 0..1.
      towards: px from elbow to wrist.
      forearm: length of the forearm if it were not foreshortened, px.
    """

    person: int
    right: bool
    point: Float[np.ndarray, "2"]
    confidence: float
    towards: Float[np.ndarray, "2"]
    forearm: float

    def region(self) -> Region:
        """The region beyond the wrist, in line with the forearm."""
        x, y = self.point + BEYOND_WRIST * self.towards
        angle = float(np.arctan2(self.towards[0], -self.towards[1]))
        return Region(float(x), float(y), PER_FOREARM * self.forearm, angle)


def wrists_of(keypoints: Float[np.ndarray, "23 3"], person: int) -> list[Wrist]:
    """The visible wrists of a person."""
    at = lambda name: keypoints[DETECTED.index(name)]
    found = []
    for side in SIDES:
        wrist, elbow = at(f"{side}_wrist"), at(f"{side}_elbow")
        if min(wrist[2], elbow[2]) < MIN_WRIST:
            continue
        towards = wrist[:2] - elbow[:2]
        length = max(float(np.linalg.norm(towards)), 1.0)
        torso = np.array([at(f"{s}_{joint}") for joint in ("shoulder", "hip") for s in SIDES])
        if torso[:, 2].min() >= MIN_WRIST:
            middle = torso[:2, :2].mean(0) - torso[2:, :2].mean(0)
            length = max(length, FOREARM_PER_TORSO * float(np.linalg.norm(middle)))
        confidence = min(float(wrist[2]), 1.0)
        found.append(Wrist(person, side == "right", wrist[:2], confidence, towards, length))
    return found
