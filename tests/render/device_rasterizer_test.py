"""The rasteriser in JAX against the one in numba: the same pixels, up to those whose centre lies on
an edge."""

import numpy as np
import pytest
import smpl_jax

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.render import device_rasterizer, rasterizer


@pytest.mark.parametrize(
    ("shift", "focal", "size"),
    [
        ((0, 0.2, 2.5), 120.0, (96, 80)),
        ((0.3, 0, 0.9), 110.0, (36, 52)),
        ((5, 0, 2), 90.0, (48, 48)),
    ],
)
def test_equals_the_numba_rasteriser(shift, focal, size):
    body = load_body("lite")
    pose = np.random.default_rng(0).normal(0, 0.3, (24, 3)).astype(np.float32)
    points = (
        np.asarray(smpl_jax.forward(body, np.zeros(10, np.float32), pose).vertices) * [1, -1, -1]
        + shift
    )
    faces = np.asarray(body.faces)
    found, wanted = (
        r.rasterize(points, faces, focal, *size) for r in (device_rasterizer, rasterizer)
    )
    same = found[0] == wanted[0]
    assert same.mean() > 0.995
    assert ((found[0] >= 0) == (wanted[0] >= 0)).mean() > 0.998
    for a, b in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(a[same], b[same], atol=2e-4)
    assert (wanted[0] >= 0).any() == (shift[0] < 4)


def test_the_nearer_triangle_is_seen_and_the_first_of_two_alike():
    near, far = (
        np.array([[-1, -1, 1], [3, -1, 1], [-1, 3, 1]]),
        np.array([[-2, -2, 2], [6, -2, 2], [-2, 6, 2]]),
    )
    points = np.concatenate([far, near, near]).astype(np.float64)
    face, depth, bary = device_rasterizer.rasterize(points, np.arange(9).reshape(3, 3), 8.0, 16, 16)
    assert face[8, 8] == 1 and depth[8, 8] == pytest.approx(1.0)
    np.testing.assert_allclose(bary[8, 8].sum(), 1)
    drawn = face >= 0
    np.testing.assert_allclose(
        (bary[drawn][:, :, None] * points[3:6][None]).sum(1)[:, 2], 1, atol=1e-5
    )


def test_a_triangle_larger_than_the_image_beside_small_ones():
    """Large windows are looked at few at a time, and none is lost."""
    rng = np.random.default_rng(0)
    small = rng.uniform([-1, -1, 1.5], [1, 1, 2], (600, 1, 3)) + rng.normal(0, 0.06, (600, 3, 3))
    points = np.concatenate([[[[-9, -9, 3], [9, -9, 3], [0, 18, 3]]], small]).reshape(-1, 3)
    faces = np.arange(len(points)).reshape(-1, 3)
    found, wanted = (
        r.rasterize(points, faces, 36.0, 90, 84)[0] for r in (device_rasterizer, rasterizer)
    )
    assert (wanted == 0).any() and len(np.unique(wanted)) > 300
    assert (found == wanted).mean() > 0.995


def test_what_reaches_behind_the_camera_is_left_out():
    points = np.array([[0, 0, -1.0], [1, 0, 2], [0, 1, 2]])
    face, depth, _ = device_rasterizer.rasterize(points, np.array([[0, 1, 2]]), 8.0, 16, 16)
    assert (face == -1).all() and np.isinf(depth).all()
