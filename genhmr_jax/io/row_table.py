"""A table on disk to which rows are appended, and which survives an interrupted process.

Every column is a file of raw numbers, which is read as a memory map, so that a long table needs no
memory. `table.json` has the types of the columns, the number of complete rows, and the caller's
notes. It is replaced atomically after the rows are written: rows of an interrupted append do not
count.
"""

import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from genhmr_jax.io.atomic import atomic_path, sync
from genhmr_jax.io.errors import InputError, shortened

_HEAD = "table.json"


class RowTable:
    """A table in a folder.

    Attributes:
      path: the folder.
      notes: of the caller, JSON; written by the next `append`.
    """

    def __init__(self, path: str | os.PathLike, notes: dict[str, Any]):
        """Make an empty table. An existing one is deleted.

        Raises:
          InputError: the folder has other files than those of a table.
          OSError: the folder cannot be written to.
        """
        self.path, self.notes = pathlib.Path(path), dict(notes)
        self._types: dict[str, tuple[tuple[int, ...], str]] = {}
        self._rows = 0
        if self.path.is_dir() and not all(map(_is_own, self.path.iterdir())):
            raise InputError(self.path, "has files of something else", "choose another folder")
        self.delete()
        self.path.mkdir(parents=True)
        self._write_head()

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RowTable":
        """Open a table; rows of an interrupted append are removed.

        Raises:
          FileNotFoundError: there is none.
          InputError: it is damaged.
        """
        table = cls.__new__(cls)
        table.path = pathlib.Path(path)
        try:
            content = (table.path / _HEAD).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _damaged(path, error) from error
        try:
            head = json.loads(content)
            table.notes, table._rows = dict(head["notes"]), head["rows"]
            if type(table._rows) is not int or not 0 <= table._rows < 1 << 48:
                raise ValueError(f"{shortened(table._rows)} rows")
            columns = dict(head["columns"]).items()
            table._types = {name: (tuple(shape), str(kind)) for name, (shape, kind) in columns}
            for name, (shape, kind) in table._types.items():
                expected = table._rows * _bytes(name, shape, kind)
                if table._file(name).stat().st_size < expected:
                    raise ValueError(f"{name} is shorter than {table._rows} rows")
                os.truncate(table._file(name), expected)
        # JSON can hold anything, and numpy.dtype raises nearly anything on a text.
        except Exception as error:
            raise _damaged(path, error) from error
        return table

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append rows; the first call determines the columns, their shapes and types.

        Raises:
          ValueError: other columns, shapes or types than before, types that are no numbers, or
            arrays of several lengths.
          OSError: the disk is full.
        """
        arrays = {name: np.ascontiguousarray(value) for name, value in rows.items()}
        found = {name: (value.shape[1:], value.dtype.str) for name, value in arrays.items()}
        if found != (self._types or found):
            raise ValueError(f"{self.path}: the rows {found} are not those of {self._types}")
        if len(lengths := {len(value) for value in arrays.values()}) > 1:
            raise ValueError(f"{self.path}: columns of {sorted(lengths)} rows")
        sizes = {name: _bytes(name, *kind) for name, kind in found.items()}
        for name, value in arrays.items():
            with open(self._file(name), "ab") as file:
                file.truncate(self._rows * sizes[name])  # an append may have failed before
                file.write(value.data)
            sync(self._file(name))
        self._types = found
        self._rows += len(next(iter(arrays.values()))) if arrays else 0
        self._write_head()

    def truncate(self, rows: int) -> None:
        """Remove the rows after the first `rows`."""
        self._rows = min(rows, self._rows)
        self._write_head()  # first: `open` removes rows that it does not count
        for name, kind in self._types.items():
            os.truncate(self._file(name), self._rows * _bytes(name, *kind))

    def note(self, **notes: Any) -> None:
        """Add notes, and write them."""
        self.notes |= notes
        self._write_head()

    def read(self) -> dict[str, np.ndarray]:
        """Every column as a read-only memory map (N, ...), or an array if it has no elements."""
        found = {}
        for name, (shape, kind) in self._types.items():
            whole = (self._rows, *shape)
            if 0 in whole:  # an empty file cannot be mapped
                found[name] = np.zeros(whole, kind)
            else:
                found[name] = np.memmap(self._file(name), kind, "r", shape=whole)
        return found

    def delete(self) -> None:
        """Delete the folder and its files."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, column: str) -> pathlib.Path:
        return self.path / f"{column}.rows"

    def _write_head(self) -> None:
        head = {"rows": self._rows, "columns": self._types, "notes": self.notes}
        with atomic_path(self.path / _HEAD) as temporary:
            pathlib.Path(temporary).write_text(json.dumps(head))


def _is_own(file: pathlib.Path) -> bool:
    """Whether a file may be part of a table; some are temporary (io/atomic.py)."""
    return file.name == _HEAD or file.suffix == ".rows" or file.name.startswith(".genhmr-")


def _damaged(path: str | os.PathLike, error: Exception) -> InputError:
    problem = f"is a damaged table ({shortened(error, 200)})"
    return InputError(path, problem, "delete the folder, and start again")


def _bytes(name: str, shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a row of a column.

    Raises:
      ValueError, TypeError: no numeric type, no sizes, or a name that cannot be that of a file.
    """
    if not name.isidentifier():
        raise ValueError(f"the column {name!r}")
    dtype = np.dtype(kind)
    whole = all(type(n) is int and n >= 0 for n in shape)
    if dtype.kind not in "fiub" or not whole or len(shape) > 30:
        raise ValueError(f"the type {shortened(kind)} {shortened(shape)}")
    return math.prod(shape) * dtype.itemsize
