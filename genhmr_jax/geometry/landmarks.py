"""Vertices of the surface keypoints (nose, eyes, ears, toes, heels, finger tips) of a body.

For bodies whose file does not name these vertices.
"""

import numpy as np
from smpl_jax import SmplModel
from smpl_jax.keypoints import SMPL_VERTEX_IDS


def missing(model: SmplModel) -> tuple[str, ...]:
    """Names of the surface keypoints for which the body names no vertex."""
    return tuple(name for name in SMPL_VERTEX_IDS if name not in model.vertex_ids)


def like(model: SmplModel, reference: SmplModel) -> tuple[tuple[str, int], ...]:
    """Find vertices for the missing keypoints by comparison with a reference body.

    Both bodies are in SMPL's rest pose. The location of a keypoint relative to the joint that moves
    it most is scaled by the ratio of the bodies' heights. The result is the nearest vertex among
    those that the same joint moves most. Between the free bodies, which name their vertices, this
    is exact for equal shapes (neutral, lite); from neutral to male or female the largest error is
    15 mm (the heels).

    Args:
      model: the body.
      reference: a body that names all of these vertices.

    Returns:
      (name, vertex) of each missing keypoint.
    """
    template, joints, owner = _rest_pose(model)
    other_template, other_joints, other_owner = _rest_pose(reference)
    scale = np.ptp(template[:, 1]) / np.ptp(other_template[:, 1])
    found = []
    for name in missing(model):
        vertex = reference.vertex_ids[name]
        joint = other_owner[vertex]
        point = joints[joint] + scale * (other_template[vertex] - other_joints[joint])
        moved = np.flatnonzero(owner == joint)
        if not len(moved):
            moved = np.arange(len(template))
        found.append((name, int(moved[np.sum((template[moved] - point) ** 2, -1).argmin()])))
    return tuple(found)


def _rest_pose(model: SmplModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), joints (J, 3), metres, and the joint (V,) that moves each vertex most."""
    vertices = np.asarray(model.template).T
    return vertices, np.asarray(model.joint_template), np.asarray(model.weights).argmax(0)
