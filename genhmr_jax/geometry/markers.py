"""Markers: vertices of a body near the bony landmarks on which a motion laboratory puts them.

Names follow the Plug-in Gait set where it has the marker (RASI, LASI, RPSI, RKNE, RANK, RHEE, C7,
CLAV, STRN, T10, ...). A recipe names the point of the skeleton from which one looks, and the
direction in which the marker lies on the skin of the rest pose.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from smpl_jax import SmplModel

from genhmr_jax.geometry.anatomy import BODIES
from genhmr_jax.geometry.bodies import load_body

_FORWARD, _BACK, _UP, _RIGHT, _LEFT, _DOWN = (
    (0, 0, 1), (0, 0, -1), (0, 1, 0), (-1, 0, 0), (1, 0, 0), (0, -1, 0)
)  # fmt: skip


class _Recipe(NamedTuple):
    """How a marker is found.

    Attributes:
      name, body: of the marker, and of the body of anatomy.BODIES that carries it.
      start: joint, or two joints and the part of the way from one to the other.
      direction: (x, y, z) of the rest pose: to the left, up, forward.
      owners: joints of which one moves the marker most.
      shift: of the start, in half distances of the hips.
    """

    name: str
    body: str
    start: tuple[str, str, float]
    direction: tuple[float, float, float]
    owners: str
    shift: tuple[float, float, float] = (0, 0, 0)


def _at(first: str, second: str = "", share: float = 0.0) -> tuple[str, str, float]:
    return first, second or first, share


_THIGH, _SHANK = ("right_hip", "right_knee"), ("right_knee", "right_ankle")
_ARM, _FOREARM = ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")
_MIDDLE = (
    _Recipe("LUMB", "lumbar", _at("spine1", "spine2", 0.6), _BACK, "spine1 spine2"),
    _Recipe("NAVE", "lumbar", _at("spine1", "spine2", 0.4), _FORWARD, "spine1 spine2"),
    _Recipe("C7", "torso", _at("neck"), (0, 0.1, -1), "spine3 neck"),
    _Recipe("T10", "torso", _at("spine3"), _BACK, "spine2 spine3"),
    _Recipe("CLAV", "torso", _at("left_collar", "right_collar", 0.5), _FORWARD, "spine3 neck"),
    _Recipe("STRN", "torso", _at("spine3"), _FORWARD, "spine2 spine3"),
)
_SIDE = (
    _Recipe("ASI", "pelvis", _at("right_hip"), (-0.3, 0, 1), "pelvis right_hip", (0, 0.8, 0)),
    _Recipe("PSI", "pelvis", _at("pelvis"), _BACK, "pelvis right_hip spine1", (-0.4, 0.8, 0)),
    _Recipe("ILC", "pelvis", _at("right_hip"), _RIGHT, "pelvis spine1", (0, 1.1, 0)),
    _Recipe("TRO", "femur_r", _at(*_THIGH, 0.08), _RIGHT, "right_hip"),
    _Recipe("THI", "femur_r", _at(*_THIGH, 0.5), _RIGHT, "right_hip"),
    _Recipe("THF", "femur_r", _at(*_THIGH, 0.65), _FORWARD, "right_hip right_knee"),
    _Recipe("KNE", "femur_r", _at("right_knee"), (-0.99, 0, 0.13), "right_hip right_knee"),
    _Recipe("KNM", "femur_r", _at("right_knee"), (0.99, 0, -0.13), "right_hip right_knee"),
    _Recipe("TIB", "tibia_r", _at(*_SHANK, 0.4), _RIGHT, "right_knee"),
    _Recipe("SHN", "tibia_r", _at(*_SHANK, 0.5), _FORWARD, "right_knee"),
    _Recipe("ANK", "tibia_r", _at("right_ankle"), _RIGHT, "right_knee right_ankle"),
    _Recipe("ANM", "tibia_r", _at("right_ankle"), _LEFT, "right_knee right_ankle"),
    _Recipe("HEE", "calcn_r", _at("right_ankle"), _BACK, "right_ankle", (0, -0.4, 0)),
    _Recipe("MT1", "calcn_r", _at("right_foot"), _LEFT, "right_ankle right_foot", (0, 0, -0.15)),
    _Recipe("MT5", "calcn_r", _at("right_foot"), _RIGHT, "right_ankle right_foot", (0, 0, -0.35)),
    _Recipe("TOE", "toes_r", _at("right_foot"), (0.25, 0, 1), "right_foot", (0, -0.1, 0)),
    _Recipe("WAI", "lumbar", _at("spine1", "spine2", 0.5), _RIGHT, "spine1 spine2"),
    _Recipe("RIB", "torso", _at("spine3"), _RIGHT, "spine2 spine3"),
    _Recipe("FHD", "head", _at("head"), (-0.6, 0, 1), "head", (0, 0.9, 0)),
    _Recipe("BHD", "head", _at("head"), (-0.6, 0, -1), "head", (0, 0.9, 0)),
    _Recipe("ACR", "clavicle_r", _at("right_shoulder"), _UP, "right_collar right_shoulder spine3"),
    _Recipe(
        "SCP", "clavicle_r", _at("right_collar", "right_shoulder", 0.6), _BACK,
        "right_collar spine3 right_shoulder",
    ),
    _Recipe("UPA", "humerus_r", _at(*_ARM, 0.5), _UP, "right_shoulder"),
    _Recipe("BIC", "humerus_r", _at(*_ARM, 0.6), _FORWARD, "right_shoulder"),
    _Recipe("ELB", "humerus_r", _at("right_elbow"), (0, 0.92, -0.39), "right_shoulder right_elbow"),
    _Recipe("ELM", "humerus_r", _at("right_elbow"), (0, -0.92, 0.39), "right_shoulder right_elbow"),
    _Recipe("FRM", "radius_r", _at(*_FOREARM, 0.5), _UP, "right_elbow"),
    _Recipe("WRA", "radius_r", _at("right_wrist"), _FORWARD, "right_elbow right_wrist"),
    _Recipe("WRB", "radius_r", _at("right_wrist"), _BACK, "right_elbow right_wrist"),
    _Recipe("MC2", "hand_r", _at("right_hand"), _FORWARD, "right_wrist right_hand"),
    _Recipe("MC5", "hand_r", _at("right_hand"), _BACK, "right_wrist right_hand"),
    _Recipe("FIN", "hand_r", _at("right_hand"), _UP, "right_wrist right_hand"),
)  # fmt: skip

MARKERS = (
    *(f"{side}{recipe.name}" for recipe in _SIDE for side in "RL"),
    *(recipe.name for recipe in _MIDDLE),
)
"""Names of the 70 markers."""
CARRIERS = np.array([
    *(
        BODIES.index(recipe.body[:-2] + side if recipe.body.endswith("_r") else recipe.body)
        for recipe in _SIDE
        for side in ("_r", "_l")
    ),
    *(BODIES.index(recipe.body) for recipe in _MIDDLE),
])  # fmt: skip
"""Index in BODIES of the body that carries each marker."""
MIRROR = np.array([*np.arange(2 * len(_SIDE)).reshape(-1, 2)[:, ::-1].ravel(),
                   *range(2 * len(_SIDE), len(MARKERS))])  # fmt: skip
"""The marker on the other side."""


def marker_vertices(body: SmplModel) -> Int[np.ndarray, "M"]:
    """The vertices of the markers on a body.

    They are sought on the free body "neutral". On another body a marker is the vertex that is
    closest to the same place: relative to the joint that moves it most, scaled by the heights of
    the bodies. Both are in SMPL's rest pose.
    """
    reference = load_body("neutral")
    vertices, joints, owner = _rest(reference)
    found = _on_neutral()
    if body is reference:
        return found
    other, other_joints, other_owner = _rest(body)
    scale = np.ptp(other[:, 1]) / np.ptp(vertices[:, 1])
    chosen: list[int] = []
    for vertex in found:
        joint = owner[vertex]
        place = other_joints[joint] + scale * (vertices[vertex] - joints[joint])
        distance = np.linalg.norm(other - place, axis=-1)
        distance[other_owner != joint] += 0.05  # a neighbour's only if it is much closer
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return np.array(chosen)


@functools.cache
def _on_neutral() -> Int[np.ndarray, "M"]:
    """The vertices on the free body: those closest to the rays of the recipes."""
    body = load_body("neutral")
    vertices, joints, owner = _rest(body)
    place = dict(zip(body.joint_names, joints, strict=True))
    half = np.linalg.norm(place["left_hip"] - place["right_hip"]) / 2
    found: list[int] = []
    for recipe in (*_SIDE, *_MIDDLE):
        first, second, share = recipe.start
        start = place[first] + share * (place[second] - place[first])
        start = start + half * np.array(recipe.shift)
        ray = np.array(recipe.direction) / np.linalg.norm(recipe.direction)
        kept = np.isin(owner, [body.joint_names.index(name) for name in recipe.owners.split()])
        along = (vertices - start) @ ray
        beside = np.linalg.norm(vertices - start - along[:, None] * ray, axis=-1)
        # Of the vertices close to the ray the outermost one: a mesh has inner parts.
        near = np.flatnonzero(kept & (along > 0) & (beside < 0.02))
        if not len(near):
            near = np.flatnonzero(kept & (along > 0))
        vertex = int(near[np.argmin(beside[near] - 0.5 * along[near])])
        found.append(vertex)
        if recipe in _SIDE:
            mirror = vertices[vertex] * [-1, 1, 1]
            found.append(int(np.linalg.norm(vertices - mirror, axis=-1).argmin()))
    return np.array(found)


def _rest(body: SmplModel) -> tuple[Float[np.ndarray, "V 3"], np.ndarray, np.ndarray]:
    """Vertices, joints (metres) of the mean shape, and the joint that moves each vertex most."""
    vertices = np.asarray(body.template, np.float64).T
    return vertices, np.asarray(body.joint_template, np.float64), body.weights.argmax(0)
