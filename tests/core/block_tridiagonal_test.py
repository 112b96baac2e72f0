"""Block-tridiagonal equations against the dense solution of NumPy."""

import jax
import numpy as np
import pytest

from genhmr_jax.core.block_tridiagonal import solve_chain

SOLVE = jax.jit(solve_chain)


def chain(count, size, rng, condition=1.0):
    """A dense symmetric positive definite matrix, its blocks, and a right side, in float64.

    The matrix is L L^T for a block-bidiagonal L. `condition` is the range of the scales of the
    unknowns.
    """
    lower = np.zeros((count * size, count * size))
    for n in range(count):
        own = slice(n * size, (n + 1) * size)
        lower[own, own] = np.tril(rng.normal(size=(size, size))) + 3 * np.eye(size)
        if n:
            lower[own, (n - 1) * size : n * size] = 0.5 * rng.normal(size=(size, size))
    scale = np.geomspace(1, condition, count * size)
    rng.shuffle(scale)
    matrix = scale[:, None] * (lower @ lower.T) * scale
    blocks = matrix.reshape(count, size, count, size).swapaxes(1, 2)
    at = np.arange(count)
    return matrix, blocks[at, at], blocks[at, at - 1], rng.normal(size=(count, size))


@pytest.mark.parametrize(("count", "size"), [(1, 3), (2, 5), (9, 4)])
def test_as_the_dense_solution(count, size):
    rng = np.random.default_rng(count)
    matrix, diagonal, below, right = chain(count, size, rng)
    below[0] = 7.0  # it is ignored
    wanted = np.linalg.solve(matrix, right.ravel()).reshape(count, size)
    found = SOLVE(*(np.float32(x) for x in (diagonal, below, right)))
    np.testing.assert_allclose(found, wanted, atol=3e-4 * np.abs(wanted).max())


def test_unknowns_of_very_different_scales():
    """Scales over 4 decades. The error of a Cholesky factorisation does not depend on such a
    scaling (Higham, Accuracy and Stability of Numerical Algorithms, section 10.1)."""
    rng = np.random.default_rng(0)
    matrix, diagonal, below, right = chain(6, 5, rng, condition=1e4)
    assert np.linalg.cond(matrix) > 1e7
    wanted = np.linalg.solve(matrix, right.ravel()).reshape(right.shape)
    found = np.asarray(SOLVE(*(np.float32(x) for x in (diagonal, below, right))))
    scale = np.sqrt(np.diag(matrix)).reshape(right.shape)
    gap = np.linalg.norm((found - wanted) * scale)
    assert gap < 3e-5 * np.linalg.norm(wanted * scale)


def test_a_matrix_that_is_not_positive_definite_gives_no_numbers():
    """The caller recognises it: core.motion_refinement rejects such a step."""
    rng = np.random.default_rng(1)
    _, diagonal, below, right = chain(3, 3, rng)
    diagonal[1] = -diagonal[1]
    assert np.isnan(SOLVE(*(np.float32(x) for x in (diagonal, below, right)))).any()
