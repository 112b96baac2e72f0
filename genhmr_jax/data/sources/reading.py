"""Readers of untrusted files: pickles, npz archives and tar shards.

Nothing in them is ever run, and every error names its file.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from smpl_jax.safe_npz import npz_members, read_member
from smpl_jax.safe_pickle import UnsafePickle, load_data_pickle

from genhmr_jax.io.errors import InputError, shortened
from genhmr_jax.io.folders import is_leftover

_AGAIN = "download it again"
LARGEST_SAMPLE = 1 << 27
"""Bytes of the files of one sample of a shard. Masks of 20 people in full HD are a third of it."""
_OFFICIAL = "is this the official release?"


def read_pickle(source: str | Path | bytes, where: object = None) -> Any:
    """The content of a pickle: dictionaries, lists, text, numbers and NumPy arrays.

    Pickles of Python 2 and arrays of objects are read too.

    Args:
      source: a file, or its bytes.
      where: the name in errors; default: the file.

    Raises:
      InputError: unreadable, or the pickle has anything but data; nothing in it was run.
    """
    where = where or ("pickle" if isinstance(source, bytes) else source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return bare(load_data_pickle(data))
    except OSError as error:
        raise InputError(
            where, f"cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error
    except UnsafePickle as error:
        raise InputError(
            where,
            f"is not a data pickle: {error}",
            f"nothing in it was run; if it is broken, {_AGAIN}",
        ) from error


def read_npz(
    source: str | Path | bytes,
    keys: Sequence[str],
    optional: Sequence[str] = (),
    where: object = None,
) -> dict[str, np.ndarray]:
    """The arrays of an npz under `keys`, and those under `optional` that it has.

    Arrays of objects hold plain data (see read_pickle).

    Raises:
      InputError: unreadable, incomplete, a key is missing, or an object in it is not data.
    """
    where = where or ("npz" if isinstance(source, bytes) else source)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with zipfile.ZipFile(file) as archive:
            members = npz_members(archive)
            if missing := [key for key in keys if key not in members]:
                has = shortened(", ".join(sorted(members)[:20]), 400)
                problem = f"has no {', '.join(missing)} (it has {has})"
                remedy = "is this the file that the dataset's description names?"
                raise InputError(where, problem, remedy)
            wanted = [key for key in (*keys, *optional) if key in members]
            return {key: read_member(archive, members[key]) for key in wanted}
    except UnsafePickle as error:
        raise InputError(
            where,
            f"is not plain data: {error}",
            f"nothing in it was run; if it is broken, {_AGAIN}",
        ) from error
    except InputError:
        raise  # a subclass of ValueError, as UnsafePickle is
    except OSError as error:
        raise InputError(
            where,
            f"cannot be read ({error.strerror or error})",
            "check the path and its permissions",
        ) from error
    except ValueError as error:
        raise InputError(where, f"has an array that cannot be read ({error})", _AGAIN) from error
    except Exception as error:  # a damaged archive raises BadZipFile, zlib.error, EOFError, ...
        raise InputError(where, f"is not a whole npz ({error})", _AGAIN) from error


def tar_samples(path: str | Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a WebDataset shard, in order: (key, {field: bytes}).

    Successive files of one basename are a sample: "dir/a.b.jpg" has key "dir/a" and field "b.jpg".
    Compressed tars are read as well.

    Raises:
      InputError: not a tar, an incomplete one, or an entry that is not a plain file within the
        shard. The samples before it have been yielded then.
    """
    key, fields, total = "", {}, 0
    for name, data in _tar_files(Path(path)):
        folder, _, base = name.rpartition("/")
        stem, _, field = base.partition(".")
        stem = f"{folder}/{stem}" if folder else stem
        if stem != key and fields:
            yield key, fields
            fields, total = {}, 0
        key, total = stem, total + len(data)
        if total > LARGEST_SAMPLE:
            raise _too_large(f"{path}: {name}")
        if field in fields:
            raise InputError(f"{path}: {name}", "is there twice", _AGAIN)
        fields[field] = data
    if fields:
        yield key, fields


def _tar_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each plain file of a tar; the tar must be complete."""
    try:
        with (
            _decompressed(path) as file,
            tarfile.open(path, "r:", fileobj=_Bounded(file)) as archive,
        ):
            place = -1
            while (member := archive.next()) is not None:
                archive.members = []  # else it keeps every entry in memory
                if archive.offset <= place:  # a negative size: tarfile would go round for ever
                    raise EOFError(f"{shortened(member.name)} has no size that can be")
                place = archive.offset
                if member.isdir():
                    continue
                name = PurePosixPath(member.name)
                plain = member.isreg() and not member.issparse()
                if not plain or name.is_absolute() or ".." in name.parts:
                    where = f"{path}: {shortened(member.name)}"
                    problem = "is not a plain file inside the shard"
                    raise InputError(where, problem, "do not trust this tar")
                if member.size > LARGEST_SAMPLE:
                    raise _too_large(f"{path}: {shortened(name)}")
                if any(map(is_leftover, name.parts)):
                    continue
                content = archive.extractfile(member).read()
                if len(content) != member.size:
                    raise EOFError(f"{member.name} ends early")
                yield str(name), content
            # tarfile treats a cut between two files as the end, but a complete tar ends in blocks
            # of zeros.
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("its end is missing")
            while archive.fileobj.read(1 << 20):
                pass  # gzip, bzip2 and xz check their checksum at the end
    except InputError:
        raise
    except Exception as error:  # tarfile and decompressors raise nearly any on damaged headers
        remedy = f"the download is perhaps incomplete: {_AGAIN}"
        raise InputError(path, f"is not a whole tar ({error})", remedy) from error


def _too_large(where: str) -> InputError:
    problem = f"makes a sample of more than {LARGEST_SAMPLE >> 20} MiB"
    return InputError(where, problem, "is it a photo and its labels?")


def _decompressed(path: Path) -> BinaryIO:
    """The open content of a tar, which may be compressed by gzip, bzip2 or xz."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
        if start.startswith(magic):
            return module.open(path)
    return path.open("rb")


class _Bounded:
    """A file for tarfile, which reads as much at once as a header declares: not more than a limit.

    A compressed file of a megabyte can hold a name of a gigabyte.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.tell, self.seek, self._file = file.tell, file.seek, file

    def read(self, size: int) -> bytes:
        """The next bytes. Raises EOFError: too many, or a negative number of them."""
        if not 0 <= size <= LARGEST_SAMPLE:
            raise EOFError(f"a header of {size} bytes")
        return self._file.read(size)


def bare(value: Any) -> Any:
    """The object inside an array of objects without axes; other values are returned unchanged.

    NumPy makes such an array of other objects: `np.array({...})`, `np.savez(path, x={...})`.
    """
    while isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "O":
        value = value[()]
    return value


def entry(content: Any, key: str, where: object) -> Any:
    """content[key] of an untrusted dictionary, with `bare` applied to both.

    Raises:
      InputError: not a dictionary, or no such key.
    """
    content = bare(content)
    if not isinstance(content, dict):
        problem = f"holds a {type(content).__name__} instead of a dictionary"
        raise InputError(where, problem, _OFFICIAL)
    if key not in content:
        has = shortened(", ".join(sorted(map(str, content))[:20]), 400)
        raise InputError(where, f"has no {key} (it has {has})", _OFFICIAL)
    return bare(content[key])


def optional_entry(content: Any, key: str, where: object) -> Any:
    """As `entry`, but None if the key is missing or `content` is None.

    Raises:
      InputError: neither a dictionary nor None.
    """
    content = bare(content)
    if content is None or (isinstance(content, dict) and key not in content):
        return None
    return entry(content, key, where)


def numbers(value: Any, shape: tuple[int | None, ...], name: str, where: object) -> np.ndarray:
    """The value as float64 with a checked shape; None in `shape` is any length.

    Raises:
      InputError: not numbers, or another shape.
    """
    try:
        array = np.asarray(bare(value), np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"{name} is not made of numbers ({error})"
        raise InputError(where, problem, _OFFICIAL) from error
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise InputError(where, f"{name} has shape {array.shape}", f"it must have shape ({wanted})")
    return array
