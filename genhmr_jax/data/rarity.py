"""How rare each pose of a corpus is: the density of poses around it, in positions of the joints.

Motion capture is mostly upright walking and standing. People who sit, kneel, lie, hang upside down
or bend their limbs far are a few percent, so that a model that is trained in proportion learns them
last.
"""

import numpy as np
import smpl_jax
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.bodies import load_body

REFERENCES = 1024  # poses of the corpus from which the density is estimated
BANDWIDTH = 0.1  # metres, root mean square over the joints
MOST = 10.0  # largest weight of a pose, over that of a pose of median density
_STEPS = 4  # weights are powers of 2^(1/4), so that the last digits of a machine change no draw


def favour_rare(
    poses: Float[np.ndarray, "N 72"], weights: Float[np.ndarray, "N"], share: float
) -> Float[np.ndarray, "N"]:
    """Probabilities under which a share of the draws is spread over the poses by their rarity.

    The other draws follow `weights`. Those of the share follow weights / density, where the density
    is that of the corpus as `weights` draw it (a Gaussian kernel of BANDWIDTH over REFERENCES
    poses). So they are spread about evenly over the space of poses, but a factor of MOST at most is
    gained, since the rarest poses of motion capture are often errors.

    Args:
      poses: axis-angle, radians, y up.
      weights: probabilities, sum 1.
      share: 0..1.

    Returns:
      probabilities, sum 1.
    """
    if not share:
        return weights
    points = joint_features(poses)
    quantiles = (np.arange(REFERENCES) + 0.5) / REFERENCES
    chosen = np.searchsorted(np.cumsum(weights), quantiles * weights.sum(), side="right")
    around = density(points, points[np.minimum(chosen, len(poses) - 1)])
    drawn = weights > 0
    gain = np.clip(np.median(around[drawn]) / around, 1 / MOST, MOST)
    gain = 2.0 ** (np.round(_STEPS * np.log2(gain)) / _STEPS)
    rare = weights * gain
    return (1 - share) * weights + share * rare / rare.sum()


def joint_features(poses: Float[np.ndarray, "N 72"]) -> Float[np.ndarray, "N 72"]:
    """Positions of the 24 joints from the pelvis, metres, of the mean body turned about y to 0.

    The height above the pelvis is kept, so that lying and inverted bodies differ from upright ones,
    and the direction in the ground plane is not: every sample is turned at random anyway.
    """
    body = load_body()
    rest, parents = np.asarray(body.joint_template, np.float64), np.asarray(body.parents)
    root = Rotation.from_rotvec(poses[:, :3].astype(np.float64))
    x, y, z, w = root.as_quat().T
    heading = 2 * np.arctan2(y, w)  # the turn about y of the swing and twist
    turns = [(Rotation.from_rotvec(np.outer(-heading, [0, 1, 0])) * root).as_matrix()]
    places = [np.zeros((len(poses), 3))]
    for joint in range(1, len(smpl_jax.keypoints.SMPL24)):
        parent = parents[joint]
        bone = rest[joint] - rest[parent]
        places.append(places[parent] + turns[parent] @ bone)
        own = Rotation.from_rotvec(poses[:, 3 * joint : 3 * joint + 3].astype(np.float64))
        turns.append(turns[parent] @ own.as_matrix())
    return np.stack(places, 1).reshape(len(poses), -1)


def density(
    points: Float[np.ndarray, "N D"], references: Float[np.ndarray, "R D"]
) -> Float[np.ndarray, "N"]:
    """Mean of a Gaussian kernel of BANDWIDTH around the references, and a small floor.

    The kernel is exp(-d^2 / (2 BANDWIDTH^2)) of the root mean square distance d of the joints.
    """
    joints = points.shape[1] / 3
    squares = (references**2).sum(1)
    found = np.empty(len(points))
    for start in range(0, len(points), 8192):
        part = points[start : start + 8192]
        distance = (part**2).sum(1)[:, None] + squares - 2 * part @ references.T
        kernel = np.exp(-np.maximum(distance, 0) / (2 * joints * BANDWIDTH**2))
        found[start : start + 8192] = kernel.mean(1)
    return found + 1e-6
