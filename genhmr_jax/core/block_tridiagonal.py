"""Symmetric block-tridiagonal linear equations, such as those of a motion over frames."""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def solve_chain(
    diagonal: Float[Array, "N P P"], below: Float[Array, "N P P"], right: Float[Array, "N P"]
) -> Float[Array, "N P"]:
    """Solve A x = right for a symmetric positive definite A, by a block Cholesky factorisation.

    The cost is linear in N (Golub and Van Loan, Matrix Computations, 4th edition, section 4.5.1).

    Args:
      diagonal: the blocks A[n, n].
      below: the blocks A[n, n - 1]; below[0] is ignored.
      right: the right side.
    """
    size = right.shape[1]

    def forward(carry: tuple[Array, Array], row: tuple) -> tuple[tuple, tuple]:
        factor, value = carry
        own, left, target = row
        # A[n, n-1] = link C[n-1]^T, and C[n] C[n]^T = A[n, n] - link link^T.
        link = solve_triangular(factor, left.T, lower=True).T
        factor = jnp.linalg.cholesky(own - _matmul(link, link.T))
        value = solve_triangular(factor, target - _matmul(link, value), lower=True)
        return (factor, value), (factor, link, value)

    def backward(carry: tuple[Array, Array], row: tuple) -> tuple[tuple, Array]:
        link, value = carry
        factor, own_link, own = row
        value = solve_triangular(factor, own - _matmul(link.T, value), lower=True, trans=1)
        return (own_link, value), value

    first = jnp.eye(size), jnp.zeros(size)
    below = below.at[0].set(0.0)
    _, (factors, links, values) = jax.lax.scan(forward, first, (diagonal, below, right))
    last = jnp.zeros((size, size)), jnp.zeros(size)
    return jax.lax.scan(backward, last, (factors, links, values), reverse=True)[1]
