"""The coarse body of a model: what both stages need of the body on which they are trained.

Its vertices come first and are those of the coarse mesh; the surface keypoints that are not among
them follow. A model folder holds it, so that a model does not depend on the body that the user
chooses for the result.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float, Int
from smpl_jax.blocks import Blocks

from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.geometry.mesh import CoarseMesh, coarse_mesh, farthest_points
from genhmr_jax.systems.posturehmr.model import Surface
from genhmr_jax.systems.posturehmr.posture import Person
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec

JOINTS = smpl_jax.keypoints.SMPL24
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""SMPL's tree (Loper et al. 2015), which every body here has."""
NUM_BETAS = 10
RIDGE = 1e-4
"""Of the linear maps, in units of the mean squared coordinate: it keeps their weights small."""
FITTED = 512
"""Random bodies to which the linear maps of `joint_regressor` and `mesh_from_points` are fitted."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CoarseBody:
    """The coarse body, for training.

    Attributes:
      body: its C vertices, then the other surface keypoints.
      mesh: without the keypoints and with the faces of the coarse mesh, for the decoder.
      adjacency: (C, C) normalised.
      markers: (M,) vertices that are points of the 2D mesh stage.
      regressor: (24, C) from vertices to joints.
    """

    body: smpl_jax.SmplModel
    mesh: smpl_jax.SmplModel
    adjacency: Float[Array, "C C"]
    markers: Int[Array, "M"]
    regressor: Float[Array, "24 C"]

    @property
    def surface(self) -> Surface:
        """Of the coarse mesh, for the decoder."""
        return Surface(self.adjacency, self.markers)

    @property
    def faces(self) -> Int[Array, "F 3"]:
        """Of the coarse mesh."""
        return self.mesh.faces

    def points(self, output: smpl_jax.SmplOutput) -> Float[Array, "B P 3"]:
        """COCO's keypoints and the markers of a posed body, metres."""
        keypoints = keypoint_points(self.body, output, smpl_jax.keypoints.COCO17)
        return jnp.concatenate([keypoints, output.vertices[..., self.markers, :]], -2)


def make(body: smpl_jax.SmplModel, spec: Mesh2dSpec) -> CoarseBody:
    """The coarse body of a whole one.

    Raises:
      ValueError: the body has another skeleton than SMPL's, or its coarse mesh has another number
        of vertices than the spec.
    """
    if body.parents != PARENTS or body.num_betas != NUM_BETAS:
        raise ValueError("this body has another skeleton or number of shapes than SMPL's")
    coarse: CoarseMesh = coarse_mesh(body, spec.vertices)
    chosen = np.asarray(coarse.vertices)
    if len(chosen) != spec.vertices:
        raise ValueError(f"this body's coarse mesh has {len(chosen)} vertices, not {spec.vertices}")
    others = {index for _, index in body.named_vertices} - set(chosen.tolist())
    mesh = dataclasses.replace(body.subset(chosen), faces=jnp.asarray(coarse.faces))
    template = np.asarray(mesh.template).T
    first = [int(np.argmax(np.linalg.norm(template - template.mean(0), axis=-1)))]
    markers = np.array(farthest_points(template, first, spec.markers - 1), np.int32)
    return CoarseBody(
        body=body.subset(np.concatenate([chosen, np.array(sorted(others), np.int64)])),
        mesh=mesh,
        adjacency=jnp.asarray(coarse.adjacency),
        markers=jnp.asarray(markers),
        regressor=joint_regressor(mesh),
    )


def joint_regressor(mesh: smpl_jax.SmplModel) -> Float[Array, "24 C"]:
    """The linear map from coarse vertices to joints, as SMPL's regressor, by least squares.

    Joints of a posed body are no linear function of its vertices; the mean error is a few mm.
    """
    person = random_people(FITTED)
    output = jax.jit(smpl_jax.forward)(mesh, person.betas, person.rotmats)
    return _fitted(np.asarray(output.vertices), np.asarray(output.joints))


def mesh_from_points(coarse: CoarseBody) -> Float[Array, "C P"]:
    """The matrix from points to vertices with the smallest squared error over random bodies."""
    person = random_people(FITTED)
    output = jax.jit(smpl_jax.forward)(coarse.body, person.betas, person.rotmats)
    vertices = output.vertices[:, : coarse.mesh.num_vertices]
    return _fitted(np.asarray(coarse.points(output)), np.asarray(vertices))


def random_people(count: int) -> Person:
    """Bodies with random joint rotations (0.35 rad in each coordinate) and shapes."""
    rng = np.random.default_rng(0)
    turns = rng.normal(0, 0.35, (count, 24, 3)).astype(np.float32)
    rotmats = smpl_jax.rotations.axis_angle_to_matrix(jnp.asarray(turns))
    return Person(rotmats, jnp.asarray(rng.normal(0, 1, (count, 10)).astype(np.float32)))


def _fitted(
    given: Float[np.ndarray, "B I 3"], wanted: Float[np.ndarray, "B O 3"]
) -> Float[Array, "O I"]:
    """The ridge regression from I points to O points, the same for each coordinate.

    The ridge keeps the weights small, and pulls them towards a sum of 1 (the map of a translated
    body is translated too).
    """
    rows = lambda x: np.moveaxis(np.float64(x), -1, 1).reshape(-1, x.shape[1])
    given, wanted = rows(given), rows(wanted)
    ones = 10.0 * np.ones((1, given.shape[1])), 10.0 * np.ones((1, wanted.shape[1]))
    given, wanted = np.concatenate([given, ones[0]]), np.concatenate([wanted, ones[1]])
    normal = given.T @ given
    ridge = RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    return jnp.asarray(np.linalg.solve(normal + ridge, given.T @ wanted).T, jnp.float32)


def to_params(coarse: CoarseBody) -> dict[str, jax.Array]:
    """What the system needs of the body, as a part of its parameters; dense tables."""
    mesh = coarse.mesh
    return {
        "template": mesh.template,
        "joint_template": mesh.joint_template,
        "joint_shapedirs": mesh.joint_shapedirs,
        "directions": jnp.asarray(mesh.directions),
        "weights": jnp.asarray(mesh.weights),
        "adjacency": coarse.adjacency,
        "markers": coarse.markers,
    }


def param_shapes(spec: Mesh2dSpec) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of `to_params`."""
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    vertices, shapes, joints = spec.vertices, NUM_BETAS, len(JOINTS)
    return {
        "template": shape(3, vertices),
        "joint_template": shape(joints, 3),
        "joint_shapedirs": shape(shapes, joints, 3),
        "directions": shape(shapes + 9 * (joints - 1), 3, vertices),
        "weights": shape(joints, vertices),
        "adjacency": shape(vertices, vertices),
        "markers": jax.ShapeDtypeStruct((spec.markers,), jnp.int32),
    }


def from_params(params: dict[str, jax.Array]) -> smpl_jax.SmplModel:
    """The coarse body of a model's parameters, without faces and names of vertices.

    It is float32, whatever the precision of the parameters: positions need it.
    """
    joints = len(JOINTS)
    single = lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    params = jax.tree.map(single, params)
    # One block, in which every joint may act.
    block = Blocks(
        directions=tuple(params["directions"][None, :, axis] for axis in range(3)),
        weights=params["weights"][None],
        pose_joints=jnp.arange(joints - 1)[None],
        weight_joints=jnp.arange(joints)[None],
        places=(0,),
    )
    return smpl_jax.SmplModel(
        template=params["template"],
        blocks=(block,),
        joint_template=params["joint_template"],
        joint_shapedirs=params["joint_shapedirs"],
        faces=jnp.zeros((0, 3), jnp.int32),
        parents=PARENTS,
        joint_names=JOINTS,
        named_vertices=(),
    )
