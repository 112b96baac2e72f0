"""What NeurIK gets of each frame, and how its answer becomes a pose: both without heading.

A closed form (start.py) turns the mean skeleton into the markers, each body by itself. Markers are
given in the axes of its pelvis, and the network's answer is relative to it. Thus a motion that is
turned or moved has the same angles, exactly.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from smpl_jax.rotations import axis_angle_to_matrix, compose, matrix_to_axis_angle

from genhmr_jax.geometry.anatomy import BODIES, GROUPS, LIMITS, PARENTS
from genhmr_jax.geometry.markers import CARRIERS, MARKERS
from genhmr_jax.systems.biopose.kinematics import INNER, Pose, place
from genhmr_jax.systems.biopose.skeleton import Skeleton
from genhmr_jax.systems.biopose.start import closed_form

MOTION = 6
"""Numbers of the motion of the pelvis since the frame before."""
ERRORS = INNER + 6
"""Errors of a frame: of inner angles, turn and shift of the pelvis."""
OUTPUTS = ERRORS + INNER
"""Numbers of a frame: corrections of the same, and trust in the closed form's angles."""
_GAP_UNIT, _MOTION_UNIT = 0.03, 0.1  # metres, radians: typical sizes
_ANGLE_UNIT, _TURN_UNIT, _SHIFT_UNIT = 0.1, 0.05, 0.01  # of outputs that are 1
_TRUST = 3.0  # of an output that is 0: 95 %
_INSIDE = 0.99  # of a half range, to which the closed form's angles are clipped


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frames:
    """Inputs of the network, of B windows of T frames.

    Attributes:
      markers: (B, T, M, 6): the marker in the axes of the pelvis, metres; and its distance from
        that of the closed form's skeleton, in units of _GAP_UNIT.
      start: the closed form; its arrays are (B, T, ...), as those of all poses of windows.
      motion: (B, T, 6) of the pelvis since the frame before, in its axes.
      times: (B, T) seconds. valid: (B, T) False for padding.
    """

    markers: Float[Array, "B T M 6"]
    start: Pose
    motion: Float[Array, "B T 6"]
    times: Float[Array, "B T"]
    valid: Bool[Array, "B T"]


class Answer(NamedTuple):
    """Outputs of the network, of B windows of T frames.

    Attributes:
      outputs: (B, T, 88) corrections, about 1, and logits of the trust.
      spread: (B, T, 47) logarithms of the mean absolute errors that it expects, radians and metres.
      scales: (B, 11) of the groups of bodies, relative to the mean skeleton.
    """

    outputs: Float[Array, "B T 88"]
    spread: Float[Array, "B T 47"]
    scales: Float[Array, "B G"]


def frames_of(
    skeleton: Skeleton,
    markers: Float[Array, "B T M 3"],
    times: Float[Array, "B T"],
    valid: Bool[Array, "B T"],
) -> Frames:
    """The inputs of the network.

    Args:
      skeleton: the mean one.
      markers: metres. times: seconds. valid: False for padding, which is at the end.
    """
    batch, count = times.shape
    flat = markers.reshape(batch * count, *markers.shape[2:])
    start = closed_form(skeleton, flat, jnp.ones(flat.shape[:2]))
    placed = place(skeleton, start, jnp.ones(len(GROUPS)))
    back = lambda x: jnp.einsum("fji,fmj->fmi", start.rotation, x, precision="highest")
    own = back(flat - start.translation[:, None])
    gap = back(flat - placed.markers) / _GAP_UNIT
    both = jnp.concatenate([own, gap], -1).reshape(batch, count, len(MARKERS), 6)
    start = jax.tree.map(lambda x: x.reshape(batch, count, *x.shape[1:]), start)
    return Frames(both, start, _motion(start), times, valid)


def _motion(start: Pose) -> Float[Array, "B T 6"]:
    """Turn (rotation vector) and shift of the pelvis since the frame before; the first: 0."""
    before = jnp.swapaxes(start.rotation[:, :-1], -1, -2)
    turn = matrix_to_axis_angle(compose(before, start.rotation[:, 1:]))
    step = start.translation[:, 1:] - start.translation[:, :-1]
    shift = jnp.einsum("btij,btj->bti", before, step, precision="highest")
    both = jnp.concatenate([turn, shift], -1) / _MOTION_UNIT
    return jnp.pad(both, ((0, 0), (1, 0), (0, 0)))


def pose_of(start: Pose, outputs: Float[Array, "*f 88"]) -> Pose:
    """The pose that outputs of the network mean; angles are within LIMITS by construction.

    An angle is low + (high - low) (1 + tanh(z)) / 2. z is a share of that of the closed form, which
    noise of close markers may have turned by any angle, plus the correction.
    """
    low, high = LIMITS[3:].astype(np.float32).T
    half = (high - low) / 2
    share = jnp.clip((start.angles - low) / half - 1, -_INSIDE, _INSIDE)
    trust = jax.nn.sigmoid(outputs[..., ERRORS:] + _TRUST)
    z = trust * jnp.arctanh(share) + _ANGLE_UNIT * outputs[..., :INNER] / half
    turn = axis_angle_to_matrix(_TURN_UNIT * outputs[..., INNER : INNER + 3])
    shift = _SHIFT_UNIT * outputs[..., INNER + 3 : ERRORS]
    moved = jnp.einsum("...ij,...j->...i", start.rotation, shift, precision="highest")
    angles = low + half * (1 + jnp.tanh(z))
    return Pose(compose(start.rotation, turn), start.translation + moved, angles)


def adjacency() -> Float[np.ndarray, "M M"]:
    """The graph of the markers, normalised by rows: those of a body and of bodies joined to it."""
    joined = np.eye(len(BODIES), dtype=bool)
    for body, parent in enumerate(PARENTS[1:], 1):
        joined[body, parent] = joined[parent, body] = True
    # Talus and ulna carry no marker: their neighbours are joined.
    bare = [body for body in range(len(BODIES)) if body not in CARRIERS]
    for body in bare:
        around = np.flatnonzero(joined[body])
        joined[np.ix_(around, around)] = True
    edges = joined[np.ix_(CARRIERS, CARRIERS)].astype(np.float32)
    return edges / edges.sum(1, keepdims=True)
