"""From a posed body to joint angles, by one of three methods."""

from typing import Any, NamedTuple

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float

from genhmr_jax.geometry.anatomy import ANGLES, GROUPS
from genhmr_jax.systems.biopose.body_errors import BODY_HALF_WIDTH as BODY_HALF_WIDTH
from genhmr_jax.systems.biopose.calibration import COLUMNS
from genhmr_jax.systems.biopose.from_rotations import Calibration, read
from genhmr_jax.systems.biopose.ik import CHUNK, solve
from genhmr_jax.systems.biopose.kinematics import Pose, place
from genhmr_jax.systems.biopose.samples import pelvis_rotation
from genhmr_jax.systems.biopose.skeleton import Skeleton, skeleton_of
from genhmr_jax.systems.biopose.system import NeurIkSystem

METHODS = ("neurik", "ik", "reading")
_PELVIS = 6
"""Markers of the pelvis are the first ones of geometry.markers.MARKERS."""


class Solved(NamedTuple):
    """Angles of F frames.

    Attributes:
      values: (F, 47) of COORDINATES, degrees and metres.
      band: (F, 44) half widths of the 80 % band of ANGLES for given markers, degrees; NaN if the
        method has none.
      markers: (F, 70, 3) of the skeleton, metres. rmse: (F,) between them and the given ones.
      skeleton: of the person.
    """

    values: Float[np.ndarray, "F 47"]
    band: Float[np.ndarray, "F 44"]
    markers: Float[np.ndarray, "F 70 3"]
    rmse: Float[np.ndarray, "F"]
    skeleton: Skeleton


def solve_body(
    method: str,
    model: tuple[NeurIkSystem, Any],
    body: smpl_jax.SmplModel,
    betas: Float[np.ndarray, "S"],
    poses: Float[np.ndarray, "F 24 3"],
    markers: Float[np.ndarray, "F 70 3"],
    rate: float,
) -> Solved:
    """Joint angles of a motion.

    Args:
      method: of METHODS.
      model: of system.load_neurik; it holds the calibration of the readings too.
      body: in SMPL's form. betas: its shape. poses: axis-angle, radians.
      markers: of the posed body, in the same axes, metres.
      rate: frames a second.

    Raises:
      ValueError: no such method, or a rate that NeurIK does not know.
    """
    skeleton, (system, params) = skeleton_of(body, betas), model
    band = np.full((len(markers), len(ANGLES)), np.nan, np.float32)
    if method == "ik":
        found = solve(skeleton, markers)
        return Solved(found.values, band, found.markers, found.rmse, skeleton)
    if method == "neurik":
        answer = system.solve(params, markers, rate)
        values = answer.values
        band = np.asarray(params["bands"]["factor"]) * answer.spread[:, COLUMNS]
    elif method == "reading":
        values = read(body, betas, poses, Calibration(**params["reading"]))
    else:
        raise ValueError(f"method {method!r}: choose among {', '.join(METHODS)}")
    placed = markers_of(skeleton, values)
    if method == "reading":  # rotations have no place: the markers of the pelvis give it
        shift = (markers - placed)[:, :_PELVIS].mean(1)
        values[:, 3:6] += shift
        placed = placed + shift[:, None]
    rmse = np.sqrt(((placed - markers) ** 2).sum(-1).mean(-1))
    return Solved(values, band, placed, rmse, skeleton)


def markers_of(
    skeleton: Skeleton, values: Float[np.ndarray, "F 47"]
) -> Float[np.ndarray, "F 70 3"]:
    """The markers of the skeleton at COORDINATES (degrees, metres)."""
    count = len(values)
    rows = np.minimum(np.arange(-(-count // CHUNK) * CHUNK), count - 1)
    return np.asarray(_placed(skeleton, values[rows].astype(np.float32)))[:count]


@jax.jit
def _placed(skeleton: Skeleton, values: Float[np.ndarray, "F 47"]) -> Float[np.ndarray, "F 70 3"]:
    radians = values[:, np.array(COLUMNS)] * np.float32(np.pi / 180)
    pose = Pose(pelvis_rotation(radians[:, :3]), values[:, 3:6], radians[:, 3:])
    return place(skeleton, pose, np.ones(len(GROUPS), np.float32)).markers
