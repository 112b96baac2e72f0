"""The rasteriser against ray casting in plain NumPy."""

import numba
import numpy as np
import pytest

from genhmr_jax.io import compiled as compiled_module
from genhmr_jax.render.rasterizer import rasterize, vertex_normals

NEAR = 0.05


def cast_rays(points, faces, focal, width, height, centre):
    """Every pixel's ray against every triangle (Moeller and Trumbore 1997): face id, depth,
    barycentrics, all float64."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    ray = np.stack([(x - centre[0]) / focal, (y - centre[1]) / focal, np.ones_like(x)], -1)
    face_id, depth, bary = np.full(x.shape, -1), np.full(x.shape, np.inf), np.zeros((*x.shape, 3))
    for index, (a, b, c) in enumerate(points[faces]):
        across = np.cross(ray, c - a)
        determinant = across @ (b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = across @ -a / determinant
            side = np.cross(-a, b - a)
            v = ray @ side / determinant
            z = (c - a) @ side / determinant
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (z > NEAR) & (z < depth)
        face_id[hit], depth[hit] = index, z[hit]
        bary[hit] = np.stack([1 - u - v, u, v], -1)[hit]
    return face_id, depth, bary


def assert_like_rays(points, faces, focal, width, height, centre):
    face_id, depth, bary = rasterize(points, faces, focal, width, height, centre)
    expected_id, expected_depth, expected_bary = cast_rays(
        points, faces, focal, width, height, centre
    )
    np.testing.assert_array_equal(face_id, expected_id)
    seen = expected_id >= 0
    assert seen.any()
    np.testing.assert_allclose(depth[seen], expected_depth[seen], rtol=1e-5)
    np.testing.assert_allclose(bary[seen], expected_bary[seen], atol=2e-5)
    assert np.isinf(depth[~seen]).all() and not bary[~seen].any()


@pytest.mark.parametrize("seed", range(4))
def test_triangles_before_the_camera(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -1, 0.6], [1, 1, 3], (60, 3))
    assert_like_rays(points, np.arange(60).reshape(20, 3), 40.0, 64, 48, (29.3, 26.1))


@pytest.mark.parametrize("seed", range(6))
def test_triangles_that_cross_the_near_plane(seed):
    rng = np.random.default_rng(100 + seed)
    points = rng.uniform([-1, -1, -1.5], [1, 1, 2], (60, 3))
    assert_like_rays(points, np.arange(60).reshape(20, 3), 40.0, 64, 48, (32.0, 24.0))


@pytest.mark.parametrize("corner", [1e-9, 0.0, NEAR, NEAR + 1e-7])
def test_corner_next_to_the_camera(corner):
    points = np.array([[0.1, 0.1, corner], [-2.0, 0.3, 2.0], [1.5, -0.4, 3.0]])
    assert_like_rays(points, np.array([[0, 1, 2]]), 50.0, 40, 40, (20.0, 20.0))


def test_default_centre_and_pixel_centres():
    """A square of exactly 4 x 2 px in the middle of the image covers exactly these pixels."""
    points = np.array([[-2, -1, 10], [2, -1, 10], [2, 1, 10], [-2, 1, 10]], float)
    face_id, depth, _ = rasterize(points, np.array([[0, 1, 2], [0, 2, 3]]), 10.0, 12, 8)
    expected = np.zeros((8, 12), bool)
    expected[3:5, 4:8] = True
    np.testing.assert_array_equal(face_id >= 0, expected)
    np.testing.assert_allclose(depth[expected], 10.0, rtol=1e-6)


def test_axes():
    """x is right, y is down: a triangle in the positive quadrant is seen right of and below the
    middle."""
    points = np.array([[0.1, 0.1, 1], [0.9, 0.1, 1], [0.1, 0.9, 1]], float)
    rows, columns = np.nonzero(rasterize(points, np.array([[0, 1, 2]]), 10.0, 20, 20)[0] >= 0)
    assert rows.min() > 10 and columns.min() > 10


def test_behind_the_camera_and_outside_the_image_nothing_is_drawn():
    triangle = np.array([[0, 0, -2], [1, 0, -2], [0, 1, -1]], float)
    before = triangle * [1, 1, -1]
    for points in (
        triangle,
        before + [100, 0, 0],
        np.full((3, 3), np.nan),
        before * [np.nan, 1, 1],
    ):
        assert (rasterize(points, np.array([[0, 1, 2]]), 10.0, 16, 16)[0] == -1).all()


def test_no_faces():
    assert (rasterize(np.zeros((0, 3)), np.zeros((0, 3), int), 10.0, 5, 4)[0] == -1).all()


def test_normals_of_a_tetrahedron_point_outward():
    points = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    np.testing.assert_allclose(vertex_normals(points, faces), points / np.sqrt(3), atol=1e-12)


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    real = numba.njit

    def refuse(*args, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert compiled_module.compiled(lambda x: x + 1)(2) == 3
