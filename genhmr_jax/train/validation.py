"""Means over validation batches, shared by the tasks."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from genhmr_jax.geometry.metrics import mpjpe, pa_mpjpe

ROWS = "rows"


def pose_errors(
    joints: Float[Array, "B K 3"], truth: Float[Array, "B K 3"], weight: Float[Array, "B"]
) -> dict[str, Float[Array, ""]]:
    """Weighted sums over a batch of MPJPE and PA-MPJPE in mm, and of the weights (ROWS).

    Args:
      joints, truth: metres.
      weight: of each row; 0 for rows that fill up a batch.
    """
    return {
        "mpjpe": jnp.sum(weight * 1000 * mpjpe(joints, truth)),
        "pa_mpjpe": jnp.sum(weight * 1000 * pa_mpjpe(joints, truth)),
        ROWS: jnp.sum(weight),
    }


def means(batches: Iterable[Mapping[str, Any]], count: str = ROWS) -> dict[str, float]:
    """Means from sums of batches: each total divided by that of `count`; {} if that is 0.

    Args:
      batches: host arrays, all with the same names.
      count: the sum that divides the others.
    """
    batches = list(batches)
    rows = sum(float(batch[count]) for batch in batches)
    if not rows:
        return {}
    names = [name for name in batches[0] if name != count]
    return {name: sum(float(batch[name]) for batch in batches) / rows for name in names}
