"""The ground of a clip from a static camera, and world coordinates."""

import dataclasses

import numpy as np
from jaxtyping import Float
from smpl_jax.keypoints import SMPL24

RESTING_SPEED = 0.35
"""Metres a second: a foot that moves at this speed rests with the weight 1/e."""
_ANKLES = [SMPL24.index("left_ankle"), SMPL24.index("right_ankle")]
_TOES = [SMPL24.index("left_foot"), SMPL24.index("right_foot")]
_SOLE = 0.03  # metres from the joint at the ball of the foot down to the ground
_SPREAD = 0.5  # metres: feet that are spread less hardly tilt the plane
# The same while outliers are found. A plane that is pulled more would miss the outermost feet,
# which then would count as outliers.
_OUTLIER_SPREAD = 0.1
# Metres: feet at such distances in height count as one level, and as another one, at the start.
_LEVEL, _OTHER_LEVEL = 0.15, 0.8
_ROBUST = 0.05  # metres
_ROUNDS = 20
FEWEST = 10
"""Resting feet that are needed for a plane."""


@dataclasses.dataclass(frozen=True)
class World:
    """From camera to world coordinates: world = rotation @ camera + translation.

    World coordinates are y up, in metres; the ground is at y = 0, below the middle of the feet at
    x = z = 0, and z points towards the camera.
    """

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]


def foot_contact(
    joints: Float[np.ndarray, "F 24 3"], times: Float[np.ndarray, "F"]
) -> Float[np.ndarray, "F 2"]:
    """The weight 0..1 with which each foot rests from a frame to the next one.

    It is exp(-(v / RESTING_SPEED)^2) of the larger speed v of ankle and toe. The last frame has the
    weight of the one before it.

    Args:
      joints: metres, of a static camera. NaN where the person is not known.
      times: seconds.
    """
    if len(times) < 2:
        return np.zeros((len(times), 2), np.float32)
    interval = np.maximum(np.diff(times), 1e-3)[:, None]
    speed = [
        np.linalg.norm(np.diff(joints[:, part], axis=0), axis=-1) / interval
        for part in (_ANKLES, _TOES)
    ]
    weight = np.exp(-((np.maximum(*speed) / RESTING_SPEED) ** 2))
    return np.nan_to_num(np.concatenate([weight, weight[-1:]])).astype(np.float32)


def ground_of(
    joints: Float[np.ndarray, "N 24 3"], contact: Float[np.ndarray, "N 2"]
) -> World | None:
    """The ground below resting feet.

    The plane y = a x + b z + c in camera coordinates begins as the level on which most feet rest.
    It is fitted by least squares, reweighted so that feet on another level have little influence.
    Slopes are pulled to 0, because the feet of a person who stays in one place determine no slope.

    Args:
      joints: of all people and frames, camera coordinates, metres.
      contact: of `foot_contact`.

    Returns:
      None if fewer than FEWEST feet rest.
    """
    feet, weight = joints[:, _TOES].reshape(-1, 3), contact.reshape(-1)
    feet, weight = feet[weight > 0.5].astype(np.float64), weight[weight > 0.5].astype(np.float64)
    if len(feet) < FEWEST:
        return None
    middle = np.median(feet, 0)
    x, y, z = (feet - middle).T
    columns = np.stack([x, z, np.ones_like(x)], -1)

    def fitted(trusted: np.ndarray, spread: float) -> np.ndarray:
        share = (columns * trusted[:, None] / trusted.sum()).T
        return np.linalg.solve(share @ columns + np.diag([spread**2, spread**2, 0.0]), share @ y)

    # The level on which most feet rest, and then a plane.
    density = np.exp(-(((y[:, None] - y) / _LEVEL) ** 2)) @ weight
    trusted = weight / (1 + ((y - y[density.argmax()]) / _OTHER_LEVEL) ** 2) ** 2
    for _ in range(_ROUNDS):
        residual = y - columns @ fitted(trusted, _OUTLIER_SPREAD)
        trusted = weight / (1 + (residual / _ROBUST) ** 2) ** 2
    plane = fitted(trusted, _SPREAD)
    # Axes of the world in camera coordinates: up is against y of the camera.
    up = np.array([plane[0], -1.0, plane[1]]) / np.sqrt(1 + plane[0] ** 2 + plane[1] ** 2)
    towards = np.array([0.0, 0.0, -1.0])
    towards -= up * (up @ towards)
    towards /= np.linalg.norm(towards)
    rotation = np.stack([np.cross(up, towards), up, towards])
    origin = middle + np.array([0.0, plane[2], 0.0]) - _SOLE * up
    return World(rotation.astype(np.float32), (-rotation @ origin).astype(np.float32))
