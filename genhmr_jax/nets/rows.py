"""The sharding of activations on a mesh: by rows.

Without such a constraint XLA follows the sharding of the parameters: it splits activations by
feature and gives every device the whole batch.
"""

from typing import TypeVar

import jax
from jax.sharding import PartitionSpec

AXES = ("fsdp", "data")
"""Mesh axes over which the rows of a batch are split.

The order matters. With ("data", "fsdp") XLA's partitioner (jaxlib 0.10.2 and 0.12.0) computes wrong
products on meshes such as 2 x 2 x 2 and 4 x 2 x 2: those with several devices along `data`, and
with the same number, above 1, along `fsdp` and `tensor`. It permutes the rows for the product and
does not permute them back. With `fsdp` first it has nothing to permute. tests/support/products.py
has the products.
"""
T = TypeVar("T")


def by_rows(tree: T) -> T:
    """Constrain arrays (rows, ..) to be split by rows only.

    Without a mesh that has these axes (`jax.sharding.use_abstract_mesh`) arrays are unchanged.
    """
    if not set(AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return tree
    spec = lambda x: PartitionSpec(AXES, *(None,) * (x.ndim - 1))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec(x)), tree)
