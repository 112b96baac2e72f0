"""What the least-squares fits share: a linear solver, rows, and the tangent space of rotations."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from genhmr_jax.geometry.body_jacobian import CROSS


def solved(matrix: Float[Array, "B P P"], right: Float[Array, "B P"]) -> Float[Array, "B P"]:
    """Solve linear equations by Gauss-Jordan elimination with partial pivoting.

    It is one small loop, the same on every device. LAPACK's routine takes a quarter of its time,
    but several devices of a CPU that call it in a sharded program, between exchanges, never return.
    """
    size = right.shape[1]
    at = jnp.arange(size)

    def eliminate(i: Array, table: Array) -> Array:
        # 1. Exchange row i with the row below it that has the largest entry in column i.
        column = jax.lax.dynamic_slice_in_dim(table, i, 1, 2)[..., 0]
        pivot = jnp.argmax(jnp.where(at >= i, jnp.abs(column), -1.0), 1)
        here, there = (at == i)[:, None], (at == pivot[:, None])[..., None]
        row = jax.lax.dynamic_slice_in_dim(table, i, 1, 1)
        best = jnp.take_along_axis(table, pivot[:, None, None], 1)
        table = jnp.where(there, row, table)
        # 2. Divide it by this entry, and subtract it from the other rows.
        best = best / jax.lax.dynamic_slice_in_dim(best, i, 1, 2)
        column = jax.lax.dynamic_slice_in_dim(table, i, 1, 2)
        return jnp.where(here, best, table - column * best)

    table = jnp.concatenate([matrix, right[..., None]], -1)
    return jax.lax.fori_loop(0, size, eliminate, table)[..., -1]


def where_rows(rows: Bool[Array, "B"], new: Any, old: Any) -> Any:
    """Rows of the arrays of `new` where `rows`, else of `old`."""
    choose = lambda n, o: jnp.where(rows.reshape(-1, *[1] * (n.ndim - 1)), n, o)
    return jax.tree.map(choose, new, old)


def tangent(
    gradient: Float[Array, "B J 3 3"], rotmats: Float[Array, "B J 3 3"]
) -> Float[Array, "B J 3"]:
    """The gradient by a, for R -> exp([a]x) R, from that by the entries of R.

    a is in the axes of the parent, as in geometry.body_jacobian.
    """
    return jnp.einsum("bjxy,kxz,bjzy->bjk", gradient, CROSS, rotmats)
