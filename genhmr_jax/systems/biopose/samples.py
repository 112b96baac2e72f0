"""From stored motions with known angles to training windows of NeurIK.

A row is a part of a clip as it is stored. `SampleMaker` resamples it to a random frame rate, poses
the body, mirrors half of the windows, and moves the markers as errors of a recovered body do:
white noise, errors that are correlated in time, and constant ones, of single markers and of whole
segments. Labels stay those of the body without errors.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Bool, Float, UInt
from smpl_jax.rotations import (
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    quaternion_to_matrix,
)

from genhmr_jax.data.poses import sample_hash
from genhmr_jax.geometry.anatomy import ANGLES, AXES, BODIES, mirrored
from genhmr_jax.geometry.markers import CARRIERS, MARKERS, MIRROR
from genhmr_jax.systems.biopose.frames import Frames, frames_of
from genhmr_jax.systems.biopose.kinematics import Pose, turns_about
from genhmr_jax.systems.biopose.labels import RATE, AngleClips
from genhmr_jax.systems.biopose.skeleton import Skeleton
from genhmr_jax.systems.biopose.spec import NeurIkSpec

WORST_FIT = 0.025
"""Metres: labels of frames whose markers fit worse are not used."""
_JUMP = 1.2  # radians between two frames, beyond which an angle took its other solution
_WAVES = 4  # of which a correlated error is made
_MIRRORED = mirrored(np.eye(len(ANGLES))).astype(np.float32)
_CARRIED = np.eye(len(BODIES), dtype=np.float32)[CARRIERS]  # markers x bodies
_MEMBERS = _CARRIED.T / np.maximum(_CARRIED.sum(0), 1)[:, None]  # means of the markers of bodies


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """Errors of markers. Each size of a window is drawn as most x u^2, u uniform in 0..1.

    The sizes are assumptions: about those of the joints of a body that a model recovers from one
    camera, without what that body gets wrong as a whole, which no inverse kinematics can see.

    Attributes:
      clean: share of windows without errors.
      white: standard deviation in each coordinate of each frame, metres.
      slow: of an error that is correlated in time, metres.
      constant: of one that is constant in a window, metres.
      shift, turn: of a body's markers together, half of the variance constant and half slow; metres
        and radians.
      shortest, longest: seconds over which slow errors are correlated.
    """

    clean: float = 0.3
    white: float = 0.014
    slow: float = 0.010
    constant: float = 0.008
    shift: float = 0.012
    turn: float = 0.08
    shortest: float = 0.05
    longest: float = 0.6


class AngleRows(NamedTuple):
    """Parts of B clips, of R frames at labels.RATE; the last frame is repeated to fill them.

    Attributes:
      poses, angles, translation: as in labels.AngleClips.
      count: frames that are not repeated. good: frames whose labels are used.
      betas, scales: of the clip. number: the global sample number.
    """

    poses: Float[Array, "B R 72"]
    angles: Float[Array, "B R 44"]
    translation: Float[Array, "B R 3"]
    count: Float[Array, "B"]
    good: Bool[Array, "B R"]
    betas: Float[Array, "B 10"]
    scales: Float[Array, "B 11"]
    number: UInt[Array, "B"]


def stored_frames(spec: NeurIkSpec) -> int:
    """R: frames at labels.RATE from which any window can be made."""
    return math.ceil((spec.window - 1) * RATE / spec.least_rate) + 2


def batch_shapes(spec: NeurIkSpec, *rows: int) -> AngleRows:
    """Shapes of a batch; without `rows`, of one sample."""
    frames = stored_frames(spec)
    shape = lambda *s, dtype=np.float32: jax.ShapeDtypeStruct((*rows, *s), dtype)
    return AngleRows(
        shape(frames, 72), shape(frames, len(ANGLES)), shape(frames, 3), shape(),
        shape(frames, dtype=bool), shape(10), shape(11), shape(dtype=np.uint32),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AngleSource:
    """Parts of training clips; a data.pipeline.Source. Every frame is drawn equally often."""

    clips: AngleClips
    spec: NeurIkSpec
    size: int
    seed: int

    def load(self, numbers: np.ndarray) -> AngleRows:
        """The samples with these global numbers (b,)."""
        chosen, lengths = self.clips.of("train"), self.clips.ends - self.clips.starts
        share = np.cumsum(lengths[chosen] / lengths[chosen].sum())
        at = np.searchsorted(share, sample_hash(numbers, self.seed), side="right")
        clip = chosen[np.minimum(at, len(chosen) - 1)]
        # A clip that is longer than the row: a part from any frame on.
        free = np.maximum(lengths[clip] - stored_frames(self.spec), 0)
        first = np.floor(sample_hash(numbers, self.seed + 1) * (free + 1)).astype(int)
        return rows_of(self.clips, self.spec, clip, first, numbers)

    def shapes(self) -> AngleRows:
        """Shapes of one sample."""
        return batch_shapes(self.spec)


def rows_of(
    clips: AngleClips, spec: NeurIkSpec, clip: np.ndarray, first: np.ndarray, numbers: np.ndarray
) -> AngleRows:
    """Rows of the clips `clip` (b,), from their frame `first` (b,) on."""
    frames = stored_frames(spec)
    start, last = clips.starts[clip] + first, clips.ends[clip] - 1
    rows = np.minimum(start[:, None] + np.arange(frames), last[:, None])
    count = np.minimum(last - start + 1, frames)
    good = (clips.rmse[rows] < WORST_FIT) & (np.arange(frames) < count[:, None])
    return AngleRows(
        clips.poses[rows], clips.angles[rows], clips.translation[rows], count.astype(np.float32),
        good, clips.betas[clip], clips.scales[clip], np.asarray(numbers).astype(np.uint32),
    )  # fmt: skip


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """B windows of T frames.

    Attributes:
      frames: the inputs.
      truth: the poses of all frames, arrays (B, T, ...), with the angles of the labels.
      scales: (B, 11).
      good: (B, T) 1 where labels are used, else 0.
      weight: (B,) of each window.
    """

    frames: Frames
    truth: Pose
    scales: Float[Array, "B G"]
    good: Float[Array, "B T"]
    weight: Float[Array, "B"]


class Posed(NamedTuple):
    """Resampled windows: markers (B, T, M, 3) without errors, and labels."""

    markers: Float[Array, "B T M 3"]
    rotation: Float[Array, "B T 3 3"]
    translation: Float[Array, "B T 3"]
    angles: Float[Array, "B T 41"]
    good: Bool[Array, "B T"]
    valid: Bool[Array, "B T"]


@dataclasses.dataclass(frozen=True)
class SampleMaker:
    """Makes windows of rows.

    Attributes:
      spec: of the network. noise: of the markers.
      body: a marker_body. skeleton: the mean one.
    """

    spec: NeurIkSpec
    noise: NoiseSpec
    body: smpl_jax.SmplModel
    skeleton: Skeleton

    def training(self, rows: AngleRows, base: Array) -> Sample:
        """Windows at random rates, mirrored or not, with errors."""
        spec = self.spec
        keys = jax.vmap(lambda number: jax.random.fold_in(base, number))(rows.number)
        draw = lambda name: jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, name)))
        low, high = math.log(spec.least_rate), math.log(spec.most_rate)
        rate = jnp.exp(low + (high - low) * draw(0)(keys))
        times = jnp.arange(spec.window) / rate[:, None]
        posed = self.posed(rows, RATE * times + draw(1)(keys)[:, None])
        swapped = _mirror(posed)
        swap = draw(2)(keys) < 0.5
        choose = lambda a, b: jnp.where(swap.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
        posed = jax.tree.map(choose, swapped, posed)
        # A key that is split again must not be one into which numbers are folded: JAX then draws
        # the same numbers twice.
        draw_errors = jax.vmap(
            lambda key, t, x: errors(jax.random.fold_in(key, 3), t, x, self.noise)
        )
        error = draw_errors(keys, times, posed.markers)
        weight = jnp.full(len(rate), 1.0 / len(rate))
        return self.sample(posed, posed.markers + error, times, rows.scales, weight)

    def sample(
        self, posed: Posed, markers: Array, times: Array, scales: Array, weight: Array
    ) -> Sample:
        """A sample of markers, which may have errors, and labels."""
        frames = frames_of(self.skeleton, markers, times, posed.valid)
        truth = Pose(posed.rotation, posed.translation, posed.angles)
        return Sample(frames, truth, scales, posed.good.astype(jnp.float32), weight)

    def posed(self, rows: AngleRows, at: Float[Array, "B T"]) -> Posed:
        """Bodies and labels at times, which are counted in stored frames."""
        valid = at <= rows.count[:, None] - 1
        at = jnp.clip(at, 0, rows.count[:, None] - 1)
        first = jnp.minimum(jnp.floor(at).astype(jnp.int32), rows.poses.shape[1] - 2)
        share = at - first
        pair = lambda x: [
            jnp.take_along_axis(x, (first + k).reshape(*first.shape, *(1,) * (x.ndim - 2)), 1)
            for k in (0, 1)
        ]
        # 1. Rotations: straight lines between quaternions.
        batch, count = rows.poses.shape[:2]
        joints = axis_angle_to_quaternion(rows.poses.reshape(batch, count, 24, 3))
        pelvis = matrix_to_quaternion(pelvis_rotation(rows.angles[..., :3]))
        wide = lambda q: share.reshape(*share.shape, *(1,) * (q.ndim - 2))
        turns = [quaternion_to_matrix(_between(*pair(q), wide(q))) for q in (joints, pelvis)]
        # 2. Angles: straight lines, but at jumps the nearer one.
        one, two = pair(rows.angles[..., 3:])
        near = jnp.where(share[..., None] < 0.5, one, two)
        line = one + share[..., None] * (two - one)
        angles = jnp.where(jnp.abs(two - one) > _JUMP, near, line)
        one, two = pair(rows.translation)
        translation = one + share[..., None] * (two - one)
        both = pair(rows.good)
        good = both[0] & (both[1] | (share == 0)) & valid
        # 3. Markers of the skin.
        frames = at.shape[1]
        betas = jnp.repeat(rows.betas, frames, 0)
        posed = smpl_jax.forward(self.body, betas, turns[0].reshape(-1, 24, 3, 3))
        markers = posed.vertices.reshape(batch, frames, len(MARKERS), 3)
        return Posed(markers, turns[1], translation, angles, good, valid)


def pelvis_rotation(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """The rotation of tilt, list and rotation of the pelvis, radians."""
    about = lambda i: turns_about(AXES[i : i + 1], angles[..., i : i + 1])[..., 0, :, :]
    one, two, three = (about(i) for i in range(3))
    return jnp.einsum("...ij,...jk,...kl->...il", one, two, three, precision="highest")


def _between(one: Array, two: Array, share: Array) -> Array:
    """Quaternions between others; the nearer one of two that are the same rotation."""
    near = jnp.where(jnp.sum(one * two, -1, keepdims=True) < 0, -two, two)
    found = one + share * (near - one)
    return found / jnp.linalg.norm(found, axis=-1, keepdims=True)


def _mirror(posed: Posed) -> Posed:
    """The mirror images: x of SMPL's axes, and z of the pelvis's, point the other way."""
    world, own = np.array([-1, 1, 1], np.float32), np.array([1, 1, -1], np.float32)
    return posed._replace(
        markers=posed.markers[..., MIRROR, :] * world,
        rotation=world[:, None] * posed.rotation * own,
        translation=posed.translation * world,
        angles=jnp.einsum("...a,ab->...b", posed.angles, _MIRRORED[3:, 3:], precision="highest"),
    )


def errors(
    key: Array, times: Float[Array, "T"], markers: Float[Array, "T M 3"], spec: NoiseSpec
) -> Float[Array, "T M 3"]:
    """Errors of the markers of one window, metres, in the axes of the ground.

    Args:
      times: seconds. markers: without errors; those of a body turn about their mean.
    """
    keys = dict(zip(
        ("sizes", "span", "white", "slow", "constant", "shift", "turn"),
        jax.random.split(key, 7), strict=True,
    ))  # fmt: skip
    single, bodies = markers.shape[1:], len(BODIES)
    u = jax.random.uniform(keys["sizes"], (6,))
    on = u[5] >= spec.clean
    most = jnp.array([spec.white, spec.slow, spec.constant, spec.shift, spec.turn])
    white, slow, constant, shift, turn = jnp.where(on, most * u[:5] ** 2, 0.0)
    low, high = math.log(spec.shortest), math.log(spec.longest)
    span = jnp.exp(low + (high - low) * jax.random.uniform(keys["span"]))
    normal = jax.random.normal
    found = white * normal(keys["white"], markers.shape)
    found += slow * waves(keys["slow"], times, span, single)
    found += constant * normal(keys["constant"], single)

    def of_bodies(name: str) -> Float[Array, "T B 3"]:
        steady = normal(keys[name], (bodies, 3))
        varying = waves(jax.random.fold_in(keys[name], 1), times, span, (bodies, 3))
        return (steady + varying) / math.sqrt(2)

    found += _CARRIED @ (shift * of_bodies("shift"))
    middle = jnp.einsum("bm,tmi->tbi", _MEMBERS, markers, precision="highest")
    axis = _CARRIED @ (turn * of_bodies("turn"))
    return found + jnp.cross(axis, markers - _CARRIED @ middle)


def waves(
    key: Array, times: Float[Array, "T"], span: Float[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "T *shape"]:
    """Random functions of time of variance 1, correlated by exp(-(t / span)^2 / 2).

    Each is a sum of cosines of random frequencies (Rahimi and Recht 2007).
    """
    first, second = jax.random.split(key)
    speed = jax.random.normal(first, (*shape, _WAVES)) / span
    phase = jax.random.uniform(second, (*shape, _WAVES), maxval=2 * math.pi)
    at = times.reshape(-1, *(1,) * (len(shape) + 1))
    return math.sqrt(2 / _WAVES) * jnp.sum(jnp.cos(speed * at + phase), -1)
