"""The skeleton of a person: the table of geometry/anatomy.py inside a body of SMPL's form.

Joint centres and markers are linear functions of the betas, because vertices and joints of the rest
pose are. The axes of the bodies follow from them (Wu et al. 2002 and 2005): the long axis of a limb
runs through its joint centres, and the others come from the rest pose, in which a body stands
upright with its arms to the sides and its palms down: arms abducted by 90 degrees, forearms in the
middle between supination and pronation. Trunk, head and pelvis count from the upright posture.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.anatomy import AXES, BODIES, GROUP, GROUPS, OWNER, PARENTS, rotation_about
from genhmr_jax.geometry.markers import CARRIERS, MARKERS, marker_vertices
from genhmr_jax.geometry.skeleton import forward_kinematics

KNEE_TILT, ELBOW_TILT = math.radians(7.3), math.radians(23)
"""Functional axes: about them knees and elbows bend in recorded motions (mocap.cs.cmu.edu) of the
free body, the directions of largest variance of their rotations. In the rest pose knees face
inwards by the first angle, and the bends of the elbows upwards by the second."""
# The joint of SMPL's form that turns as a body does.
_RIG = {
    "pelvis": "pelvis", "lumbar": "spine1", "torso": "spine3", "head": "head", "femur": "hip",
    "tibia": "knee", "talus": "ankle", "calcn": "ankle", "toes": "foot", "clavicle": "collar",
    "humerus": "shoulder", "ulna": "elbow", "radius": "elbow", "hand": "wrist",
}  # fmt: skip
# Poses over which the places of markers are averaged: joint, axis of the left side (x to the left,
# y up, z forward), degrees. Skin moves on bones: with hanging arms the acromion is not where it is
# in the rest pose. Standing with hanging arms counts twice.
_STANDING = (("shoulder", 2, -75),)
_REFERENCES = (
    (),
    _STANDING,
    _STANDING,
    (("shoulder", 1, -80), ("elbow", 1, -20)),
    (*_STANDING, ("elbow", 1, -90), ("hip", 0, -60), ("knee", 0, 80)),
)
_FORWARD, _UP, _RIGHT = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Skeleton:
    """Bodies and markers of a person, metres; B bodies and M markers.

    Attributes:
      offsets: (B, 3) of a body's origin, its joint, in the frame of the parent; the pelvis: zero.
      turns: (B, 3, 3) frame of the joint at its zero angles in the frame of the parent. It is the
        unit matrix for joints of three axes.
      markers: (M, 3) in the frames of the bodies CARRIERS.
    """

    offsets: Float[np.ndarray, "B 3"]
    turns: Float[np.ndarray, "B 3 3"]
    markers: Float[np.ndarray, "M 3"]


@dataclasses.dataclass(frozen=True)
class Rest:
    """The bodies in the rest pose of SMPL: y up, z forward, metres.

    Attributes:
      centres: (B, 3) origins. frames: (B, 3, 3) axes in columns. markers: (M, 3).
    """

    centres: Float[np.ndarray, "B 3"]
    frames: Float[np.ndarray, "B 3 3"]
    markers: Float[np.ndarray, "M 3"]


class _ById:
    """A body as a key of a cache."""

    def __init__(self, model: smpl_jax.SmplModel) -> None:
        self.model = model

    def __hash__(self) -> int:
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.model is other.model


@functools.lru_cache(maxsize=8)
def _reduced(body: _ById) -> smpl_jax.SmplModel:
    return body.model.subset(marker_vertices(body.model))


def marker_body(body: smpl_jax.SmplModel) -> smpl_jax.SmplModel:
    """The body reduced to its markers: `smpl_jax.forward(...).vertices` are those of MARKERS."""
    return _reduced(_ById(body))


def rest_of(body: smpl_jax.SmplModel, betas: Float[np.ndarray, "S"]) -> Rest:
    """Joint centres, frames and markers of a shape in the rest pose.

    Centres are the joints of the body; those that it does not have lie between others: the pelvis
    between the spines ASIS, the subtalar joint between ankle and heel, the joint of the thorax
    between spine2 and spine3, and that of the head between neck and head.
    """
    reduced, betas = marker_body(body), np.asarray(betas, np.float64)
    count = len(betas)
    template = np.asarray(reduced.template, np.float64).T
    markers = template + np.einsum("s,sxm->mx", betas, reduced.directions[:count])
    joints = np.asarray(body.joint_template, np.float64)
    joints = joints + np.einsum("s,sjx->jx", betas, np.asarray(body.joint_shapedirs)[:count])
    at = dict(zip(body.joint_names, joints, strict=True))
    skin = dict(zip(MARKERS, markers, strict=True))
    centres = {
        "pelvis": (skin["RASI"] + skin["LASI"]) / 2,
        "lumbar": at["spine1"],
        "torso": (at["spine2"] + at["spine3"]) / 2,
        "head": (at["neck"] + at["head"]) / 2,
    }
    upright = np.stack([_FORWARD, _UP, _RIGHT], -1)
    frames = dict.fromkeys(("pelvis", "lumbar", "torso", "head"), upright)
    for side, word, thumb_up in (("r", "right", 1.0), ("l", "left", -1.0)):
        hip, knee, ankle = (at[f"{word}_{name}"] for name in ("hip", "knee", "ankle"))
        heel, ball = skin[f"{side.upper()}HEE"], at[f"{word}_foot"]
        shoulder, elbow, wrist = (at[f"{word}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        # Joint by joint: the centre, and the frame.
        knee_axis = _RIGHT * math.cos(KNEE_TILT) + thumb_up * _FORWARD * math.sin(KNEE_TILT)
        level = _UP * thumb_up  # z of the forearm in the middle position of an abducted arm
        elbow_axis = thumb_up * (_UP * math.cos(ELBOW_TILT) - _FORWARD * math.sin(ELBOW_TILT))
        foot = _frame(_UP, np.cross(ball - heel, _UP))
        palm = _frame(elbow - wrist, level)
        half = rotation_about(np.array([0.0, thumb_up, 0.0]), np.pi / 2)
        side_bodies = {
            "femur": (hip, _frame(hip - knee, knee_axis)),
            "tibia": (knee, _frame(knee - ankle, knee_axis)),
            "talus": (ankle, foot),
            "calcn": ((ankle + heel) / 2, foot),
            "toes": (ball, foot),
            "clavicle": (at[f"{word}_collar"], upright),
            "humerus": (shoulder, _frame(shoulder - elbow, elbow_axis)),
            "ulna": (elbow, _frame(elbow - wrist, elbow_axis)),
            "radius": (elbow, palm @ half),
            "hand": (wrist, palm @ half),
        }
        for name, (centre, frame) in side_bodies.items():
            centres[f"{name}_{side}"], frames[f"{name}_{side}"] = centre, frame
    stack = lambda table: np.stack([table[name] for name in BODIES])
    return Rest(stack(centres), stack(frames), markers)


def skeleton_of(body: smpl_jax.SmplModel, betas: Float[np.ndarray, "S"]) -> Skeleton:
    """The skeleton of a shape.

    Args:
      body: the body, in SMPL's form.
      betas: shape coefficients; the missing ones are zero.
    """
    rest = rest_of(body, betas)
    offsets, turns = np.zeros((len(BODIES), 3)), np.tile(np.eye(3), (len(BODIES), 1, 1))
    for child, parent in enumerate(PARENTS):
        if parent < 0:
            continue
        above = rest.frames[parent]
        offsets[child] = above.T @ (rest.centres[child] - rest.centres[parent])
        relative, own = above.T @ rest.frames[child], AXES[OWNER == child]
        if len(own) == 1:
            # The part of the turn that the joint cannot make is fixed: such as that of the toes
            # outwards from the shank.
            angle = closest_angle(own[0], relative)
            turns[child] = relative @ rotation_about(own[0], angle).T
        elif len(own) == 2:
            turns[child] = relative
    markers = _mean_markers(body, np.asarray(betas), rest)
    return Skeleton(*(x.astype(np.float32) for x in (offsets, turns, markers)))


def scales_between(mean: Skeleton, own: Skeleton) -> Float[np.ndarray, "G"]:
    """The scales of the groups that bring one skeleton nearest to another, least squares.

    A scale stretches the offsets of joints, and the places of markers, of its bodies.
    """
    found = np.zeros(len(GROUPS))
    for group in range(len(GROUPS)):
        offsets = np.array([p >= 0 and GROUP[p] == group for p in PARENTS])
        markers = GROUP[CARRIERS] == group
        both = (np.concatenate([s.offsets[offsets], s.markers[markers]]) for s in (mean, own))
        before, after = both
        found[group] = (before * after).sum() / (before**2).sum()
    return found


def _mean_markers(
    body: smpl_jax.SmplModel, betas: Float[np.ndarray, "S"], rest: Rest
) -> Float[np.ndarray, "M 3"]:
    """The places of the markers in the frames of their bodies: means over reference poses."""
    poses = np.zeros((len(_REFERENCES), body.num_joints, 3), np.float32)
    for number, turns in enumerate(_REFERENCES):
        for joint, axis, degrees in turns:
            for side, sign in (("left", 1), ("right", 1 if axis == 0 else -1)):
                index = body.joint_names.index(f"{side}_{joint}")
                poses[number, index, axis] = np.radians(sign * degrees)
    posed = _POSED(marker_body(body), betas.astype(np.float32), poses)
    vertices, joints, rest_joints = (np.asarray(x, np.float64) for x in posed)
    local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix()
    local = local.reshape(*poses.shape[:2], 3, 3)
    world, _ = forward_kinematics(body.parents, np.zeros_like(joints), local)
    rig = [body.joint_names.index(rig_joint(BODIES[carrier])) for carrier in CARRIERS]
    back = np.einsum("nmji,nmj->nmi", world[:, rig], vertices - joints[:, rig])
    in_rest = back.mean(0) + rest_joints[0, rig] - rest.centres[CARRIERS]
    return np.einsum("mij,mi->mj", rest.frames[CARRIERS], in_rest)


_POSED = jax.jit(lambda body, betas, poses: smpl_jax.forward(body, betas, poses))


def rig_joint(body: str) -> str:
    """The joint of SMPL's form that turns as a body of the skeleton does."""
    side = {"_r": "right_", "_l": "left_"}.get(body[-2:], "")
    return side + _RIG[body[:-2] if side else body]


def closest_angle(axis: np.ndarray, rotation: np.ndarray) -> float:
    """The angle of the turn about an axis that is closest to a rotation: it maximises the trace of
    their quotient, tr(R) - a.R a times its cosine plus a.w times its sine, w = vee(R - R^T)."""
    skew = rotation - rotation.T
    vector = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    return float(np.arctan2(axis @ vector, np.trace(rotation) - axis @ rotation @ axis))


def _frame(long: np.ndarray, right: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Axes (columns): y along `long`, z as close as possible to `right`."""
    y = long / np.linalg.norm(long)
    x = np.cross(y, right)
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], -1)
