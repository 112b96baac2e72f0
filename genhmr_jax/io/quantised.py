"""Weights in eight bits: each matrix as integers and the step between them.

A compressed file of such weights has 40 % of the size of one of float16 numbers.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped

STEPS_PER_RMS = 6.0
"""The root mean square of a matrix in steps. Rounding adds a noise of 1/21 of it."""
LARGEST = 127
EXACT = "out"
"""The name of output layers, which are not rounded. What such a layer reads has a mean, so that
its rounding errors add up: those of the lifter of hands doubled its error."""


def quantised(params: Any) -> dict[str, Any]:
    """Nested dictionaries of arrays as "levels" and "steps" (float32), in their structure.

    Levels are int8. Numbers beyond LARGEST steps enlarge the step of their array. Vectors (biases
    and scales) and layers of the name EXACT are float16, with a step of 1.
    """
    steps = jax.tree_util.tree_map_with_path(_step, params)
    levels = jax.tree_util.tree_map_with_path(_levels, params, steps)
    return {"levels": levels, "steps": steps}


def quantised_shapes(shapes: Any) -> dict[str, Any]:
    """The shapes of `quantised` parameters of these shapes."""

    def levels(path: Any, x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, np.int8 if _is_rounded(path, x) else np.float16)

    step = lambda _: jax.ShapeDtypeStruct((), np.float32)
    return {
        "levels": jax.tree_util.tree_map_with_path(levels, shapes),
        "steps": jax.tree.map(step, shapes),
    }


def restored(stored: dict[str, Any]) -> Any:
    """The parameters of `quantised`, float32."""
    return jax.tree.map(_product, stored["levels"], stored["steps"])


def _product(levels: Shaped[Array, "*shape"], step: Any) -> np.ndarray:
    return np.asarray(levels, np.float32) * np.float32(step)


def _is_rounded(path: Any, array: Any) -> bool:
    return len(array.shape) > 1 and all(key.key != EXACT for key in path)


def _levels(path: Any, array: Any, step: np.float32) -> np.ndarray:
    array = np.asarray(array)
    if not _is_rounded(path, array):
        return array.astype(np.float16)
    return np.rint(array / step).astype(np.int8)


def _step(path: Any, array: Any) -> np.float32:
    array = np.asarray(array, np.float32)
    if not _is_rounded(path, array):
        return np.float32(1.0)
    rms = float(np.sqrt(np.mean(array**2)))
    return np.float32(max(rms / STEPS_PER_RMS, float(np.abs(array).max()) / LARGEST, 1e-12))
