"""Projection and the weak camera."""

import jax
import jax.numpy as jnp
import numpy as np

from genhmr_jax.geometry import camera


def test_project_by_hand():
    points = jnp.array([[[0.0, 0, 2], [1, 0.5, 4]]])
    pixels = camera.project(points, jnp.array([800.0]), jnp.array([[320.0, 240.0]]))
    np.testing.assert_allclose(pixels[0], [[320, 240], [520, 340]], rtol=1e-6)


def test_points_behind_the_camera_stay_finite():
    f = lambda p: jnp.sum(camera.project(p, 500.0, jnp.zeros(2)) ** 2)  # noqa: E731
    points = jnp.array([[0.1, 0.2, -1.0], [0.1, 0.2, 0.0]])
    assert np.isfinite(f(points)) and bool(jnp.isfinite(jax.grad(f)(points)).all())


def test_weak_camera_round_trip_and_meaning():
    rng = np.random.default_rng(0)
    translation = np.stack([rng.uniform(-1, 1, 50), rng.uniform(-1, 1, 50), rng.uniform(2, 9, 50)], -1)
    crop = np.stack([rng.uniform(0, 600, 50), rng.uniform(0, 400, 50), rng.uniform(50, 300, 50)], -1)
    size, focal = np.tile([640.0, 480.0], (50, 1)), rng.uniform(400, 1500, 50)
    weak = camera.translation_to_weak(translation, crop, size, focal)
    np.testing.assert_allclose(camera.weak_to_translation(weak, crop, size, focal), translation, rtol=1e-4, atol=1e-4)
    # A point at the model origin projects to the crop's centre + s (tx, ty) half sides.
    pixel = camera.project(jnp.asarray(translation)[:, None], focal, size / 2)
    expected = weak[:, 1:] * weak[:, :1]
    np.testing.assert_allclose(camera.to_crop(pixel, crop)[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_crop_around_ignores_unseen_points():
    points = jnp.array([[10.0, 20], [50, 40], [9999, -9999]])
    crop = camera.crop_around(points, jnp.array([1.0, 0.2, 0.0]), margin=1.5)
    np.testing.assert_allclose(crop, [30, 30, 60])
    assert bool(jnp.isfinite(camera.crop_around(points, jnp.zeros(3))).all())


def test_focal_lengths():
    assert camera.default_focal(300, 400) == 500.0
    np.testing.assert_allclose(camera.focal_from_fov(90.0, 1000, 500), 500.0)
