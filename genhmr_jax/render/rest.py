"""The rest mesh and skeleton of a shaped body, as formats with skinning store them."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel

from genhmr_jax.render.rasterizer import vertex_normals

MOST_WEIGHTS = 4  # of a vertex: SMPL and the free bodies have no more, and glTF's first set holds 4


@dataclasses.dataclass(frozen=True)
class Rest:
    """A shaped body in the rest pose: y up, z forward, metres; the model origin is at 0.

    Attributes:
      vertices: (V, 3). normals: (V, 3) unit vectors.
      faces: (F, 3) vertex indices, counter-clockwise from outside.
      joints: (J, 3).
      parents: of the joints, -1 for the root. names: of the joints.
      skin_joints: (V, 4) the joints that move each vertex, the strongest first; 0 where the weight
        is 0.
      skin_weights: (V, 4) their weights; each row sums to 1.
    """

    vertices: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    joints: Float[np.ndarray, "J 3"]
    parents: tuple[int, ...]
    names: tuple[str, ...]
    skin_joints: Int[np.ndarray, "V 4"]
    skin_weights: Float[np.ndarray, "V 4"]

    @property
    def offsets(self) -> Float[np.ndarray, "J 3"]:
        """From each joint's parent to the joint; the root's is its position."""
        above = self.joints[list(self.parents)]
        return self.joints - np.where(np.array(self.parents)[:, None] < 0, 0.0, above)


def rest_of(body: SmplModel, betas: Float[np.ndarray, "S"]) -> Rest:
    """The rest mesh and skeleton of a shape (Loper et al. 2015, eq. 6 to 10 at the zero pose).

    The blend shapes of the pose are left out: no format of skinned meshes has them.

    Args:
      body: the body.
      betas: shape coefficients; the missing ones are zero.
    """
    betas = np.asarray(betas, np.float64)
    shape = np.einsum("s,scv->vc", betas, body.directions[: len(betas)])
    vertices = np.asarray(body.template, np.float64).T + shape
    faces = np.asarray(body.faces)
    normals = vertex_normals(vertices, faces)
    normals[np.linalg.norm(normals, axis=-1) < 0.5] = [0.0, 1.0, 0.0]  # of vertices without a face
    joints, weights = strongest(body.weights)
    return Rest(
        vertices,
        normals,
        faces,
        rest_joints(body, betas),
        body.parents,
        body.joint_names,
        joints,
        weights,
    )


def with_pose(rest: Rest, body: SmplModel, poses: Float[np.ndarray, "F J 3"]) -> Rest:
    """The rest mesh with the mean of the pose blend shapes of F poses (axis-angle, radians).

    Skinned linearly, it is exact for a single pose. For the poses of a clip, the difference of
    their blend shapes from the mean is missing.
    """
    turns = Rotation.from_rotvec(poses[:, 1:].reshape(-1, 3)).as_matrix() - np.eye(3)
    mean = turns.reshape(len(poses), -1).mean(0)
    shift = np.einsum("k,kcv->vc", mean, body.directions[body.num_betas :])
    return dataclasses.replace(rest, vertices=rest.vertices + shift)


def rest_joints(body: SmplModel, betas: Float[np.ndarray, "S"]) -> Float[np.ndarray, "J 3"]:
    """The joints of a shape in the rest pose, metres, float64."""
    betas = np.asarray(betas, np.float64)
    directions = np.asarray(body.joint_shapedirs, np.float64)[: len(betas)]
    return np.asarray(body.joint_template) + np.einsum("s,sjc->jc", betas, directions)


def strongest(
    weights: Float[np.ndarray, "J V"],
) -> tuple[Int[np.ndarray, "V 4"], Float[np.ndarray, "V 4"]]:
    """The four largest skinning weights of each vertex, scaled so that they sum to 1, and their
    joints."""
    joints = np.argsort(-weights, axis=0, kind="stable")[:MOST_WEIGHTS].T
    chosen = np.take_along_axis(weights.T.astype(np.float64), joints, axis=1)
    return np.where(chosen > 0, joints, 0), chosen / chosen.sum(axis=1, keepdims=True)
