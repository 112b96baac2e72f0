"""Keypoint sets by name: what the system detects, where each keypoint lies on a body, and left/right flips."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from smpl_jax import SmplModel, SmplOutput
from smpl_jax.keypoints import COCO17, JOINT_OF_KEYPOINT, OPENPOSE25, VERTEX_OF_KEYPOINT, flip_permutation

DETECTED = (*COCO17, "left_big_toe", "right_big_toe", "left_heel", "right_heel", "left_index", "right_index")
"""The 23 keypoints that the system detects and conditions on: COCO's 17, then toes, heels and the tips of the index fingers."""

DETECTED_FLIP = flip_permutation(DETECTED)
"""`keypoints[..., DETECTED_FLIP, :]` renames left and right after an image was flipped."""

MIN_CONFIDENCE = 0.1  # detected keypoints below it count as not seen
MIN_KEYPOINTS = 4  # a person with fewer seen keypoints is not recovered

NAMED_SETS = {"detected": DETECTED, "coco17": COCO17, "openpose25": OPENPOSE25}


def keypoint_points(model: SmplModel, output: SmplOutput, names: Sequence[str] = DETECTED) -> Float[Array, "*batch K 3"]:
    """Named keypoints of a posed body, metres: its joints, and for nose, eyes, ears, toes, heels and finger tips its own vertices.

    Args:
      model: the body that made the output; whole, or reduced by `keypoint_model`.
      output: of smpl_jax.forward.
      names: e.g. DETECTED, smpl_jax.keypoints.COCO17 or OPENPOSE25.

    Raises:
      ValueError: the body has no such keypoint.
    """
    vertex_ids, joints = model.vertex_ids, {name: i for i, name in enumerate(model.joint_names)}
    points = []
    for name in names:
        if VERTEX_OF_KEYPOINT.get(name) in vertex_ids:
            points.append(output.vertices[..., vertex_ids[VERTEX_OF_KEYPOINT[name]], :])
        elif JOINT_OF_KEYPOINT.get(name) in joints:
            points.append(output.joints[..., joints[JOINT_OF_KEYPOINT[name]], :])
        else:
            raise ValueError(f"this body has no keypoint {name!r}: known are {', '.join(known_keypoints(model))}")
    return jnp.stack(points, axis=-2)


def known_keypoints(model: SmplModel) -> tuple[str, ...]:
    """Names that `keypoint_points` knows for this body."""
    surface = [name for name, vertex in VERTEX_OF_KEYPOINT.items() if vertex in model.vertex_ids]
    skeleton = [name for name, joint in JOINT_OF_KEYPOINT.items() if joint in model.joint_names]
    return tuple(skeleton + surface)


def keypoint_model(model: SmplModel) -> SmplModel:
    """The body reduced to the vertices that stand for keypoints (21 instead of thousands), for `keypoint_points`."""
    return model.subset(list(dict.fromkeys(index for _, index in model.named_vertices)))


def surface_model(model: SmplModel, points: int = 500) -> SmplModel:
    """The body reduced to the vertices that stand for keypoints and to `points` vertices spread evenly over its surface."""
    template = np.asarray(model.template).T
    distance, chosen = np.full(len(template), np.inf), [index for _, index in model.named_vertices]
    for index in chosen:
        distance = np.minimum(distance, np.sum((template - template[index]) ** 2, -1))
    for _ in range(min(points, len(template))):
        chosen.append(int(distance.argmax()))  # the farthest from all so far
        distance = np.minimum(distance, np.sum((template - template[chosen[-1]]) ** 2, -1))
    return model.subset(list(dict.fromkeys(chosen)))


def match(names_from: Sequence[str], names_to: Sequence[str]) -> tuple[int, ...]:
    """For each name of `names_to` its index in `names_from`, or -1 where it is missing."""
    index = {name: i for i, name in enumerate(names_from)}
    return tuple(index.get(name, -1) for name in names_to)


def keypoint_bounds(keypoints: Float[np.ndarray, "P K 3"]) -> Float[np.ndarray, "P 4"]:
    """Boxes (P, 4) xyxy px around each person's known keypoints (confidence above 0); zeros where none is known."""
    known = keypoints[..., 2:] > 0
    low, high = (np.where(known, keypoints[..., :2], far) for far in (np.inf, -np.inf))
    bounds = np.concatenate([low.min(1), high.max(1)], -1)
    return np.where(known.any(1), bounds, 0.0).astype(np.float32)
