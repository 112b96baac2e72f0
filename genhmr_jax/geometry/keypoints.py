"""Keypoint sets by name, the locations of keypoints on a body, and left/right flips."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import SmplModel, SmplOutput
from smpl_jax.keypoints import (
    COCO17,
    HAND21,
    JOINT_OF_HAND_KEYPOINT,
    JOINT_OF_KEYPOINT,
    MANO16,
    MANO_VERTEX_IDS,
    VERTEX_OF_KEYPOINT,
    flip_permutation,
)

from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.mesh import farthest_points

DETECTED = (
    *COCO17,
    *("left_big_toe", "right_big_toe", "left_heel", "right_heel", "left_index", "right_index"),
)
"""The 23 detected keypoints: COCO's 17, then toes, heels and the tips of the index fingers."""

DETECTED_FLIP = flip_permutation(DETECTED)
"""`keypoints[..., DETECTED_FLIP, :]` swaps left and right after an image was flipped."""

_VERTICES = VERTEX_OF_KEYPOINT | {name: name for name in MANO_VERTEX_IDS}
_JOINTS = JOINT_OF_KEYPOINT | JOINT_OF_HAND_KEYPOINT
"""Vertices and joints of the keypoints of bodies and of hands, whose names differ."""

MIN_CONFIDENCE = 0.1  # keypoints below it count as not detected
MIN_KEYPOINTS = 4  # a person with fewer detected keypoints is not recovered


def detected_names(model: SmplModel) -> tuple[str, ...]:
    """The keypoints that a detector finds: DETECTED of a body, HAND21 of a hand."""
    return HAND21 if model.joint_names == MANO16 else DETECTED


def keypoint_points(
    model: SmplModel, output: SmplOutput, names: Sequence[str] | None = None
) -> Float[Array, "*batch K 3"]:
    """Named keypoints of a posed body or hand, metres.

    Nose, eyes, ears, toes, heels and finger tips are vertices of the body; the others are joints.

    Args:
      model: the body of the output; whole, or reduced by `keypoint_model`.
      output: of smpl_jax.forward.
      names: e.g. smpl_jax.keypoints.COCO17 or OPENPOSE25; None: `detected_names` of the model.

    Raises:
      ValueError: the body has no such keypoint.
    """
    vertex_ids, joints = model.vertex_ids, {name: i for i, name in enumerate(model.joint_names)}
    names = detected_names(model) if names is None else names
    of_vertices, of_joints = {}, {}
    for name in names:
        if _VERTICES.get(name) in vertex_ids:
            of_vertices[name] = vertex_ids[_VERTICES[name]]
        elif _JOINTS.get(name) in joints:
            of_joints[name] = joints[_JOINTS[name]]
        else:
            known = ", ".join(known_keypoints(model))
            raise ValueError(f"this body has no keypoint {name!r}: choose among {known}")
    # A few selections: an operation for each keypoint would be a large program.
    parts = [
        _select(tuple(of_vertices.values()), output.vertices),
        _select(tuple(of_joints.values()), output.joints),
    ]
    position = {name: i for i, name in enumerate([*of_vertices, *of_joints])}
    return _select(tuple(position[name] for name in names), jnp.concatenate(parts, axis=-2))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _select(index: tuple[int, ...], points: Float[Array, "*b N 3"]) -> Float[Array, "*b K 3"]:
    """The points of these indices. Its derivative is a product, whose transpose is no scatter."""
    return jnp.take(points, np.array(index, np.int32), axis=-2, mode="clip")


@_select.defjvp
def _select_jvp(
    index: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (points,), (slope,) = primals, tangents
    chosen = np.array(index, np.int32)[:, None] == jnp.arange(points.shape[-2])
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return _select(index, points), product("kn,...nc->...kc", chosen.astype(slope.dtype), slope)


def known_keypoints(model: SmplModel) -> tuple[str, ...]:
    """Names of the keypoints of this body, for `keypoint_points`."""
    surface = [name for name, vertex in _VERTICES.items() if vertex in model.vertex_ids]
    skeleton = [name for name, joint in _JOINTS.items() if joint in model.joint_names]
    return tuple(skeleton + surface)


def keypoint_model(model: SmplModel) -> SmplModel:
    """The body reduced to its 21 vertices that are keypoints, for `keypoint_points`."""
    return model.subset(list(dict.fromkeys(index for _, index in model.named_vertices)))


def surface_model(model: SmplModel, points: int = 500) -> SmplModel:
    """The body reduced to its keypoints and `points` vertices spread evenly over its surface."""
    template = np.asarray(model.template).T
    chosen = farthest_points(template, [index for _, index in model.named_vertices], points)
    return model.subset(list(dict.fromkeys(chosen)))


def match(names_from: Sequence[str], names_to: Sequence[str]) -> tuple[int, ...]:
    """For each name of `names_to` its index in `names_from`, or -1 where it is missing."""
    index = {name: i for i, name in enumerate(names_from)}
    return tuple(index.get(name, -1) for name in names_to)


def keypoint_bounds(keypoints: Float[np.ndarray, "P K 3"]) -> Float[np.ndarray, "P 4"]:
    """Boxes (P, 4) xyxy px around each person's keypoints of confidence above 0, or zeros."""
    known = keypoints[..., 2:] > 0
    low, high = (np.where(known, keypoints[..., :2], limit) for limit in (np.inf, -np.inf))
    bounds = np.concatenate([low.min(1), high.max(1)], -1)
    return np.where(known.any(1), bounds, 0.0).astype(np.float32)


def project_keypoints(
    model: SmplModel, output: SmplOutput, weak: Float[Array, "*b 3"], view: CropCamera
) -> Float[Array, "*b K 2"]:
    """Project the keypoints of `detected_names` of a posed body to px.

    Args:
      model: the body of the output.
      output: of smpl_jax.forward.
      weak: the weak camera of the crop of `view`.
    """
    points = keypoint_points(model, output)
    return view.project(points + view.translation(weak)[..., None, :])


def project_body(
    model: SmplModel,
    rotmats: Float[Array, "*b 24 3 3"],
    betas: Float[Array, "*b 10"],
    weak: Float[Array, "*b 3"],
    view: CropCamera,
) -> tuple[Float[Array, "*b K 2"], Float[Array, "*b V 2"]]:
    """Pose a body, and project its detected keypoints and its vertices to px."""
    output = smpl_jax.forward(model, betas, rotmats)
    vertices = output.vertices + view.translation(weak)[..., None, :]
    return project_keypoints(model, output, weak, view), view.project(vertices)


def normalize_keypoints(
    keypoints: Float[Array, "B K 3"], view: CropCamera
) -> Float[Array, "B K 3"]:
    """Convert keypoints from px to crop coordinates: [-1, 1] inside the crop, clipped at +-2.

    Keypoints of confidence 0 become zero.
    """
    points = jnp.clip(view.to_crop(keypoints[..., :2]), -2.0, 2.0)
    detected = keypoints[..., 2:] > 0
    return jnp.where(detected, jnp.concatenate([points, keypoints[..., 2:]], -1), 0.0)
