"""The answers for people whose left and right may have been confused by the detector.

A detector that sees a person from behind may name the keypoints as if the person faced the camera.
Then the body is turned back to front. From one side it may exchange the legs. A single photo has no
further evidence, but in a clip the neighbouring frames have. Therefore each frame of a clip gets
one answer for each of ASSIGNMENTS, and `best_sequence` chooses among them.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Bool, Float, Int
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.inputs import Inputs, joined_rows
from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.core.solve import SolveOptions, answers, how
from genhmr_jax.core.system import Params, System
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP
from genhmr_jax.io.program_store import stored, stored_output

ASSIGNMENTS = ("detected", "exchanged", "legs exchanged")
PENALTIES = np.array([0.0, 0.1, 0.1])
"""Metres: what a frame of an assignment costs in `best_sequence`, if its keypoints are certain."""
TURN = 1.0
"""Metres: what a turn by pi radians from frame to frame costs in `best_sequence`."""
OUTLIER, RATE, SPAN = 0.3, 30, 8
"""Metres: what it costs `best_sequence` to leave out a frame with certain keypoints, at RATE frames
a second or more; at lower rates as much more, because people move further from frame to frame.
Frames: the longest step from one that is not left out to the next, or from an end of the clip."""
_LEFT = [SMPL24.index("left_hip"), SMPL24.index("left_shoulder")]
_RIGHT = [SMPL24.index("right_hip"), SMPL24.index("right_shoulder")]
_LEG = ("knee", "ankle", "big_toe", "heel")
_LEGS = np.array([name.split("_", 1)[-1] in _LEG for name in DETECTED])


@stored_output
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FrameAnswers:
    """The answers of B people of single frames; A is the number of ASSIGNMENTS.

    Attributes:
      sampled: (B, A, L, D) token embeddings before refinement. embeddings: after it.
      betas: (B, A, 10) shape. weak_camera: (B, A, 3) of the crop.
      global_orient: (B, A, 3), body_pose: (B, A, 69) axis-angle, radians.
      translation: (B, A, 3) metres.
      joints: (B, A, J, 3) camera coordinates, metres.
      confidence: (B, A, J) 0..1.
    """

    sampled: Float[Array, "B A L D"]
    embeddings: Float[Array, "B A L D"]
    betas: Float[Array, "B A 10"]
    weak_camera: Float[Array, "B A 3"]
    global_orient: Float[Array, "B A 3"]
    body_pose: Float[Array, "B A 69"]
    translation: Float[Array, "B A 3"]
    joints: Float[Array, "B A J 3"]
    confidence: Float[Array, "B A J"]


def solve_frames(
    system: System,
    params: Params,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    options: SolveOptions,
) -> FrameAnswers:
    """Recover the bodies of B people under each assignment; see core.solve.solve.

    Args:
      options: with one hypothesis.
    """
    return _solve(system, params, surface, inputs, keys, *how(options))


@stored("system", "hypotheses", "spec", "context")
def _solve(
    system: System,
    params: Params,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    iterations: Array,
    temperature: Array,
    hypotheses: int,
    spec: RefineSpec,
    context: str,
) -> FrameAnswers:
    rows, count = inputs.rows, len(ASSIGNMENTS)
    everything = joined_rows([inputs, exchanged(inputs), legs_exchanged(inputs)])
    rest = iterations, temperature, hypotheses, spec, context
    found = answers(system, params, surface, everything, jnp.tile(keys, count), *rest)
    refined, latents = found.refined, found.latents
    rotmats = found.pose(refined.embeddings)
    axis_angle = smpl_jax.rotations.matrix_to_axis_angle(rotmats)
    translation = found.view.translation(refined.weak_camera)
    joints = smpl_jax.forward(surface, refined.betas, rotmats).joints + translation[:, None]
    by_row = lambda x: jnp.swapaxes(x.reshape(count, rows, *x.shape[1:]), 0, 1)
    values = FrameAnswers(
        sampled=latents.embeddings,
        embeddings=refined.embeddings,
        betas=refined.betas,
        weak_camera=refined.weak_camera,
        global_orient=axis_angle[:, 0],
        body_pose=axis_angle[:, 1:].reshape(len(axis_angle), -1),
        translation=translation,
        joints=joints,
        confidence=found.confidence,
    )
    return jax.tree.map(by_row, values)


def exchanged(inputs: Inputs) -> Inputs:
    """The same people with left and right exchanged: turned back to front, at the same pixels.

    A reflection in depth leaves all pixels, and makes a left side of a right one. The picture is
    ignored if its features are of the detector, which may have confused the sides.
    """
    flip, reflection = np.array(DETECTED_FLIP), np.float32([1, 1, -1])
    return dataclasses.replace(
        inputs,
        keypoints=_changed(inputs.keypoints, lambda x: x[:, flip]),
        keypoints3d=_changed(inputs.keypoints3d, lambda x: x[:, flip] * reflection),
        image_weight=_changed(inputs.image_weight, jnp.zeros_like),
    )


def legs_exchanged(inputs: Inputs) -> Inputs:
    """The same people with the legs exchanged below the hips, each at the other's pixels.

    Both legs keep their depths, because the trunk determines which hip is in front.
    """
    flip, legs = np.array(DETECTED_FLIP), _LEGS[:, None]
    in_depth = lambda x: jnp.concatenate([x[:, flip, :2], x[..., 2:]], -1)
    return dataclasses.replace(
        inputs,
        keypoints=_changed(inputs.keypoints, lambda x: jnp.where(legs, x[:, flip], x)),
        keypoints3d=_changed(inputs.keypoints3d, lambda x: jnp.where(legs, in_depth(x), x)),
    )


def assigned(
    keypoints: Float[np.ndarray, "N K 3"], answer: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N K 3"]:
    """Detected keypoints with the names that an assignment (index into ASSIGNMENTS) gives them."""
    other = keypoints[:, list(DETECTED_FLIP)]
    change = np.stack([np.zeros_like(_LEGS), np.ones_like(_LEGS), _LEGS])[answer]
    return np.where(change[..., None], other, keypoints)


def _changed(value: Array | None, change: Callable[[Array], Array]) -> Array | None:
    """A field of Inputs that a system may lack."""
    return None if value is None else change(value)


def best_sequence(
    joints: Float[np.ndarray, "T A J 3"],
    confidence: Float[np.ndarray, "T"],
    interval: float,
) -> tuple[Int[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
    """The most likely answer in each of the frames of one person (Viterbi 1967).

    In some frames no answer is right. They are left out: the motion continues from the frame before
    them to the one after them. The sequence has the smallest sum, in metres, over the other frames,
    of

    - the penalty of its assignment, times the square of the keypoints' confidence, which falls
      where the detector confuses left and right,
    - the mean distance of its joints from those in the frame before,
    - TURN times the angle by which hips and shoulders turn from the frame before, over pi,

    and, for each frame that is left out, of OUTLIER times the square of the confidence (more below
    RATE frames a second). A body turned back to front for n frames costs two turns, and the right
    one n penalties.

    Args:
      joints: metres; only their positions relative to the first joint count.
      confidence: mean of the detected keypoints, 0..1.
      interval: seconds from one frame of the clip to the next.

    Returns:
      the index of the assignment in each frame, and whether it is part of the sequence. Frames that
      are left out have the assignment that is most like the nearest frame of the sequence.
    """
    change = _Change(joints)
    own = PENALTIES * confidence[:, None] ** 2
    count, assignments = own.shape
    price = OUTLIER * max(1.0, RATE * interval)
    passed = np.concatenate([[0.0], np.cumsum(price * confidence**2)])
    # 1. The smallest sum up to each frame and answer, from the start or one of SPAN frames before.
    at = np.arange(count)
    total = np.where(at < SPAN, passed[:-1], np.inf)[:, None] + own
    origins = np.full((count, assignments), -1)  # indices into the flat `total`
    for t in range(1, count):
        earlier = np.arange(max(t - SPAN, 0), t)
        left_out = passed[t] - passed[earlier + 1]
        steps = total[earlier][..., None] + change(earlier, t) + left_out[:, None, None]
        steps = steps.reshape(-1, assignments)
        best = steps.argmin(0)
        value = steps[best, np.arange(assignments)] + own[t]
        origins[t] = np.where(value < total[t], earlier[0] * assignments + best, -1)
        total[t] = np.minimum(value, total[t])
    # 2. Backwards from the best end.
    answer, fits = np.zeros(count, int), np.zeros(count, bool)
    rest = np.where(at >= count - SPAN, passed[-1] - passed[1:], np.inf)
    state = int((total + rest[:, None]).argmin())
    while state >= 0:
        t, a = divmod(state, assignments)
        answer[t], fits[t] = a, True
        state = int(origins[t, a])
    # 3. The frames that are left out.
    kept = np.flatnonzero(fits)
    for t in np.flatnonzero(~fits):
        near = kept[np.abs(kept - t).argmin()]
        answer[t] = (change(near[None], t)[0, answer[near]] + own[t]).argmin()
    return answer, fits


class _Change:
    """What it costs to come from one answer to another one, in metres; see `best_sequence`."""

    def __init__(self, joints: Float[np.ndarray, "T A J 3"]):
        self._relative = joints - joints[:, :, :1]
        facing = (joints[:, :, _LEFT] - joints[:, :, _RIGHT]).sum(2)
        length = np.linalg.norm(facing, axis=-1, keepdims=True)
        self._facing = facing / np.maximum(length, 1e-6)

    def __call__(self, before: Int[np.ndarray, "N"], t: int) -> Float[np.ndarray, "N A A"]:
        """From each answer of the frames `before` to each one of frame t."""
        gap = self._relative[before][:, :, None] - self._relative[t]
        cosine = np.clip(self._facing[before] @ self._facing[t].T, -1, 1)
        return np.linalg.norm(gap, axis=-1).mean(-1) + TURN / np.pi * np.arccos(cosine)
