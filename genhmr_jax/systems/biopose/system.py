"""NeurIK on a motion of any length: windows that overlap, and one pose for each frame."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.markers import MARKERS
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.systems.biopose import model
from genhmr_jax.systems.biopose.frames import ERRORS, OUTPUTS, Answer, frames_of, pose_of
from genhmr_jax.systems.biopose.ik import CHUNK, values_of
from genhmr_jax.systems.biopose.kinematics import INNER
from genhmr_jax.systems.biopose.skeleton import Skeleton, skeleton_of
from genhmr_jax.systems.biopose.spec import NeurIkSpec
from genhmr_jax.systems.biopose.start import closed_form

KIND = "neurik"
BATCH = 8
"""Windows that are solved together; the last one is repeated to fill them."""


@dataclasses.dataclass(frozen=True)
class MotionAngles:
    """The answer for F frames, NumPy.

    Attributes:
      values: (F, 47) of COORDINATES: degrees, and metres for the pelvis's translation.
      spread: (F, 47) mean absolute error that the network expects of each, in the same units.
      scales: (11,) of GROUPS, relative to the mean skeleton.
    """

    values: Float[np.ndarray, "F 47"]
    spread: Float[np.ndarray, "F 47"]
    scales: Float[np.ndarray, "G"]


@dataclasses.dataclass(frozen=True)
class NeurIkSystem:
    """NeurIK; parameters are passed to every call."""

    spec: NeurIkSpec
    kind = KIND

    @property
    def window(self) -> int:
        """Frames that are solved together."""
        return self.spec.window

    @property
    def shapes(self) -> dict[str, Any]:
        """Shapes of the parameters: of the network, of the lines of the readings (from_rotations),
        and of the sizes of the bands (calibration)."""
        line = jax.ShapeDtypeStruct((INNER,), np.float32)
        return {
            KIND: model.graph(self.spec)[1],
            "reading": {"slope": line, "offset": line},
            "bands": {"factor": jax.ShapeDtypeStruct((len(ANGLES),), np.float32)},
        }

    def stride(self, rate: float) -> int:
        """Every how many frames make a motion of a rate that the network knows; 0: the rate is too
        low."""
        if rate < 0.9 * self.spec.least_rate:
            return 0
        return max(1, int(np.ceil(rate / self.spec.most_rate - 0.1)))

    def solve(self, params: Any, markers: Float[np.ndarray, "F M 3"], rate: float) -> MotionAngles:
        """Joint angles of a motion.

        Of a rate above those of the training, every second (third, ...) frame makes a motion.

        Args:
          params: {"neurik": arrays}.
          markers: in the order of MARKERS, metres, all known.
          rate: frames a second.

        Raises:
          ValueError: another number of markers, no frame, numbers that are not finite, or a rate
            below that of the training.
        """
        markers, stride = np.asarray(markers, np.float32), self.stride(rate)
        if markers.ndim != 3 or markers.shape[1:] != (len(MARKERS), 3) or not len(markers):
            raise ValueError(f"markers of shape {markers.shape}: expected (F, {len(MARKERS)}, 3)")
        if not np.isfinite(markers).all():
            raise ValueError("NeurIK needs all markers of all frames")
        if not stride:
            raise ValueError(f"{rate:g} frames a second are fewer than {self.spec.least_rate:g}")
        count, scales = len(markers), []
        outputs = np.zeros((count, OUTPUTS), np.float32)
        spread = np.zeros((count, ERRORS), np.float32)
        for offset in range(stride):
            rows = slice(offset, None, stride)
            found = self._windows(params, markers[rows], rate / stride)
            outputs[rows], spread[rows], of_part = found
            scales.append(of_part)
        start = _START(mean_skeleton(), _filled(markers))
        pose = jax.tree.map(np.asarray, _POSE(start, _filled(outputs)))
        return MotionAngles(
            values_of(jax.tree.map(lambda x: x[:count], pose)).astype(np.float32),
            _in_units(np.exp(spread)),
            np.mean(scales, 0),
        )

    def _windows(
        self, params: Any, markers: Float[np.ndarray, "F M 3"], rate: float
    ) -> tuple[Float[np.ndarray, "F 88"], Float[np.ndarray, "F 47"], Float[np.ndarray, "G"]]:
        """Outputs and spread of all frames, means over the windows that hold them; and scales."""
        count, size = len(markers), self.spec.window
        first = list(range(0, max(count - size, 0) + 1, max(size // 2, 1)))
        if first[-1] + size < count:
            first.append(count - size)
        at = np.array(first)[:, None] + np.arange(size)
        valid, at = at < count, np.minimum(at, count - 1)
        weight = (valid * _ramp(size, self.spec.causal))[..., None]
        times = np.broadcast_to(np.arange(size, dtype=np.float32) / rate, at.shape)
        total, scales = np.zeros((count, 1), np.float32), []
        sums = [np.zeros((count, n), np.float32) for n in (OUTPUTS, ERRORS)]
        for begin in range(0, len(at), BATCH):
            rows = np.minimum(np.arange(begin, begin + BATCH), len(at) - 1)
            windows = markers[at[rows]], times[rows], valid[rows]
            answer = _answer(self.spec, mean_skeleton(), params[KIND], *windows)
            used = len(at[begin : begin + BATCH])
            scales.append(np.asarray(answer.scales)[:used])
            frames, w = at[rows[:used]], weight[rows[:used]]
            np.add.at(total, frames, w)
            for into, array in zip(sums, (answer.outputs, answer.spread), strict=True):
                np.add.at(into, frames, w * np.asarray(array)[:used])
        return sums[0] / total, sums[1] / total, np.concatenate(scales).mean(0)


def _filled(rows: np.ndarray) -> np.ndarray:
    """Frames up to a multiple of CHUNK, so that few programs are compiled."""
    count = -(-len(rows) // CHUNK) * CHUNK
    return rows[np.minimum(np.arange(count), len(rows) - 1)]


def _in_units(errors: Float[np.ndarray, "F 47"]) -> Float[np.ndarray, "F 47"]:
    """Errors of the network's outputs -> errors of COORDINATES, degrees and metres.

    Turns of the pelvis about its x, y and z axes are errors of list, rotation and tilt.
    """
    inner, turn, shift = np.split(errors, [INNER, INNER + 3], -1)
    return np.concatenate([np.degrees(turn[:, [2, 0, 1]]), shift, np.degrees(inner)], -1)


def _ramp(size: int, causal: bool) -> Float[np.ndarray, "T"]:
    """The weight of a window's answer for each of its frames: those with more frames around count
    more, or those with more frames before."""
    place = np.arange(size) + 1.0
    return place if causal else np.minimum(place, place[::-1])


@functools.cache
def mean_skeleton() -> Skeleton:
    """That of the free body, for which the network is trained."""
    return skeleton_of(load_body("neutral"), np.zeros(10))


@functools.partial(jax.jit, static_argnames="spec")
def _answer(
    spec: NeurIkSpec, skeleton: Skeleton, params: Any, markers: Array, times: Array, valid: Array
) -> Answer:
    return model.network(spec, params)(frames_of(skeleton, markers, times, valid))


_START = jax.jit(
    lambda skeleton, markers: closed_form(skeleton, markers, jnp.ones(markers.shape[:2]))
)
_POSE = jax.jit(pose_of)


def load_neurik(folder: Any) -> tuple[NeurIkSystem, Any]:
    """The system and the parameters of a model folder.

    Raises:
      InputError: no model, or one of another kind.
    """
    meta = load_meta(folder)
    if meta.get("kind") != KIND:
        remedy = "give a model of configs/neurik"
        raise InputError(folder, f"is a {meta.get('kind')!r} model, not NeurIK", remedy)
    try:
        system = NeurIkSystem(NeurIkSpec.from_dict(meta["spec"]))
        shapes = system.shapes
    except (TypeError, KeyError, ValueError) as error:
        problem = f"config.json does not describe a model ({error})"
        raise InputError(folder, problem, "export the model again") from error
    return system, load_params(folder, shapes)
