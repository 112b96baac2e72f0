"""The 2D refinement with the light body and a made-up linear decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smpl_jax import rotations

from genhmr_jax.core.fit_objective import Objective, Pose, robust
from genhmr_jax.core.refinement import RefineSpec, decoder_jacobian, refine, solved
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, project_body

BODY = keypoint_model(load_body("lite"))
RNG = np.random.default_rng(0)
MAP = jnp.asarray(RNG.normal(0, 0.25, (20, 72)), jnp.float32)
UPRIGHT = jnp.zeros(72).at[0].set(np.pi)
ROWS = 3
SPEC = RefineSpec()


def decode(embeddings):
    """(B, 5, 4) -> rotations, linear in axis-angle; zero stands upright before the camera."""
    axis_angle = embeddings.reshape(embeddings.shape[0], -1) @ MAP + UPRIGHT
    return rotations.axis_angle_to_matrix(axis_angle.reshape(-1, 24, 3))


jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RUN = jit(functools.partial(refine, decode, BODY), static_argnames="spec")
ROTATIONS = jit(decode)
PIXELS = jit(
    lambda embeddings, betas, weak, view: project_body(BODY, decode(embeddings), betas, weak, view)[
        0
    ]
)

VIEW = CropCamera(
    crop=jnp.array([[300.0, 240, 300], [200, 200, 150], [420, 260, 400]]),
    focal=jnp.array([800.0, 700, 900]),
    centre=jnp.tile(jnp.array([320.0, 240]), (ROWS, 1)),
)
TRUTH = {
    "embeddings": jnp.asarray(RNG.normal(0, 0.4, (ROWS, 5, 4)), jnp.float32),
    "betas": jnp.asarray(RNG.normal(0, 0.5, (ROWS, 10)), jnp.float32),
    "weak_camera": jnp.array([[0.8, 0.02, 0.1], [0.9, -0.05, 0.0], [0.7, 0.0, 0.05]]),
}
KEYPOINTS = jnp.concatenate(
    [PIXELS(*TRUTH.values(), VIEW), jnp.full((ROWS, len(DETECTED), 1), 0.9)], -1
)
START = {
    "embeddings": TRUTH["embeddings"] + jnp.asarray(RNG.normal(0, 0.1, (ROWS, 5, 4)), jnp.float32),
    "betas": jnp.zeros((ROWS, 10)),
    "weak_camera": TRUTH["weak_camera"] * jnp.array([1.1, 1, 1]) + jnp.array([0, 0.06, -0.05]),
}


def run(keypoints=KEYPOINTS, spec=SPEC, start=START, view=VIEW, **more):
    return RUN(
        start["embeddings"],
        start["betas"],
        start["weak_camera"],
        keypoints,
        view,
        spec=spec,
        **more,
    )


@pytest.fixture(scope="module")
def refined():
    return run()


def loss_numpy(start, x, keypoints, spec, certainty=(1, 1, 1)):
    """The objective of each row, term by term."""
    points, rot0, rot = (
        PIXELS(*x.values(), VIEW),
        ROTATIONS(start["embeddings"]),
        ROTATIONS(x["embeddings"]),
    )
    out = []
    for b in range(ROWS):
        data = total = 0.0
        for (px, py), (kx, ky, c) in zip(
            np.asarray(points[b], np.float64), np.asarray(keypoints[b], np.float64), strict=True
        ):
            r = np.hypot(px - kx, py - ky) / float(VIEW.crop[b, 2])
            data, total = data + c * r**2 / (1 + (r / spec.robust_scale) ** 2), total + c
        pose = np.mean(
            [
                np.sum((np.asarray(p, np.float64) - q) ** 2)
                for p, q in zip(rot[b], np.asarray(rot0[b]), strict=True)
            ]
        )
        betas, betas0 = np.asarray(x["betas"][b], np.float64), np.asarray(start["betas"][b])
        shape = np.mean((betas - betas0) ** 2) + 0.1 * np.mean(betas**2)
        priors = spec.prior_pose * pose + spec.prior_betas * shape
        out.append(data / total + priors / certainty[b] ** 2)
    return np.array(out)


def values(refined) -> dict:
    return {
        "embeddings": refined.embeddings,
        "betas": refined.betas,
        "weak_camera": refined.weak_camera,
    }


def pixel_error(x):
    return np.linalg.norm(PIXELS(*x.values(), VIEW) - KEYPOINTS[..., :2], axis=-1).mean(-1)


def test_robust_by_hand():
    r = jnp.array([0.0, 0.1, 0.2, 1.0])
    np.testing.assert_allclose(robust(r**2, 0.1), [0, 0.005, 0.04 / 5, 1 / 101], rtol=1e-5)


def test_loss_is_the_objective_and_the_best_iterate_comes_back(refined):
    assert refined.loss.shape == (SPEC.steps + 1, ROWS)
    np.testing.assert_allclose(
        refined.loss[0], loss_numpy(START, START, KEYPOINTS, SPEC), rtol=1e-3
    )
    np.testing.assert_allclose(
        refined.loss.min(0),
        loss_numpy(START, values(refined), KEYPOINTS, SPEC),
        rtol=1e-3,
        atol=1e-7,
    )


def test_keypoints_of_little_certainty_move_the_pose_less(refined):
    certainty = np.float32([1, 0.3, 0.02])
    found = run(certainty=certainty)
    expected = loss_numpy(START, values(found), KEYPOINTS, SPEC, certainty)
    np.testing.assert_allclose(found.loss[-1], expected, rtol=1e-3)
    np.testing.assert_allclose(found.loss[:, 0], refined.loss[:, 0], rtol=1e-5)
    start = ROTATIONS(START["embeddings"])
    turned = lambda x: np.sqrt(np.sum((ROTATIONS(x.embeddings) - start) ** 2, (1, 2, 3)))
    moved = turned(found), turned(refined)
    assert (moved[0][1:] < np.array([0.9, 0.3]) * moved[1][1:]).all()
    # The camera follows them all the same.
    assert (pixel_error(values(found)) < 0.7 * pixel_error(START)).all()


def test_exact_keypoints_are_met(refined):
    before, after = pixel_error(START), pixel_error(values(refined))
    assert (before > 5).all()
    assert (after < 0.2 * before).all(), (before, after)


def test_a_wrong_camera_is_found():
    """Pose and shape are right at the start; scale and offset are not."""
    found = run(start={**TRUTH, "weak_camera": START["weak_camera"]})
    wrong, left = (
        np.abs(np.asarray(camera - TRUTH["weak_camera"])).max(-1)
        for camera in (START["weak_camera"], found.weak_camera)
    )
    assert (left < 0.15 * wrong).all(), (wrong, left)


def test_never_worse_than_the_start():
    """Undamped steps towards keypoints that no body can meet; one row is at its optimum."""
    spec = RefineSpec(steps=4, damping=1e-9, rejected=10.0)
    wild = KEYPOINTS.at[..., :2].set(
        jnp.asarray(np.random.default_rng(1).uniform(0, 480, KEYPOINTS[..., :2].shape), jnp.float32)
    )
    perfect = KEYPOINTS.at[1:].set(wild[1:])
    start = {**TRUTH, "betas": TRUTH["betas"].at[0].set(0.0)}
    found = run(perfect, spec, start)
    steps = np.diff(found.loss, axis=0)
    assert (steps <= 0).all() and (steps[:, 1:] == 0).any() and (steps[:, 1:] < 0).any()
    after = loss_numpy(start, values(found), perfect, spec)
    np.testing.assert_allclose(after, found.loss[-1], rtol=1e-3, atol=1e-7)


def test_curvature_and_decoder_jacobian_are_those_of_autodiff():
    """In float64; the tangent of a rotation is a in exp([a]x) R."""
    one = jax.tree.map(lambda x: x[:1], (VIEW, KEYPOINTS, START))

    def both(body, view, keypoints, start):
        camera = start["weak_camera"].at[:, 0].set(jnp.log(start["weak_camera"][:, 0]))
        rotmats, betas = decode(start["embeddings"]), start["betas"]
        pose = Pose(rotmats, betas, camera)
        objective = Objective(body, pose, keypoints, view, None, SPEC)

        def residuals(p):
            turned = rotations.axis_angle_to_matrix(p[:, :72].reshape(-1, 24, 3)) @ rotmats
            new = Pose(turned, betas + p[:, 72:82], camera + p[:, 82:])
            points = project_body(body, *new[:2], new.weak_camera, view)[0]
            return ((points - keypoints[..., :2]) / view.crop[:, 2, None, None])[0]

        def tangent(embeddings):
            turn = decode(embeddings) @ jnp.swapaxes(rotmats, -1, -2)
            skew = (turn - jnp.swapaxes(turn, -1, -2)) / 2
            return jnp.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)

        zero = jnp.zeros((1, 85))
        curvature = objective.curvature(pose, objective.losses(pose)[1])
        expected = residuals(zero), jax.jacfwd(residuals)(zero)[..., 0, :]
        jacobian = decoder_jacobian(decode, start["embeddings"], 24, None)
        return curvature[0], expected, jacobian, jax.jacfwd(tangent)(start["embeddings"])

    with jax.enable_x64():
        double = lambda x: np.asarray(x, np.float64 if x.dtype == np.float32 else x.dtype)
        found = jit(both)(*jax.tree.map(double, (BODY, *one)))
    curvature, (r, j), *jacobians = jax.tree.map(np.asarray, found)
    weight = 1 / (1 + (r**2).sum(-1) / SPEC.robust_scale**2) ** 2 / len(DETECTED)
    expected = 2 * np.einsum("k,kci,kcj->ij", weight, j, j)
    expected[np.arange(82), np.arange(82)] += np.repeat(
        [SPEC.prior_pose * 4 / 24, SPEC.prior_betas * 2.2 / 10], [72, 10]
    )
    # Vertices of several bones are treated as if they were rigid.
    np.testing.assert_allclose(curvature, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(jacobians[0].ravel(), jacobians[1].ravel(), atol=1e-9)


def test_a_decoder_of_independent_parts_has_the_same_jacobian():
    """Joint j depends on row j % 5 of the embeddings."""
    joints = np.arange(24)
    own = lambda e: rotations.axis_angle_to_matrix(e[:, joints % 5, :3] * (1 + joints[:, None]) / 9)
    parts = tuple((tuple(range(row, 24, 5)), (row,)) for row in range(5))
    found = [
        jit(lambda e, p=p: decoder_jacobian(own, e, 24, p))(START["embeddings"])
        for p in (parts, None)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)
    assert np.abs(found[0]).max() > 1


def test_no_steps_return_the_input():
    found = run(spec=RefineSpec(steps=0))
    np.testing.assert_array_equal(found.embeddings, START["embeddings"])
    np.testing.assert_array_equal(found.betas, START["betas"])
    np.testing.assert_allclose(found.weak_camera, START["weak_camera"], rtol=1e-6)
    assert found.loss.shape == (1, ROWS)


def test_undetected_keypoints_have_no_influence():
    """Zero confidence, whatever is written there; the last row has no keypoint at all."""
    confidence = KEYPOINTS[..., 2].at[:, ::4].set(0.0).at[2].set(0.0)
    unseen = confidence == 0
    results = []
    for junk in (0.0, jnp.nan, jnp.inf, 1e30):
        points = jnp.where(unseen[..., None], junk, KEYPOINTS[..., :2])
        results.append(run(jnp.concatenate([points, confidence[..., None]], -1)))
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(results[0]))
    np.testing.assert_allclose(results[0].weak_camera[2], START["weak_camera"][2], rtol=1e-6)


def test_examples_do_not_influence_each_other(refined):
    order = jnp.array([1, 0, 0])
    other = jax.tree.map(lambda x: x[order], (START, KEYPOINTS, VIEW))
    found = run(other[1], start=other[0], view=other[2])
    for name, value in values(found).items():
        np.testing.assert_allclose(value, values(refined)[name][order], atol=1e-5)
    np.testing.assert_allclose(found.loss, refined.loss[:, order], rtol=1e-4, atol=1e-7)


def test_linear_equations_are_solved_with_pivoting():
    """Rows of very different sizes, and zeros on the diagonal; as LAPACK in float64."""
    rng = np.random.default_rng(0)
    matrix, right = rng.normal(size=(3, 40, 40)), rng.normal(size=(3, 40))
    matrix[:, :20] *= 1e-3
    matrix[:, ::7] *= 50.0
    matrix[:, [0, 5], [0, 5]] = 0.0
    wanted = np.linalg.solve(matrix, right[..., None])[..., 0]
    found = jax.jit(solved)(np.float32(matrix), np.float32(right))
    gap = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert gap.max() < 1e-3 and np.median(gap) < 1e-4


def test_camera_moves_alone_at_first():
    found = run(spec=RefineSpec(steps=2, camera_steps=2))
    np.testing.assert_array_equal(found.embeddings, START["embeddings"])
    np.testing.assert_array_equal(found.betas, START["betas"])
    assert np.abs(np.asarray(found.weak_camera - START["weak_camera"])).max(-1).min() > 1e-3
