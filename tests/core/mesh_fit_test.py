"""The fit of a body to vertices: made-up poses and shapes are found again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.rotations import geodesic_angle

from genhmr_jax.core import mesh_fit
from genhmr_jax.core.least_squares import tangent
from genhmr_jax.core.mesh_fit import MeshFitSpec, fit_mesh, nearest_rotation
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import surface_model

RNG = np.random.default_rng(0)
BODY = surface_model(load_body("lite"), 410)
ROWS, SPEC = 3, MeshFitSpec()
FIT = jax.jit(functools.partial(fit_mesh, BODY), static_argnames="spec")
POSED = jax.jit(lambda *x: smpl_jax.forward(BODY, *x).vertices)


def wide(rows=ROWS):
    """Rotations in any direction and about 50 degrees at each joint, and unusual shapes."""
    pose = RNG.normal(0, 0.5, (rows, 24, 3))
    pose[:, 0] = Rotation.random(rows, rng=RNG).as_rotvec()
    rotmats = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(rows, 24, 3, 3)
    kinds = rotmats, RNG.normal(0, 1.5, (rows, 10)), RNG.normal(0, 2, (rows, 3))
    return [x.astype(np.float32) for x in kinds]


ROTMATS, BETAS, TRANSLATION = wide()
TRUE = np.asarray(POSED(BETAS, ROTMATS, TRANSLATION))
NOISY = TRUE + RNG.normal(0, 0.010, TRUE.shape).astype(np.float32)


def distance(fit, vertices=TRUE):
    """Mean vertex distance of each row, mm."""
    found = POSED(fit.betas, fit.rotmats, fit.translation)
    return 1e3 * np.linalg.norm(found - vertices, axis=-1).mean(-1)


@pytest.fixture(scope="module")
def exact():
    return FIT(TRUE, spec=SPEC)


@pytest.fixture(scope="module")
def noisy():
    return FIT(NOISY, spec=SPEC)


def test_a_mesh_without_noise_is_found(exact):
    assert 425 <= BODY.num_vertices <= 435
    assert distance(exact).max() < 0.1
    np.testing.assert_allclose(1e3 * exact.error, distance(exact), rtol=0.02, atol=1e-4)
    assert np.rad2deg(geodesic_angle(exact.rotmats, ROTMATS)).max() < 1
    np.testing.assert_allclose(exact.betas, BETAS, atol=0.05)
    np.testing.assert_allclose(exact.translation, TRANSLATION, atol=1e-3)
    product = np.einsum("bjxy,bjzy->bjxz", exact.rotmats, exact.rotmats)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-5)


def test_the_start_is_close_and_the_loss_never_increases(exact, noisy):
    for fit in (exact, noisy):
        loss = np.asarray(fit.loss)
        assert loss.shape == (SPEC.steps + 1, ROWS) and (np.diff(loss, axis=0) <= 0).all()
    assert np.sqrt(exact.loss[0]).max() < 0.2  # metres
    assert np.sqrt(exact.loss[-1]).max() < 0.001


def test_noise_of_10_mm_moves_the_body_by_less(noisy):
    assert distance(noisy).max() < 5
    assert 12 < distance(noisy, NOISY).min()  # the noise itself is not fitted
    assert np.abs(noisy.betas - BETAS).mean() < 0.5


def test_with_the_noise_known_the_shape_stays_usual():
    """Of a mesh that is all noise, the priors decide what the vertices do not."""
    vertices = TRUE + RNG.normal(0, 0.1, TRUE.shape).astype(np.float32)
    known, unknown = (FIT(vertices, spec=MeshFitSpec(noise=s)) for s in (0.1, 0.001))
    assert np.abs(known.betas).max() < 5
    assert np.square(known.betas).sum() < np.square(unknown.betas).sum()
    assert distance(known).mean() < distance(unknown).mean()


def test_rows_are_independent(exact):
    for row in range(ROWS):
        alone = FIT(TRUE[row : row + 1], spec=SPEC)
        assert distance(alone, TRUE[row : row + 1]).max() < 0.1
        np.testing.assert_allclose(alone.betas[0], exact.betas[row], atol=5e-3)
        np.testing.assert_allclose(alone.rotmats[0], exact.rotmats[row], atol=5e-3)
        np.testing.assert_allclose(alone.loss[:3, 0], exact.loss[:3, row], rtol=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_only_rows_that_are_not_finite_are_nan(exact, value):
    vertices = TRUE.copy()
    vertices[1, 7, 2] = value
    found = FIT(vertices, spec=SPEC)
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        new, old = np.asarray(new), np.asarray(old)
        if new.shape[0] != ROWS:  # the loss
            new, old = new.T, old.T
        assert np.isnan(new[1]).all()
        np.testing.assert_array_equal(new[[0, 2]], old[[0, 2]])


def test_another_number_of_vertices_is_refused():
    with pytest.raises(ValueError, match=rf"\(B, {BODY.num_vertices}, 3\)"):
        fit_mesh(BODY, jnp.zeros((1, 7, 3)))


def test_nearest_rotation_is_that_of_kabsch():
    """Against the singular value decomposition in float64, reflections and planes included."""
    m = RNG.normal(size=(200, 3, 3))
    m[:20, :, 2] = 0  # points of a plane
    u, _, vt = np.linalg.svd(m)
    flip = np.stack([np.ones(200), np.ones(200), np.linalg.det(u @ vt)], -1)
    wanted = u * flip[:, None] @ vt
    found = np.asarray(nearest_rotation(jnp.asarray(m, jnp.float32)), np.float64)
    best, trace = (np.einsum("bij,bij->b", r, m) for r in (wanted, found))
    np.testing.assert_allclose(trace, best, atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-5)
    assert np.median(np.abs(found - wanted)) < 1e-5


def test_gradient_is_that_of_differences_in_float64():
    with jax.enable_x64(True):
        body = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, BODY)
        x = mesh_fit._Point(*(jnp.asarray(v, np.float64) for v in (ROTMATS, BETAS, TRANSLATION)))
        spec = MeshFitSpec(noise=0.3)  # so that the priors count
        at = jax.jit(lambda x: mesh_fit._modelled(body, NOISY.astype(np.float64), x, spec))
        model = at(x)
        for _ in range(4):
            q = jnp.asarray(RNG.normal(size=model.gradient.shape))
            loss = [at(mesh_fit._moved(x, s * q)).loss for s in (-1e-6, 1e-6)]
            wanted = (loss[1] - loss[0]) / 2e-6
            np.testing.assert_allclose(jnp.sum(model.gradient * q, -1), wanted, rtol=1e-5)
        curvature = np.asarray(model.curvature)
    np.testing.assert_allclose(curvature, np.swapaxes(curvature, 1, 2), atol=1e-12)
    assert np.linalg.eigvalsh(curvature).min() > -1e-9


def test_tangent_is_the_derivative_by_a_small_rotation():
    weight, step = RNG.normal(size=(1, 2, 3, 3)), 1e-6
    rotmats = Rotation.random(2, rng=RNG).as_matrix()[None]
    found = tangent(jnp.asarray(weight, jnp.float32), jnp.asarray(rotmats, jnp.float32))
    value = lambda a: np.sum(weight * (Rotation.from_rotvec(a).as_matrix() @ rotmats), (2, 3))
    wanted = [(value(step * a) - value(-step * a)) / (2 * step) for a in np.eye(3)]
    np.testing.assert_allclose(found, np.stack(wanted, -1), atol=1e-5)


def test_the_minimum_is_that_of_scipy_in_float64(noisy):
    """scipy.optimize.least_squares on the same residuals, from the closed form."""
    count, prior = BODY.num_vertices, np.sqrt(SPEC.noise**2 / BODY.num_vertices)
    middle = NOISY[:1].mean(1, dtype=np.float64)
    target = NOISY[:1].astype(np.float64) - middle[:, None]
    start = jax.jit(mesh_fit.closed_form)(BODY, jnp.asarray(target, jnp.float32))
    first = np.asarray(start.rotmats[0], np.float64)
    with jax.enable_x64(True):
        body = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, BODY)
        forward = jax.jit(lambda *x: smpl_jax.forward(body, *x).vertices)

        def residuals(q):
            q = np.atleast_2d(q)
            turn = Rotation.from_rotvec(q[:, :72].reshape(-1, 3)).as_matrix()
            rotmats = turn.reshape(-1, 24, 3, 3) @ first
            gap = (forward(q[:, 72:82], rotmats, q[:, 82:]) - target) / np.sqrt(count)
            turned = (rotmats - np.eye(3))[:, 1:] * prior / mesh_fit.POSE / np.sqrt(2)
            parts = gap, turned, q[:, 72:82] * prior
            return np.concatenate([np.reshape(part, (len(q), -1)) for part in parts], 1)

        def jacobian(q):
            found = residuals(q + 1e-7 * np.eye(86, 85, -1))
            return (found[1:] - found[0]).T / 1e-7

        x0 = np.concatenate([np.zeros(82), start.translation[0]])
        found = scipy.optimize.least_squares(
            lambda q: residuals(q)[0], x0, jac=jacobian, method="lm", ftol=1e-6
        )
    # cost is half the sum of squares.
    np.testing.assert_allclose(noisy.loss[-1, 0], 2 * found.cost, rtol=1e-3)
    np.testing.assert_allclose(noisy.betas[0], found.x[72:82], atol=0.1)
