"""The losses of PostureHMR against float64 NumPy, and the camera and body of a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.systems.posturehmr import answer, objective
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate

RNG = np.random.default_rng(0)
FACES = np.array([[0, 1, 2], [0, 2, 3], [3, 2, 4]])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_mesh_terms():
    """VirtualMarker, virtualmarker/core/loss.py: NormalVectorLoss and EdgeLengthLoss."""
    current, target, move = RNG.normal(0, 0.3, (3, 2, 5, 3))
    regressor = RNG.random((24, 5))
    given = [jnp.float32(x) for x in (move, current, target)]
    found = objective.mesh_terms(*given, FACES, jnp.float32(regressor))
    for row in range(2):
        reached = current[row] + move[row]
        gap = 1000 * (reached - target[row])
        normals, edges = [], []
        for a, b, c in FACES:
            true = target[row]
            normal = unit(np.cross(unit(true[b] - true[a]), unit(true[c] - true[a])))
            for i, j in ((a, b), (a, c), (b, c)):
                normals.append(abs(unit(reached[j] - reached[i]) @ normal))
                lengths = (np.linalg.norm(x[j] - x[i]) for x in (reached, true))
                edges.append(1000 * abs(np.subtract(*lengths)))
        wanted = {
            "posture": (gap**2).sum(-1).mean(),
            "vertices": abs(gap).mean(),
            "joints": abs(regressor @ gap).mean(),
            "normals": np.mean(normals),
            "edges": np.mean(edges),
        }
        assert {n: float(v[row]) for n, v in found.items()} == pytest.approx(wanted, rel=1e-4)


def test_a_right_step_costs_nothing_and_a_collapsed_face_has_a_gradient():
    mesh = jnp.float32(RNG.normal(0, 0.3, (1, 5, 3)))
    found = objective.mesh_terms(jnp.zeros_like(mesh), mesh, mesh, FACES, jnp.ones((24, 5)))
    assert max(float(v[0]) for v in found.values()) < 1e-3
    flat = jnp.zeros_like(mesh)
    total = lambda x: sum(
        v.sum() for v in objective.mesh_terms(x, flat, mesh, FACES, jnp.ones((24, 5))).values()
    )
    assert np.isfinite(jax.grad(total)(flat)).all()


def test_mesh2d_terms():
    points, true = RNG.normal(0, 0.5, (2, 2, 7, 2))
    vertices, mesh = RNG.normal(0, 0.5, (2, 2, 9, 2))
    spread = RNG.normal(-2, 0.3, (2, 7))
    estimate = Mesh2dEstimate(*map(jnp.float32, (points, spread, vertices, np.zeros((2, 1)))))
    found = objective.mesh2d_terms(estimate, jnp.float32(true), jnp.float32(mesh))
    distance = abs(points - true).sum(-1)
    wanted = {
        "points": abs(points - true).mean((1, 2)),
        "mesh": abs(vertices - mesh).mean((1, 2)),
        "confidence": (distance / np.exp(spread) + spread).mean(1),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    # The best spread of one point is the log of its distance.
    at = jnp.log(jnp.float32(distance))
    best = Mesh2dEstimate(estimate.points, at, estimate.vertices, estimate.features)
    slope = jax.grad(
        lambda s: objective.mesh2d_terms(
            Mesh2dEstimate(best.points, s, best.vertices, best.features), true, mesh
        )["confidence"].sum()
    )(at)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_the_camera_puts_a_mesh_on_its_2d_mesh():
    mesh = RNG.normal(0, 0.4, (4, 60, 3)).astype(np.float32)
    translation = np.float32([[0.3, -0.2, 4], [0, 0, 2.5], [-1, 0.5, 9], [0.1, 0, 3]])
    view = CropCamera(
        np.float32([[300, 200, 150], [320, 240, 400], [100, 90, 80], [310, 220, 260]]),
        np.float32([500, 400, 700, 350]),
        np.full((4, 2), [320, 240], np.float32),
    )
    points = view.to_crop(view.project(mesh + translation[:, None]))
    found = answer.translation_of(jnp.asarray(mesh), jnp.asarray(points), view)
    np.testing.assert_allclose(found, translation, rtol=2e-3, atol=2e-3)
    # With errors in the 2D mesh it is the least-squares solution of the linear equations.
    noisy = points + RNG.normal(0, 0.02, points.shape).astype(np.float32)
    found = answer.translation_of(jnp.asarray(mesh), jnp.asarray(noisy), view)
    for row in range(4):
        pixels = noisy[row] * view.crop[row, 2] / 2 + view.crop[row, :2]
        slope = np.float64((pixels - view.centre[row]) / view.focal[row])
        zero, one = np.zeros(60), np.ones(60)
        a = np.concatenate(
            [np.stack([one, zero, -slope[:, 0]], -1), np.stack([zero, one, -slope[:, 1]], -1)]
        )
        b = np.concatenate([slope[:, k] * mesh[row, :, 2] - mesh[row, :, k] for k in range(2)])
        wanted = np.linalg.lstsq(a, b, rcond=None)[0]
        np.testing.assert_allclose(found[row], wanted, rtol=2e-3, atol=2e-3)


def test_rotation_of_the_camera_is_undone(posture_model):
    """A photo that is turned about its principal point gives the same body, turned."""
    system, params, inputs = posture_model
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    run = jax.jit(lambda p, i: system.sample(p, None, system.encode(p, i), keys, iterations=3))
    latents = run(params, inputs)
    rotmats = system.pose(params, inputs.view)(latents.embeddings)
    assert np.isfinite(rotmats).all()
    angle = 0.4
    turn = Rotation.from_euler("z", angle).as_matrix().astype(np.float32)
    view = inputs.view
    moved = lambda xy: (xy - view.centre[:, None]) @ turn[:2, :2].T + view.centre[:, None]
    keypoints = np.concatenate([moved(inputs.keypoints[..., :2]), inputs.keypoints[..., 2:]], -1)
    region = np.concatenate([moved(view.region[:, None, :2])[:, 0], view.region[:, 2:]], -1)
    region[:, 3] += angle
    other = CropCamera(np.float32(region[:, :3]), view.focal, view.centre, np.float32(region))
    turned = type(inputs)(other, np.float32(keypoints), np.float32(inputs.keypoints3d @ turn.T))
    again = run(params, turned)
    other_rotmats = system.pose(params, other)(again.embeddings)
    np.testing.assert_allclose(other_rotmats[:, 0], turn @ rotmats[:, 0], atol=2e-3)
    np.testing.assert_allclose(other_rotmats[:, 1:], rotmats[:, 1:], atol=2e-3)
    pelvis = params["body"]["joint_template"][0] + jnp.einsum(
        "bs,sc->bc", latents.betas, params["body"]["joint_shapedirs"][:, 0]
    )
    place = view.translation(latents.weak_camera) + pelvis
    other_place = other.translation(again.weak_camera) + pelvis
    np.testing.assert_allclose(other_place, place @ turn.T, rtol=5e-3, atol=5e-3)
