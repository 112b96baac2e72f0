"""Soft and hard silhouettes and the trimap loss, against loops in NumPy and the rasteriser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.render import rasterizer, soft

RNG = np.random.default_rng(0)
SIZE, SIGMA = 16, 4e-3  # of 16 px there are no windows, and little is compiled
POINTS = RNG.uniform(-0.9, 0.9, (2, 7, 2))
# The last is a line.
FACES = np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6], [1, 5, 4], [3, 3, 6]], np.int32)
SOFT = jax.jit(soft.soft_silhouette, static_argnames=("size", "sigma"))
HARD = jax.jit(soft.hard_silhouette, static_argnames="size")
SLOPES = jax.jit(
    jax.grad(
        lambda points, weight, sigma: jnp.sum(
            weight * soft.soft_silhouette(points, FACES, SIZE, sigma)
        )
    )
)


def grid(radius=0.6, shift=(0.0, 0.0), rings=4, sides=8):
    """A disc of small triangles: points (1, N, 2) and faces."""
    angle = np.arange(sides) * 2 * np.pi / sides
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    points = np.concatenate([[[0, 0]], *(circle * r / rings for r in range(1, rings + 1))])
    faces = [[0, 1 + k, 1 + (k + 1) % sides] for k in range(sides)]
    for ring in range(rings - 1):
        for k in range(sides):
            a, b = (1 + sides * ring + i for i in (k, (k + 1) % sides))
            faces += [[a, a + sides, b], [b, a + sides, b + sides]]
    return (radius * points + np.array(shift))[None], np.array(faces)


def loop_silhouette(points, faces, size, sigma):
    """One image, a pixel and a triangle at a time, in float64."""

    def to_segment(p, a, b):
        length = (b - a) @ (b - a)
        t = np.clip((p - a) @ (b - a) / length, 0, 1) if length else 0.0
        return np.sum((a + t * (b - a) - p) ** 2)

    cross = lambda u, v: u[0] * v[1] - u[1] * v[0]
    image = np.ones((size, size))
    for row, column in np.ndindex(size, size):
        p = (2 * np.array([column, row]) + 1) / size - 1
        for a, b, c in points[faces]:
            squared = min(to_segment(p, *edge) for edge in ((a, b), (b, c), (c, a)))
            turns = [cross(v - u, p - u) for u, v in ((a, b), (b, c), (c, a))]
            inside = cross(b - a, c - a) != 0 and (min(turns) >= 0 or max(turns) <= 0)
            image[row, column] *= 1 - 1 / (1 + np.exp(-(squared if inside else -squared) / sigma))
    return 1 - image


def loop_loss(predicted, mask, band):
    total = 2.0
    for weight in (np.ones_like(mask), band):
        p, g = predicted * weight, mask * weight
        total -= ((p * g).sum() + 1e-6) / ((p + g - p * g).sum() + 1e-6)
    return total


def test_values_are_those_of_a_loop_in_float64():
    found = SOFT(jnp.asarray(POINTS, jnp.float32), FACES, size=SIZE, sigma=SIGMA)
    wanted = np.stack([loop_silhouette(p, FACES, SIZE, SIGMA) for p in POINTS])
    assert 0.2 < wanted.mean() < 0.8
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("order", [[0, 2, 1], [1, 2, 0]])
def test_orientation_does_not_matter(order):
    points = jnp.asarray(POINTS, jnp.float32)
    once, again = (SOFT(points, f, size=SIZE, sigma=SIGMA) for f in (FACES, FACES[:, order]))
    np.testing.assert_allclose(once, again, atol=1e-5)
    hard = [HARD(points, f, size=SIZE) for f in (FACES, FACES[:, order])]
    assert (np.asarray(hard[0]) == np.asarray(hard[1])).mean() > 0.997


def test_small_windows_and_the_whole_image_are_the_same(monkeypatch):
    """Windows of 16 px and 32 px, and triangles beside and half beside the image."""
    points, faces = grid(rings=6, sides=12)
    shifts = [[0, 0], [0.7, 0.5], [-1.1, -2.5], [0.013, 0.017], [0.031, 0.009]]
    points = (points + np.array(shifts)[:, None]).astype(np.float32)

    def drawn():
        # A new function, which reads _WINDOWS again.
        both = lambda p: (
            soft.soft_silhouette(p, faces, 48, sigma=1e-3),
            soft.hard_silhouette(p, faces, 48),
        )
        run = jax.jit(both)
        return [run(points), run(4 * points)]

    windowed = drawn()
    monkeypatch.setattr(soft, "_WINDOWS", ())
    whole = drawn()
    for found, wanted in zip(windowed, whole, strict=True):
        np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
        np.testing.assert_array_equal(found[1], wanted[1])
    assert 0 < np.mean(whole[0][1]) < 1 and not np.any(whole[0][1][2])


def test_hard_silhouette_of_a_body_is_that_of_the_rasteriser():
    body = load_body("lite")
    pose = np.random.default_rng(1).normal(0, 0.3, (24, 3)).astype(np.float32)
    posed = smpl_jax.forward(body, np.zeros(10, np.float32), pose).vertices
    vertices, faces = np.asarray(posed) * [1, -1, -1] + [0, -0.2, 2.5], np.asarray(body.faces)
    focal, size = 75.0, 64
    wanted = rasterizer.rasterize(vertices, faces, focal, size, size)[0] >= 0
    points = vertices[:, :2] / vertices[:, 2:] * focal / (size / 2)
    found = np.asarray(HARD(jnp.asarray(points, jnp.float32)[None], faces, size=size))[0]
    assert wanted.mean() > 0.1
    assert (found == wanted).mean() > 0.9995


def test_soft_becomes_hard():
    points, faces = grid(shift=(0.013, 0.007))  # no edge through the centre of a pixel
    points = jnp.asarray(points, jnp.float32)
    hard = np.asarray(HARD(points, faces, size=16))
    run = jax.jit(lambda sigma: soft.soft_silhouette(points, faces, 16, sigma))
    gaps = [np.abs(run(sigma) - hard).mean() for sigma in (1e-2, 1e-3, 1e-4, 1e-8)]
    assert all(b < 0.8 * a for a, b in zip(gaps, gaps[1:], strict=False)) and gaps[-1] < 1e-3


def test_gradient_is_that_of_differences_in_float64():
    with jax.enable_x64(True):
        points, weight = jnp.asarray(POINTS), jnp.asarray(RNG.normal(size=(2, SIZE, SIZE)))
        gradient = np.asarray(SLOPES(points, weight, SIGMA))
        value = lambda p: jnp.sum(weight * SOFT(p, FACES, size=SIZE, sigma=SIGMA))
        wanted, step = np.zeros_like(POINTS), 1e-6
        for at in np.ndindex(*POINTS.shape):
            move = np.zeros_like(POINTS)
            move[at] = step
            wanted[at] = (value(points + move) - value(points - move)) / (2 * step)
    assert gradient.dtype == np.float64 and np.abs(wanted).max() > 1
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize(
    "points",
    {
        "points": np.full((7, 2), 0.1),
        "the centre of a pixel": np.full((7, 2), 1 / SIZE),
        "a line through centres of pixels": np.stack([np.arange(7) / 7, np.full(7, 1 / SIZE)], -1),
        "all far away": np.full((7, 2), 1e4) + POINTS[0],
    }.values(),
)
def test_degenerate_triangles_are_finite(points, sigma):
    points = jnp.asarray(np.stack([points, POINTS[0]]), jnp.float32)
    image = np.asarray(SOFT(points, FACES, size=SIZE, sigma=SIGMA))
    assert np.isfinite(image).all() and image[0].max() <= 1
    slopes = SLOPES(points, jnp.ones((2, SIZE, SIZE)), sigma)
    assert np.isfinite(slopes).all() and np.any(slopes[1]) == (sigma > 1e-6)
    assert not np.any(HARD(points, FACES, size=SIZE)[0])


def test_a_row_that_is_not_finite_harms_no_other():
    good = jnp.asarray(POINTS, jnp.float32)
    broken = good.at[0, 1, 0].set(jnp.nan)
    found = np.asarray(SOFT(broken, FACES, size=SIZE, sigma=SIGMA))
    assert np.isnan(found[0]).any()
    np.testing.assert_array_equal(found[1], SOFT(good, FACES, size=SIZE, sigma=SIGMA)[1])


def test_band_is_the_distance_from_the_edge():
    mask = np.zeros((1, 20, 24), np.float32)
    mask[0, 5:, 8:16] = 1  # it leaves the image at the bottom, which is no edge
    found = np.asarray(soft.trimap_band(jnp.asarray(mask), 2))[0]
    wanted = np.zeros((20, 24))
    for row, column in np.ndindex(20, 24):
        near = mask[0, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        wanted[row, column] = near.min() != near.max()
    np.testing.assert_array_equal(found, wanted)
    assert found[19, 12] == 0 and found[19, 9] == 1


def test_loss_is_that_of_numpy_and_zero_for_the_mask_itself():
    masks = (RNG.uniform(size=(3, 16, 16)) > 0.6).astype(np.float64)
    masks[2] = 0
    band = np.asarray(soft.trimap_band(jnp.asarray(masks), 1), np.float64)
    predicted = RNG.uniform(size=(3, 16, 16))
    found = soft.trimap_loss(*(jnp.asarray(x, jnp.float32) for x in (predicted, masks, band)))
    wanted = [loop_loss(*row) for row in zip(predicted, masks, band, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    same = soft.trimap_loss(*(jnp.asarray(x, jnp.float32) for x in (masks, masks, band)))
    np.testing.assert_allclose(same, 0, atol=1e-6)


@functools.cache
def disc_loss():
    """(points, value and gradient of the trimap loss of a disc against the disc at 0)."""
    points, faces = grid()
    mask = HARD(jnp.asarray(points, jnp.float32), faces, size=32)
    band = soft.trimap_band(mask, 2)
    loss = lambda p: soft.trimap_loss(soft.soft_silhouette(p, faces, 32), mask, band)[0]
    return points, jax.jit(jax.value_and_grad(loss))


def test_loss_decreases_as_a_mesh_comes_back():
    points, run = disc_loss()
    shifts = (0.6, 0.4, 0.2, 0.1, 0.0)
    losses = [float(run(jnp.asarray(points + [s, 0], jnp.float32))[0]) for s in shifts]
    assert all(a > b + 0.02 for a, b in zip(losses, losses[1:], strict=False))
    assert losses[0] > 1 and losses[-1] < 0.3


def test_gradient_descent_moves_a_mesh_onto_the_mask():
    points, run = disc_loss()
    shift, start = jnp.array([0.3, -0.2]), None
    for step in range(60):
        loss, gradient = run(jnp.asarray(points, jnp.float32) + shift)
        start = loss if start is None else start
        shift = shift - 0.02 * 0.95**step * jnp.sum(gradient, (0, 1))
    assert float(jnp.linalg.norm(shift)) < 0.02
    assert float(loss) < 0.3 < 0.8 < float(start)
