"""Sets of rows on disk, computed once ahead of training: checked when they are read.

The folder of a split holds one .npy for each array. They are memory-mapped, so that a set may be
larger than memory. crc32.npz has a checksum of each row of each array, which is checked when the
row is read.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

import jax
import numpy as np

from genhmr_jax.data.packing import pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.rows import CHECKS, Rows, from_arrays, is_of_encoder, row_checks
from genhmr_jax.data.rows import write_checks as write_row_checks
from genhmr_jax.io.atomic import atomic_path, sync
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.npz_files import read_own_npz

R = TypeVar("R")
_AGAIN = "make it again with python -m genhmr_jax.data.features"


class StoredSet(Generic[R]):
    """The rows of a split, a registered dataclass R with the fields `number` and `weight`.

    Args:
      encoder: the expected one; "none" reads no encoder's output, None reads what is there.
      build: makes rows of their arrays by name.

    Raises:
      InputError: there is no finished set, it is of another encoder, or it is damaged.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        encoder: str | None,
        build: Callable[[dict[str, np.ndarray]], R],
    ):
        self._build = build
        self.folder, remedy = pathlib.Path(folder), _AGAIN.replace(" again", "")
        folder = self.folder
        if not (folder / "done.json").is_file():
            raise InputError(folder, "holds no finished feature set", remedy)
        try:
            meta = json.loads((folder / "done.json").read_text())
            self.size, self.encoder = int(meta["samples"]), str(meta["encoder"])
            names = [str(name) for name in meta["arrays"]]
        except (ValueError, KeyError, TypeError) as error:
            self._damaged("done.json", error)
        if encoder not in (None, "none", self.encoder):
            problem = f"holds the output of {self.encoder}, not of {encoder}"
            raise InputError(folder, problem, f"{remedy} --encoder {encoder}")
        wanted = [name for name in names if encoder != "none" or not is_of_encoder(name)]
        self._checks = read_own_npz(folder / CHECKS, "file of checksums", _AGAIN, wanted)
        self.arrays = {}
        for name in wanted:
            try:
                self.arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
                if len(self.arrays[name]) != self.size or len(self._checks[name]) != self.size:
                    raise ValueError(f"it has not {self.size} rows")
            except Exception as error:  # NumPy parses the header as Python: nearly any type
                self._damaged(f"{name}.npy", error)

    def rows(self, index: np.ndarray) -> R:
        """The rows at these indices. Raises InputError for one that is not as it was written."""
        found = {name: np.asarray(array[index]) for name, array in self.arrays.items()}
        for name, values in found.items():
            wrong = np.asarray(index)[row_checks(values) != self._checks[name][index]]
            if wrong.size:
                self._damaged(f"{name}.npy", f"the checksum of row {wrong[0]} differs")
        return self._build(found)

    def _damaged(self, file: str, reason: object) -> NoReturn:
        raise InputError(self.folder / file, f"is damaged ({reason})", _AGAIN)

    def source(self, size: int, seed: int) -> "StoredSource[R]":
        """Training batches of `size` rows, drawn at random."""
        return StoredSource(self, size, seed)

    def all_batches(self, size: int) -> list[R]:
        """Every row once, in batches of `size`.

        `weight` (size,) float32 is 1, and 0 where the last batch is padded.
        """
        return [
            dataclasses.replace(self.rows(part.image), weight=part.weight)
            for part in pack(np.ones(self.size, np.int64), size)  # one person an image
        ]


@dataclasses.dataclass(frozen=True)
class StoredSource(Generic[R]):
    """Rows drawn from a stored set, each with its global number; a data.pipeline.Source."""

    stored: StoredSet[R]
    size: int
    seed: int

    def load(self, numbers: np.ndarray) -> R:
        """The rows with these global numbers (b,)."""
        drawn = (sample_hash(numbers, self.seed) * self.stored.size).astype(np.int64)
        number = np.asarray(numbers).astype(np.uint32)
        return dataclasses.replace(self.stored.rows(drawn), number=number)

    def shapes(self) -> R:
        """Shapes of one row."""
        shape = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        return jax.tree.map(shape, self.load(np.zeros(1, np.int64)))


class FeatureSet(StoredSet[Rows]):
    """The rows of a split: keypoints as detected, and the output of an encoder.

    Args:
      encoder: see StoredSet.
    """

    def __init__(self, folder: str | pathlib.Path, encoder: str | None = None):
        super().__init__(folder, encoder, from_arrays)


def join_parts(parts: list[pathlib.Path], folder: pathlib.Path, encoder: str) -> int:
    """Joins parts into one .npy for each array, part by part; returns the number of rows."""
    # 1. Check that all parts hold the same arrays, and count their rows.
    counts, shapes = [], {}
    for part in parts:
        data = _read_part(part)
        if (made := str(data.pop("encoder"))) != encoder:
            problem = f"was made with the encoder {made}, not {encoder}"
            raise InputError(part, problem, "choose another --out")
        counts.append(len(next(iter(data.values()))) if data else 0)
        found = {name: (array.shape[1:], array.dtype) for name, array in data.items()}
        if counts[-1] and found != (shapes or found):
            raise InputError(
                part,
                "holds other arrays than the parts before it: another version made it",
                "delete the parts of one version",
            )
        shapes = found or shapes
    if not shapes:
        raise InputError(folder, "nobody is detected in any image", "check the images")

    # 2. Copy. An earlier, smaller set counts as unfinished until all arrays are written again.
    (folder / "done.json").unlink(missing_ok=True)
    ends, total = np.cumsum(counts), sum(counts)
    checks = {name: np.zeros(total, np.uint32) for name in shapes}
    with contextlib.ExitStack() as stack:
        # Not memory maps: on a full disk, a write to one ends the process without a message.
        files = {n: stack.enter_context(open(folder / f"{n}.npy", "wb")) for n in shapes}
        for name, (shape, dtype) in shapes.items():
            descr = np.lib.format.dtype_to_descr(dtype)
            head = {"descr": descr, "fortran_order": False, "shape": (total, *shape)}
            np.lib.format.write_array_header_1_0(files[name], head)
        for part, end, count in zip(parts, ends, counts, strict=True):
            if count:
                data = _read_part(part)
                for name, file in files.items():
                    values = np.ascontiguousarray(data[name])
                    file.write(values.data)
                    checks[name][end - count : end] = row_checks(values)
    write_row_checks(folder, checks)
    sync(folder)
    meta = {"samples": total, "encoder": encoder, "arrays": sorted(shapes)}
    with atomic_path(folder / "done.json") as temporary:
        temporary.write_text(json.dumps(meta))
    return total


def _read_part(part: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a part. Raises InputError if it is damaged."""
    arrays = read_own_npz(part, "part of a stored set", "delete it, and run again")
    if "encoder" not in arrays:
        raise InputError(part, "keys missing: encoder", "delete it, and run again")
    return arrays
