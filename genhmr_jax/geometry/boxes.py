"""Overlaps of boxes xyxy, in px or any other unit. NumPy; leading axes broadcast."""

import numpy as np
from jaxtyping import Float

_LEAST = 1e-9


def box_areas(boxes: Float[np.ndarray, "*B 4"]) -> Float[np.ndarray, "*B"]:
    """Areas; 0 of a box whose sides are not positive."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def box_overlap(
    first: Float[np.ndarray, "*A 4"], second: Float[np.ndarray, "*B 4"]
) -> Float[np.ndarray, "*C"]:
    """Intersection over union, 0..1."""
    shared = _intersections(first, second)
    return shared / np.maximum(box_areas(first) + box_areas(second) - shared, _LEAST)


def share_of_smaller(
    first: Float[np.ndarray, "*A 4"], second: Float[np.ndarray, "*B 4"]
) -> Float[np.ndarray, "*C"]:
    """Intersection as a share of the smaller box: 1 if one is in the other."""
    smaller = np.minimum(box_areas(first), box_areas(second))
    return _intersections(first, second) / np.maximum(smaller, _LEAST)


def _intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The areas that two boxes share."""
    low = np.maximum(first[..., :2], second[..., :2])
    return box_areas(np.concatenate([low, np.minimum(first[..., 2:], second[..., 2:])], -1))
