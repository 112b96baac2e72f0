"""The forward process of PostureHMR: both ends, the states between them against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.systems.posturehmr import coarse_body, posture
from genhmr_jax.systems.posturehmr.posture import Person
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec

PEOPLE = 1000


@pytest.fixture(scope="module")
def coarse():
    """The coarse free body."""
    return coarse_body.make(load_body("neutral"), Mesh2dSpec())


@pytest.fixture(scope="module")
def people():
    """Random bodies; joints turn by up to pi, so that the axis of a joint is unique."""
    rng = np.random.default_rng(1)
    turns = rng.normal(0, 0.6, (PEOPLE, 24, 3))
    turns[:, 0] = rng.normal(0, 2, (PEOPLE, 3))
    angle = np.linalg.norm(turns, axis=-1, keepdims=True)
    turns *= np.minimum(1, 3.0 / angle)
    rotmats = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(PEOPLE, 24, 3, 3)
    return Person(jnp.asarray(rotmats, jnp.float32), jnp.asarray(rng.normal(0, 1, (PEOPLE, 10))))


run = jax.jit(posture.posture)


def reference(mesh, rotmats, betas, share):
    """Eq. 2-4 in float64, one body, joint by joint."""
    template, directions = np.float64(mesh.template).T, np.float64(mesh.directions)
    weights, parents = np.float64(mesh.weights), mesh.parents
    flip = np.diag([1.0, -1.0, -1.0])
    local = [
        Rotation.from_rotvec(share * Rotation.from_matrix(r).as_rotvec()).as_matrix()
        for r in rotmats
    ]
    turn = Rotation.from_matrix(flip.T @ rotmats[0]).as_rotvec()
    local[0] = flip @ Rotation.from_rotvec(share * turn).as_matrix()
    joints = np.float64(mesh.joint_template) + share * np.einsum(
        "s,sjc->jc", betas, np.float64(mesh.joint_shapedirs)
    )
    features = np.concatenate([betas, (rotmats[1:] - np.eye(3)).reshape(-1)])
    rest = template + share * np.einsum("k,kcv->vc", features, directions)
    world, at = [None] * 24, [None] * 24
    for j, parent in enumerate(parents):
        if parent < 0:
            world[j], at[j] = local[j], joints[j]
        else:
            world[j] = world[parent] @ local[j]
            at[j] = at[parent] + world[parent] @ (joints[j] - joints[parent])
    posed = sum(weights[j][:, None] * ((rest - joints[j]) @ world[j].T + at[j]) for j in range(24))
    return posed - at[0]


def test_it_ends_at_the_person_and_starts_at_the_template(coarse, people):
    mesh = coarse.mesh
    output = jax.jit(smpl_jax.forward)(mesh, people.betas, people.rotmats)
    person = output.vertices - output.joints[:, :1]
    gap = np.abs(run(mesh, people, jnp.ones(PEOPLE)) - person)
    assert gap.max() < 1e-6 and gap.mean() < 1e-7
    start = run(mesh, people, jnp.zeros(PEOPLE))
    assert np.abs(start - posture.template(mesh)).max() < 1e-6
    # Upright before a camera whose y axis points down: the head is above the feet.
    names = dict(zip(mesh.joint_names, np.asarray(coarse.regressor @ start[0]), strict=True))
    assert names["head"][1] < -0.4 and names["left_foot"][1] > 0.6
    assert names["left_hip"][0] > 0.02  # its left is on the right of the picture


def test_the_states_are_those_of_the_formula(coarse, people):
    shares = np.linspace(0, 1, 8)
    few = jax.tree.map(lambda x: x[:8], people)
    found = run(coarse.mesh, few, jnp.asarray(shares, jnp.float32))
    for row in range(8):
        person = np.float64(few.rotmats[row]), np.float64(few.betas[row])
        wanted = reference(coarse.mesh, *person, shares[row])
        np.testing.assert_allclose(found[row], wanted, atol=3e-6)


def test_every_state_of_a_batch_is_its_own(coarse, people):
    few = jax.tree.map(lambda x: x[:3], people)
    shares = jnp.array([0.1, 0.5, 0.9])
    together = run(coarse.mesh, few, shares)
    for row in range(3):
        alone = run(coarse.mesh, Person(few.rotmats[row], few.betas[row]), shares[row])
        np.testing.assert_allclose(together[row], alone, atol=1e-6)


@pytest.mark.slow
def test_it_is_differentiable(coarse, people):
    few = jax.tree.map(lambda x: x[:2], people)
    height = lambda s: jnp.sum(posture.posture(coarse.mesh, few, s)[..., 1])
    slope = jax.grad(height)(jnp.array([0.3, 0.6]))
    step = 1e-2
    change = lambda s: (height(s + step) - height(s - step)) / (2 * step)
    assert abs(float(slope.sum()) - float(change(jnp.array([0.3, 0.6])))) < 0.02 * abs(
        float(slope.sum())
    )


def test_linear_processes_are_straight_lines(coarse, people):
    few, half = jax.tree.map(lambda x: x[:4], people), jnp.full(4, 0.5)
    keys = jax.random.split(jax.random.key(0), 4)
    person = posture.posture(coarse.mesh, few, jnp.ones(4))
    for process in ("linear", "noise"):
        spec = PostureSpec(process=process)
        first = posture.start(spec, coarse.mesh, keys)
        middle = posture.state(spec, coarse.mesh, few, first, half)
        np.testing.assert_allclose(middle, (first + person) / 2, atol=1e-6)
    assert abs(float(first.std()) - posture.NOISE) < 0.02
    kinematic = posture.state(PostureSpec(), coarse.mesh, few, first, half)
    assert np.abs(kinematic - (posture.template(coarse.mesh) + person) / 2).max() > 0.05


def test_the_linear_maps_of_the_coarse_body(coarse):
    rng = np.random.default_rng(5)
    turns = rng.normal(0, 0.35, (64, 24, 3))
    rotmats = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(64, 24, 3, 3)
    output = smpl_jax.forward(coarse.body, jnp.asarray(rng.normal(0, 1, (64, 10))), rotmats)
    vertices = output.vertices[:, : coarse.mesh.num_vertices]
    of_vertices = np.linalg.norm(coarse.regressor @ vertices - output.joints, axis=-1)
    assert of_vertices.mean() < 2.5e-3
    matrix = coarse_body.mesh_from_points(coarse)
    of_points = np.linalg.norm(matrix @ coarse.points(output) - vertices, axis=-1)
    assert of_points.mean() < 10e-3
    np.testing.assert_allclose(np.asarray(matrix).sum(1), 1, atol=2e-3)
    kept = coarse_body.from_params(coarse_body.to_params(coarse))
    again = smpl_jax.forward(kept, jnp.zeros(10), rotmats).vertices
    wanted = smpl_jax.forward(coarse.mesh, jnp.zeros(10), rotmats).vertices
    np.testing.assert_allclose(again, wanted, atol=1e-6)
    shapes = coarse_body.param_shapes(Mesh2dSpec())
    assert {n: x.shape for n, x in coarse_body.to_params(coarse).items()} == {
        n: x.shape for n, x in shapes.items()
    }
