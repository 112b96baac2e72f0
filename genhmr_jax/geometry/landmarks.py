"""Surface keypoints (nose, eyes, ears, toes, heels, finger tips) of a body.

For bodies whose file does not name the vertices that stand for them.
"""

import numpy as np
from smpl_jax import SmplModel
from smpl_jax.keypoints import SMPL_VERTEX_IDS


def missing(model: SmplModel) -> tuple[str, ...]:
    """Names of the surface keypoints for which the body names no vertex."""
    return tuple(name for name in SMPL_VERTEX_IDS if name not in model.vertex_ids)


def like(model: SmplModel, reference: SmplModel) -> tuple[tuple[str, int], ...]:
    """Vertices for the missing keypoints: those nearest to where the reference body has them.

    Both bodies are in SMPL's rest pose. A keypoint is taken relative to the joint that moves it
    most, scaled by the ratio of the bodies' heights, and sought among the vertices that the same joint
    moves most. Between the free bodies, which name their vertices, that is exact for equal shapes
    (neutral, lite), and off by at most 15 mm (the heels) from neutral to male or female.

    Args:
      model: the body.
      reference: a body that names all of them.

    Returns:
      (name, vertex) of each missing keypoint.
    """
    template, joints, owner = _parts(model)
    other_template, other_joints, other_owner = _parts(reference)
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


def _parts(model: SmplModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (J, 3) at rest, metres; the joint (V,) that moves each most."""
    return (
        np.asarray(model.template).T,
        np.asarray(model.joint_template),
        np.asarray(model.weights).argmax(0),
    )
