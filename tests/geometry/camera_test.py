"""Projection and the weak camera."""

import jax
import jax.numpy as jnp
import numpy as np

from genhmr_jax.geometry import camera
from genhmr_jax.geometry.camera import CropCamera


def test_project_by_hand():
    points = jnp.array([[[0.0, 0, 2], [1, 0.5, 4]]])
    pixels = camera.project(points, jnp.array([800.0]), jnp.array([[320.0, 240.0]]))
    np.testing.assert_allclose(pixels[0], [[320, 240], [520, 340]], rtol=1e-6)


def test_points_behind_the_camera_stay_finite():
    f = lambda p: jnp.sum(camera.project(p, 500.0, jnp.zeros(2)) ** 2)
    points = jnp.array([[0.1, 0.2, -1.0], [0.1, 0.2, 0.0]])
    assert np.isfinite(f(points)) and bool(jnp.isfinite(jax.grad(f)(points)).all())


def test_weak_camera_round_trip_and_meaning():
    rng = np.random.default_rng(0)
    translation = np.stack(
        [rng.uniform(-1, 1, 50), rng.uniform(-1, 1, 50), rng.uniform(2, 9, 50)], -1
    )
    crop = np.stack(
        [rng.uniform(0, 600, 50), rng.uniform(0, 400, 50), rng.uniform(50, 300, 50)], -1
    )
    centre, focal = np.tile([320.0, 240.0], (50, 1)), rng.uniform(400, 1500, 50)
    view = CropCamera(crop, focal, centre)
    weak = view.weak(translation)
    np.testing.assert_allclose(view.translation(weak), translation, rtol=1e-4, atol=1e-4)
    # A point at the model origin projects to the crop's centre + s (tx, ty) half sides.
    pixel = view.project(jnp.asarray(translation)[:, None])
    expected = weak[:, 1:] * weak[:, :1]
    np.testing.assert_allclose(view.to_crop(pixel)[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_rows_of_the_host_stay_on_the_host():
    """NumPy in, NumPy out, in its own precision; jax arrays give the same in float32."""
    rng = np.random.default_rng(1)
    arrays = (rng.uniform(50, 300, (5, 3)), rng.uniform(400, 900, 5), rng.uniform(100, 300, (5, 2)))
    weak = rng.uniform(0.2, 0.9, (5, 3))
    host, device = CropCamera(*arrays), CropCamera(*map(jnp.asarray, arrays))
    translation = host.translation(weak)
    crop = camera.crop_around(weak[:, None, :2].repeat(3, 1), np.ones((5, 3)))
    for found in (translation, host.weak(translation), crop):
        assert isinstance(found, np.ndarray) and found.dtype == np.float64
    np.testing.assert_allclose(host.weak(translation), weak, rtol=1e-9)
    np.testing.assert_allclose(device.translation(jnp.asarray(weak)), translation, rtol=1e-5)
    assert isinstance(device.translation(jnp.asarray(weak)), jax.Array)


def test_crop_around_ignores_unseen_points():
    points = jnp.array([[10.0, 20], [50, 40], [9999, -9999]])
    crop = camera.crop_around(points, jnp.array([1.0, 0.2, 0.0]), margin=1.5)
    np.testing.assert_allclose(crop, [30, 30, 60])
    assert bool(jnp.isfinite(camera.crop_around(points, jnp.zeros(3))).all())


def test_focal_lengths():
    assert camera.default_focal(300, 400) == 500.0
    np.testing.assert_allclose(camera.focal_from_fov(90.0, 1000, 500), 500.0)
