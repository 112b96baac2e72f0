"""What the results for a photo share: checked NumPy arrays, and their `.npz` file."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from smpl_jax.safe_npz import load_npz

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError


class Results:
    """Base of a frozen dataclass of arrays, which are converted and checked when it is made.

    Attributes:
      shapes: the shape of each field; a name stands for a size that all fields share.
      dtypes: the type of each field that is not float32.
      command: the command that writes such files, for errors.
    """

    shapes: ClassVar[Mapping[str, tuple]]
    dtypes: ClassVar[Mapping[str, Any]]
    command: ClassVar[str]

    def check(self) -> None:
        """Convert every field to a NumPy array of its type, and check the shapes.

        Raises:
          ValueError: a shape does not match `shapes`, or two arrays disagree about a size.
        """
        sizes: dict[str, int] = {}
        kind = type(self).__name__
        for name, shape in self.shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value).astype(self.dtypes.get(name, np.float32))
            if array.ndim != len(shape):
                raise ValueError(f"{kind}.{name}: shape {array.shape} does not match {shape}")
            for length, symbol in zip(array.shape, shape, strict=True):
                expected = symbol if isinstance(symbol, int) else sizes.setdefault(symbol, length)
                if length != expected:
                    raise ValueError(
                        f"{kind}.{name}: shape {array.shape} does not match {shape} with {sizes}"
                    )
            object.__setattr__(self, name, array)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that is present, by name."""
        found = {name: getattr(self, name) for name in self.shapes}
        return {name: value for name, value in found.items() if value is not None}

    def save(self, path: str | os.PathLike) -> None:
        """Write a compressed `.npz` without pickles. The file appears complete or not at all.

        Raises:
          InputError: the directory cannot be written to.
        """
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            self.write(file)

    def write(self, file: BinaryIO) -> None:
        """Write what `save` writes to an open file."""
        np.savez_compressed(file, **self.arrays())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read a file that `save` wrote; unknown keys are ignored.

        Raises:
          FileNotFoundError: no such file.
          InputError: not such a file, or arrays are missing or do not match.
        """
        remedy = f"give a file that `{cls.command}` wrote"
        try:
            found = load_npz(path, cls.shapes)
        except ValueError as error:
            raise InputError(path, "is not an .npz file of results", remedy) from error
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        required = {field.name for field in fields if field.default is dataclasses.MISSING}
        if missing := sorted(required - found.keys()):
            raise InputError(path, f"lacks {', '.join(missing)}", remedy)
        try:
            return cls(**found)
        except ValueError as error:
            raise InputError(path, str(error), remedy) from error


def reprojection_error(
    points: np.ndarray, keypoints: np.ndarray, min_confidence: float
) -> np.ndarray:
    """Mean distance of projected points (P, K, 2) from keypoints (P, K, 3), (P,) px.

    Args:
      points: px.
      keypoints: px and confidence; those below `min_confidence` are ignored.
      min_confidence: 0..1.

    Returns:
      NaN where no keypoint has this confidence.
    """
    errors = np.full(len(points), np.nan, np.float32)
    distance = np.linalg.norm(points - keypoints[..., :2], axis=-1)
    clear = keypoints[..., 2] >= min_confidence
    known = clear.any(axis=1)
    total, count = np.where(clear, distance, 0).sum(axis=1), clear.sum(axis=1)
    errors[known] = (total[known] / count[known]).astype(np.float32)
    return errors
