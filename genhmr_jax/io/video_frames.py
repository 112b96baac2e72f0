"""The frames of a video as FFmpeg tells them: size, shape of the pixels, and rotation."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import MAX_SIDE

MOST_PIXELS = 1 << 26
"""Width x height of a frame: twice 8K."""


def check_size(path: Path, width: int, height: int) -> None:
    """Raise InputError if frames have a side outside of 1..MAX_SIDE px, or too many pixels."""
    inside = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE
    if not inside or width * height > MOST_PIXELS:
        raise InputError(path, f"has frames of {width} x {height} px", "scale it down")


def is_cover(stream: Any) -> bool:
    """Whether a stream is a picture of a cover."""
    return bool(stream.disposition & stream.disposition.attached_pic)


def square_size(frame: Any, stream: Any) -> tuple[int, int]:
    """Width and height of a stored frame with square pixels (those of DVD and HDV are not)."""
    return round(frame.width * float(stream.sample_aspect_ratio or 1)), frame.height


def display_matrix(frame: Any) -> Int[np.ndarray, "2 2"]:
    """How the stored frame is shown: shown (x, y) = matrix @ stored (x, y).

    Phones rotate by this matrix (ISO 14496-12, track header). FFmpeg keeps its order: a, b, u, c,
    d, v, x, y, w with x' = a x + c y and y' = b x + d y.
    """
    entry = frame.side_data.get("DISPLAYMATRIX")
    if entry is not None:
        a, b, _, c, d = np.frombuffer(bytes(entry), np.int32)[:5]
        return np.array([[a, c], [b, d]])
    return np.eye(2, dtype=np.int64)


def upright(pixels: np.ndarray, matrix: Int[np.ndarray, "2 2"]) -> np.ndarray:
    """The picture as shown: quarter turns and mirror images."""
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        pixels, matrix = pixels.swapaxes(0, 1), matrix[:, ::-1]
    return pixels[:: -1 if matrix[1, 1] < 0 else 1, :: -1 if matrix[0, 0] < 0 else 1]
