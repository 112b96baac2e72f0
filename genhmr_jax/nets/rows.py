"""Rows stay where they are: what a model tells the compiler when it runs on a mesh.

Left to itself, XLA lets the sharding of the parameters win: it then splits activations by feature and gives every device the whole batch.
"""

from typing import TypeVar

import jax
from jax.sharding import PartitionSpec

AXES = ("data", "fsdp")  # of the mesh, over which the rows of a batch are split
T = TypeVar("T")


def by_rows(tree: T) -> T:
    """Arrays (rows, ..) split by rows alone; as they are where no mesh with these axes is in use (`jax.sharding.use_abstract_mesh`)."""
    if not set(AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec(AXES, *(None,) * (x.ndim - 1))), tree)
