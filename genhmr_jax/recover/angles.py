"""Joint angles of the people of a clip: markers of their bodies, angles by a method, a filter."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import smpl_jax
from jaxtyping import Bool, Float
from scipy.interpolate import CubicSpline
from scipy.signal import butter, sosfiltfilt
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.anatomy import COORDINATES
from genhmr_jax.geometry.gait import Cycle, gait_cycles
from genhmr_jax.geometry.markers import MARKERS
from genhmr_jax.geometry.motion import CAMERA, OBSERVED, Motion, nearest_frames
from genhmr_jax.geometry.stature import stature, with_stature
from genhmr_jax.recover.photo import default_checkpoint
from genhmr_jax.render.rest import rest_joints, rest_of
from genhmr_jax.systems.biopose.methods import BODY_HALF_WIDTH, solve_body
from genhmr_jax.systems.biopose.model_file import body_mass
from genhmr_jax.systems.biopose.reading import READ, read_angles
from genhmr_jax.systems.biopose.skeleton import Skeleton, marker_body
from genhmr_jax.systems.biopose.system import NeurIkSystem, load_neurik

METHOD = "neurik"
"""The default; docs/systems/biopose.md compares them."""
CUTOFF = 6.0
"""Hz of the low-pass filter, as in most analyses of walking (Winter 2009)."""
_PASSES = 0.802  # factor of the cutoff of each of two passes (Winter 2009, section 2.2.4.4)
_IRREGULAR = 0.01  # part of an interval
_CHUNK = 256  # frames that are posed together


@dataclasses.dataclass(frozen=True)
class PersonAngles:
    """Angles of one person over F frames at a constant rate; y up, metres, degrees.

    The ground's x axis is the mean direction in which the pelvis faces, so that tilt, list and
    rotation of the pelvis have their meaning. All other axes follow.

    Attributes:
      name: of the person. times: (F,) seconds.
      values: (F, 47) of COORDINATES, filtered. unfiltered: the same before.
      band: (F, 44) half widths of the 80 % band of ANGLES, degrees, filtered like the angles; NaN
        if the method has none.
      method: of methods.METHODS.
      read: (F, 9) of READ, degrees.
      markers: (F, 70, 3) of the body's skin, not filtered.
      model_markers: (F, 70, 3) of the skeleton, not filtered.
      rmse: (F,) metres between both.
      observed: (F,) whether the person was seen, and not interpolated.
      skeleton: of the person. mass: kg, given or from the volume. height: metres.
      axes: what the vertical axis is. turned: degrees by which the recording is turned about it.
      cutoff: Hz; 0: not filtered.
      cycles: of walking.
    """

    name: str
    times: Float[np.ndarray, "F"]
    values: Float[np.ndarray, "F 47"]
    unfiltered: Float[np.ndarray, "F 47"]
    band: Float[np.ndarray, "F 44"]
    method: str
    read: Float[np.ndarray, "F 9"]
    markers: Float[np.ndarray, "F 70 3"]
    model_markers: Float[np.ndarray, "F 70 3"]
    rmse: Float[np.ndarray, "F"]
    observed: Bool[np.ndarray, "F"]
    skeleton: Skeleton
    mass: float
    height: float
    axes: str
    turned: float
    cutoff: float
    cycles: tuple[Cycle, ...]

    @property
    def columns(self) -> dict[str, Float[np.ndarray, "F"]]:
        """All angles and translations by name."""
        table = np.concatenate([self.values, self.read], -1)
        return dict(zip((*COORDINATES, *READ), table.T, strict=True))


def angles_of(
    motion: Motion,
    body: smpl_jax.SmplModel,
    *,
    method: str = METHOD,
    height: float | None = None,
    mass: float | None = None,
    cutoff: float = CUTOFF,
    model: tuple[NeurIkSystem, Any] | None = None,
) -> PersonAngles:
    """Joint angles of a motion, from its first to its last known frame.

    Args:
      motion: of a person; in the axes of the camera, gravity is taken to be along its y axis.
      body: of its parameters.
      method: of methods.METHODS. NeurIK knows rates from 20 frames a second; for lower ones the
        angles are those of inverse kinematics.
      height: metres; the person, and the distance to the camera, are scaled to it.
      mass: kg; None: from the volume of the body.
      cutoff: Hz of a zero-lag Butterworth filter of 4th order; 0, or too little frames a second for
        it: no filter.
      model: NeurIK and its parameters (default: the shipped one).

    Raises:
      InputError: no height of a person.
      ValueError: the person is in no frame, or no such method.
    """
    motion = _regular(motion.continuous())
    if height is not None:
        motion = _with_height(motion, body, height)
    # 1. Markers of the skin, y up, facing x.
    markers = _marker_places(motion, body)
    if motion.axes == CAMERA:
        markers = markers * [1, -1, -1]
        axes = "y is against the y axis of the camera: gravity is not known"
    else:
        axes = "y is up, and the ground is at 0"
    turned = _heading(markers)
    turn = Rotation.from_euler("y", -turned, degrees=True)
    markers = turn.apply(markers.reshape(-1, 3)).reshape(len(motion), -1, 3).astype(np.float32)
    if motion.axes == CAMERA:
        turn = turn * Rotation.from_euler("x", 180, degrees=True)
    poses = motion.poses.copy()
    poses[:, 0] = (turn * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    # 2. Angles.
    rate, model = motion.rate, model or shipped_neurik()
    if method == "neurik" and not model[0].stride(rate):
        method = "ik"
    found = solve_body(method, model, body, motion.betas, poses, markers, rate)
    filtered = cutoff > 0 and cutoff / _PASSES < rate / 2 and len(motion) > 1
    smooth = lambda x: low_pass(x, rate, cutoff) if filtered else x
    values = smooth(found.values)
    if mass is None:
        mass = body_mass(rest_of(body, motion.betas).vertices, body)
    return PersonAngles(
        name=motion.name,
        times=motion.times,
        values=values,
        unfiltered=found.values,
        band=smooth(np.hypot(found.band, BODY_HALF_WIDTH)),
        method=method,
        read=read_angles(values),
        markers=markers,
        model_markers=found.markers,
        rmse=found.rmse,
        observed=motion.state == OBSERVED,
        skeleton=found.skeleton,
        mass=mass,
        height=stature(body, motion.betas),
        axes=axes,
        turned=turned,
        cutoff=cutoff if filtered else 0.0,
        cycles=tuple(_cycles(motion.times, smooth(markers))),
    )


@functools.cache
def shipped_neurik() -> tuple[NeurIkSystem, Any]:
    """NeurIK and its parameters, as they come with the package."""
    return load_neurik(default_checkpoint("neurik"))


def low_pass(
    values: Float[np.ndarray, "F *n"], rate: float, cutoff: float
) -> Float[np.ndarray, "F *n"]:
    """A Butterworth filter of 4th order without lag: two passes of 2nd order, in both directions.

    The cutoff of each pass is higher, so that both together have half the power at `cutoff`.

    Args:
      values: over frames.
      rate: frames a second, more than 2.5 times the cutoff.
      cutoff: Hz.
    """
    sections = butter(2, cutoff / _PASSES, fs=rate, output="sos")
    padding = min(3 * round(rate / cutoff), len(values) - 1)
    return sosfiltfilt(sections, values, axis=0, padlen=padding)


def _regular(motion: Motion) -> Motion:
    """The motion at a constant rate: that of its median interval."""
    steps = np.diff(motion.times)
    if not len(steps) or np.ptp(steps) <= _IRREGULAR * np.median(steps):
        return motion
    count = round((motion.times[-1] - motion.times[0]) * motion.rate) + 1
    times = np.linspace(motion.times[0], motion.times[-1], count)
    quaternions = Rotation.from_rotvec(motion.poses.reshape(-1, 3)).as_quat()
    quaternions = quaternions.reshape(len(motion), 24, 4)
    opposite = np.einsum("fjk,fjk->fj", quaternions[1:], quaternions[:-1]) < 0
    quaternions[1:] *= np.where(np.cumsum(opposite, 0) % 2, -1.0, 1.0)[..., None]
    quaternions = CubicSpline(motion.times, quaternions)(times)
    poses = Rotation.from_quat(quaternions.reshape(-1, 4)).as_rotvec().reshape(count, 24, 3)
    nearest = nearest_frames(motion.times, times)
    return dataclasses.replace(
        motion,
        times=times,
        poses=poses.astype(np.float32),
        translation=CubicSpline(motion.times, motion.translation)(times).astype(np.float32),
        state=motion.state[nearest],
        confidence=motion.confidence[nearest],
    )


def _with_height(motion: Motion, body: smpl_jax.SmplModel, height: float) -> Motion:
    """The motion of a person of another height, which has the same picture.

    The pelvis p + t of the rest pose's p moves in proportion to the heights.
    """
    betas = with_stature(body, motion.betas, height)
    before, after = (rest_joints(body, shape)[0] for shape in (motion.betas, betas))
    ratio = height / stature(body, motion.betas)
    translation = ratio * (before + motion.translation) - after
    return dataclasses.replace(motion, betas=betas, translation=translation.astype(np.float32))


_POSED = jax.jit(lambda *arguments: smpl_jax.forward(*arguments).vertices)


def _marker_places(motion: Motion, body: smpl_jax.SmplModel) -> Float[np.ndarray, "F 70 3"]:
    """Markers of the posed bodies, in the axes of the motion, metres."""
    reduced, parts = marker_body(body), []
    for first in range(0, len(motion), _CHUNK):
        rows = np.minimum(np.arange(first, first + _CHUNK), len(motion) - 1)
        part = _POSED(reduced, motion.betas, motion.poses[rows], motion.translation[rows])
        parts.append(np.asarray(part, np.float64))
    return np.concatenate(parts)[: len(motion)]


def _heading(markers: Float[np.ndarray, "F 70 3"]) -> float:
    """Degrees about y from x to the mean direction in which the pelvis faces."""
    ahead = _facing(markers).sum(0)
    return float(np.degrees(np.arctan2(-ahead[2], ahead[0])))


def _facing(markers: Float[np.ndarray, "F 70 3"]) -> Float[np.ndarray, "F 3"]:
    """The horizontal direction from the middle of the PSIS to that of the ASIS."""
    front, back = (_middle(markers, name) for name in ("ASI", "PSI"))
    ahead = (front - back) * [1, 0, 1]
    return ahead / np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)


def _middle(markers: Float[np.ndarray, "F 70 3"], name: str) -> Float[np.ndarray, "F 3"]:
    sides = (MARKERS.index(f"{side}{name}") for side in "RL")
    return markers[:, list(sides)].mean(1)


def _cycles(times: np.ndarray, markers: Float[np.ndarray, "F 70 3"]) -> list[Cycle]:
    heels, toes = (
        markers[:, [MARKERS.index(f"{side}{name}") for side in "RL"]] for name in ("HEE", "TOE")
    )
    return gait_cycles(times, heels, toes, _middle(markers, "PSI"), _facing(markers))
