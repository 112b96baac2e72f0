"""A body with fingers: SMPL-H's form, 52 joints (Romero et al., "Embodied Hands", SIGGRAPH Asia
2017).

The free one has the vertices, the faces and the shape space of the neutral free body. Only the
weight that a vertex has at the joints wrist and hand is shared out anew, among the wrist and the 15
joints of MANO. So with straight joints of the hands (free body) and of the fingers (this body) both
meshes are equal in every pose and shape.
"""

import dataclasses
import functools
import importlib.resources
from pathlib import Path

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float
from smpl_jax import SmplModel
from smpl_jax.blocks import make_blocks
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS, SMPLH52, SMPLH52_PARENTS

from genhmr_jax.geometry import landmarks
from genhmr_jax.geometry.bodies import available_bodies, load_body
from genhmr_jax.geometry.hand import FINGERS, HAND_JOINTS
from genhmr_jax.io.errors import InputError

BODY_JOINTS = 22
"""Joints of SMPL-H before the hands: those of SMPL without its last two."""

SIDES = ("left", "right")
_FINGERS = importlib.resources.files("genhmr_jax").joinpath("assets", "fingers")
_WHOLE = ("index", "middle", "ring", "pinky")  # the fingers that SMPL's joint of a hand turns


def load_fingers(name_or_path: str | Path = "neutral") -> SmplModel:
    """Load a body with 52 joints; it is read once and cached.

    It has all surface keypoints, as those of `load_body`.

    Args:
      name_or_path: "neutral", the free body with fingers, or the path of the user's SMPL-H file
        (.pkl or .npz).

    Raises:
      InputError: another shipped body, none of which has fingers, or no SMPL-H file.
    """
    if str(name_or_path) == "neutral":
        return _neutral()
    if (path := Path(name_or_path)).is_file():
        try:
            return _user(path.resolve(), path.stat().st_mtime_ns)
        except ValueError as error:
            problem = str(error).removeprefix(f"{path.resolve()}: ")
            remedy = "leave out --hands, or use the free body with fingers: neutral"
            raise InputError(path, problem, remedy) from error
    remedy = "use neutral, or an SMPL-H file from https://mano.is.tue.mpg.de"
    raise InputError(name_or_path, "no body with fingers", remedy)


def has_fingers(model: SmplModel) -> bool:
    """Whether a body has the 52 joints of SMPL-H, and not SMPL's 24."""
    return len(model.parents) == len(SMPLH52)


def hand_rows(side: str) -> slice:
    """The 15 joints of a hand, "left" or "right", among the 52."""
    start = BODY_JOINTS + SIDES.index(side) * (len(HAND_JOINTS) - 1)
    return slice(start, start + len(HAND_JOINTS) - 1)


def knuckle_rows(side: str) -> list[int]:
    """The first joints of the index, middle, ring and little finger among the 52."""
    start = hand_rows(side).start - 1  # plus an index of HAND_JOINTS
    return [start + FINGERS[finger][0] for finger in _WHOLE]


def fingers_of_hand_joint(rotation: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 15 3"]:
    """The pose of a hand whose four fingers turn as SMPL's joint `hand` turns all of them.

    The thumb stays straight: SMPL's joint does not move it. The axes of all joints are those of
    the rest pose, so that the rotation of the knuckles is that of the joint.

    Args:
      rotation: of the joint left_hand or right_hand of SMPL, axis-angle, radians.
    """
    pose = np.zeros((*rotation.shape[:-1], len(HAND_JOINTS) - 1, 3), np.float32)
    for finger in _WHOLE:
        pose[..., FINGERS[finger][0] - 1, :] = rotation
    return pose


def full_pose(
    global_orient: Float[np.ndarray, "*b 3"],
    body_pose: Float[np.ndarray, "*b 69"] | Float[np.ndarray, "*b 63"],
    left_hand_pose: Float[np.ndarray, "*b 45"],
    right_hand_pose: Float[np.ndarray, "*b 45"],
) -> Float[np.ndarray, "*b 156"]:
    """SMPL-H's pose of 52 joints: the root, 21 joints of `body_pose`, then both hands."""
    body = body_pose[..., : 3 * (BODY_JOINTS - 1)]
    return np.concatenate([global_orient, body, left_hand_pose, right_hand_pose], -1)


def plain_body(name_or_path: str | Path) -> SmplModel:
    """The SMPL form of a body with fingers: a shipped body itself, or that of an SMPL-H file.

    Raises:
      InputError: as `load_fingers`.
    """
    if str(name_or_path) in available_bodies():
        return load_body(name_or_path)
    return without_fingers(load_fingers(name_or_path))


def without_fingers(model: SmplModel) -> SmplModel:
    """The SMPL form (24 joints) of a body with fingers: one joint turns the four fingers of a hand.

    The joint of a hand is the mean of the four knuckles. The thumb goes with the wrist. With
    straight fingers both bodies have the same mesh. Not inside `jit`.
    """
    joints, weights = np.asarray(model.joint_template), model.weights
    shape = np.asarray(model.joint_shapedirs)
    directions, shapes = model.directions, model.num_betas
    moved = [weights[:BODY_JOINTS].copy()]
    template, shapedirs = [joints[:BODY_JOINTS]], [shape[:, :BODY_JOINTS]]
    for side in SIDES:
        first = hand_rows(side).start - 1  # plus an index of HAND_JOINTS
        knuckles = knuckle_rows(side)
        parts = [first + joint for finger in _WHOLE for joint in FINGERS[finger]]
        thumb = [first + joint for joint in FINGERS["thumb"]]
        moved[0][SMPL24.index(f"{side}_wrist")] += weights[thumb].sum(0)
        moved.append(weights[parts].sum(0, keepdims=True))
        template.append(joints[knuckles].mean(0, keepdims=True))
        shapedirs.append(shape[:, knuckles].mean(1, keepdims=True))
    # The entries of R - 1 of the hands' joints have no blend shapes: those of fingers are left out.
    kept = directions[: shapes + 9 * (BODY_JOINTS - 1)]
    directions = np.concatenate([kept, np.zeros((18, *kept.shape[1:]), np.float32)])
    return _with_joints(
        dataclasses.replace(model, parents=SMPL24_PARENTS, joint_names=SMPL24),
        directions,
        np.concatenate(moved),
        np.concatenate(template),
        np.concatenate(shapedirs, 1),
    )


def _with_joints(
    model: SmplModel,
    directions: Float[np.ndarray, "K 3 V"],
    weights: Float[np.ndarray, "J V"],
    template: Float[np.ndarray, "J 3"],
    shapedirs: Float[np.ndarray, "S J 3"],
) -> SmplModel:
    """A model with other tables of its joints."""
    put = lambda array: jax.device_put(np.ascontiguousarray(array, np.float32))
    with jax.ensure_compile_time_eval():  # concrete arrays, even inside a jitted function
        return dataclasses.replace(
            model,
            blocks=make_blocks(directions, weights),
            joint_template=put(template),
            joint_shapedirs=put(shapedirs),
        )


@functools.lru_cache(maxsize=1)
def _neutral() -> SmplModel:
    """The free body with fingers: the neutral body and what differs from it."""
    body = load_body("neutral")
    with importlib.resources.as_file(_FINGERS.joinpath("neutral.npz")) as path:
        with np.load(path, allow_pickle=False) as file:
            tables = {name: file[name] for name in file.files}
    directions, shapes = body.directions, body.num_betas
    vertices = np.asarray(body.template).T
    weights = np.zeros((len(SMPLH52), body.num_vertices), np.float32)
    weights[:BODY_JOINTS] = body.weights[:BODY_JOINTS]
    template = [np.asarray(body.joint_template)[:BODY_JOINTS]]
    shapedirs = [np.asarray(body.joint_shapedirs)[:, :BODY_JOINTS]]
    for side in SIDES:
        # 1. The weight of wrist and hand is shared out.
        hand = tables[f"{side}_vertices"]
        wrist, fingers = SMPL24.index(f"{side}_wrist"), SMPL24.index(f"{side}_hand")
        shares = (body.weights[wrist, hand] + body.weights[fingers, hand]) * tables["shares"].T
        weights[wrist, hand], weights[hand_rows(side), hand] = shares[0], shares[1:]
        # 2. The joints of the fingers are means of vertices.
        regressor = tables["J_regressor"]
        template.append(regressor @ vertices[hand])
        shapedirs.append(np.einsum("jv,scv->sjc", regressor, directions[:shapes, :, hand]))
    kept = directions[: shapes + 9 * (BODY_JOINTS - 1)]
    none = np.zeros((9 * (len(SMPLH52) - BODY_JOINTS), *kept.shape[1:]), np.float32)
    return _with_joints(
        dataclasses.replace(body, parents=SMPLH52_PARENTS, joint_names=SMPLH52),
        np.concatenate([kept, none]),
        weights,
        np.concatenate(template),
        np.concatenate(shapedirs, 1),
    )


@functools.lru_cache(maxsize=4)
def _user(path: Path, modified: int) -> SmplModel:
    """Load a file. `modified` is part of the cache key: a file that was replaced is read again."""
    model = smpl_jax.load(path, joints=len(SMPLH52))
    body = without_fingers(model)
    if not landmarks.missing(body):
        return model
    named = landmarks.like(body, load_body("neutral"))
    return dataclasses.replace(model, named_vertices=(*model.named_vertices, *named))
