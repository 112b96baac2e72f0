"""Reading files of strangers: pickles, npz archives and tar shards. Nothing in them is ever run, and every fault names its file."""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from smpl_jax.safe_npz import read_npy
from smpl_jax.safe_pickle import UnsafePickle, load_data_pickle

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import is_leftover

_AGAIN = "download it again"


def read_pickle(source: str | Path | bytes, where: object = None) -> Any:
    """What a pickle holds: dictionaries, lists, text, numbers and numpy arrays, also those of Python 2 and of objects.

    Args:
      source: a file, or its bytes.
      where: the name in errors; default: the file.

    Raises:
      InputError: unreadable, or the pickle asks for anything but data: nothing in it was run.
    """
    where = where or ("pickle" if isinstance(source, bytes) else source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return bare(load_data_pickle(data))
    except OSError as error:
        raise InputError(where, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    except UnsafePickle as error:
        raise InputError(where, f"is not a data pickle: {error}", f"nothing in it was run; if it is broken, {_AGAIN}") from error


def read_npz(source: str | Path | bytes, keys: Sequence[str], optional: Sequence[str] = (), where: object = None) -> dict[str, np.ndarray]:
    """The arrays of an npz under `keys`, and those under `optional` that it has; arrays of objects hold plain data (see read_pickle).

    Raises:
      InputError: unreadable, half a file, a key is missing, or an object in it is not data.
    """
    where = where or ("npz" if isinstance(source, bytes) else source)
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [key for key in keys if key not in members]:
                raise InputError(
                    where,
                    f"has no {', '.join(missing)} (it has {', '.join(sorted(members)[:20])})",
                    "is this the file of the official release that the dataset's description names?",
                )
            wanted = [key for key in (*keys, *optional) if key in members]
            arrays = {}
            for key in wanted:
                with archive.open(members[key]) as file:
                    arrays[key] = read_npy(file, members[key].file_size)
            return arrays
    except UnsafePickle as error:
        raise InputError(where, f"is not plain data: {error}", f"nothing in it was run; if it is broken, {_AGAIN}") from error
    except InputError:
        raise  # it is a ValueError too, as is the one above
    except OSError as error:
        raise InputError(where, f"cannot be read ({error.strerror or error})", "check the path and its permissions") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise InputError(where, f"is not a whole npz ({error})", _AGAIN) from error
    except ValueError as error:
        raise InputError(where, f"has an array that cannot be read ({error})", _AGAIN) from error


def tar_samples(path: str | Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a WebDataset shard, in order: (key, {field: bytes}).

    Neighbouring files of one basename are a sample: "dir/a.b.jpg" has key "dir/a" and field "b.jpg". Compressed tars are read as well.

    Raises:
      InputError: not a tar, half of one, or an entry whose path or kind is not that of a plain file within the shard. What came before
        has been yielded then.
    """
    key, fields = "", {}
    for name, data in _tar_files(Path(path)):
        folder, _, base = name.rpartition("/")
        stem, _, field = base.partition(".")
        stem = f"{folder}/{stem}" if folder else stem
        if stem != key and fields:
            yield key, fields
            fields = {}
        key = stem
        if field in fields:
            raise InputError(f"{path}: {name}", "is there twice", _AGAIN)
        fields[field] = data
    if fields:
        yield key, fields


def _tar_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each plain file of a tar; the end of the tar must be there."""
    try:
        with tarfile.open(path, "r:*") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # else it remembers every entry of a shard of gigabytes
                if member.isdir():
                    continue
                name = PurePosixPath(member.name)
                if not member.isreg() or name.is_absolute() or ".." in name.parts:
                    raise InputError(f"{path}: {member.name}", "is no plain file inside the shard", "do not trust this tar")
                if any(map(is_leftover, name.parts)):
                    continue
                content = archive.extractfile(member).read()
                if len(content) != member.size:
                    raise EOFError(f"{member.name} ends early")
                yield str(name), content
            # tarfile takes a cut between two files for the end: a whole tar ends in blocks of zeros.
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("its end is missing")
            while archive.fileobj.read(1 << 20):  # gzip, bzip2 and xz compare their checksum when they have read all
                pass
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise InputError(path, f"is not a whole tar ({error})", f"it was perhaps downloaded by half: {_AGAIN}") from error


def bare(value: Any) -> Any:
    """The object that an array of objects without axes holds; anything else as it is.

    NumPy makes such an array of whatever is no array: `np.array({...})`, `np.savez(path, x={...})`.
    """
    while isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "O":
        value = value[()]
    return value


def entry(content: Any, key: str, where: object) -> Any:
    """content[key] of an untrusted dictionary, both made `bare`.

    Raises:
      InputError: not a dictionary, or no such key.
    """
    content = bare(content)
    if not isinstance(content, dict):
        raise InputError(where, f"holds a {type(content).__name__} instead of a dictionary", "is this the official release?")
    if key not in content:
        raise InputError(where, f"has no {key} (it has {', '.join(sorted(map(str, content))[:20])})", "is this the official release?")
    return bare(content[key])


def optional_entry(content: Any, key: str, where: object) -> Any:
    """As `entry`, but None if there is no such key, or if `content` itself is None.

    Raises:
      InputError: neither a dictionary nor None.
    """
    content = bare(content)
    if content is None or (isinstance(content, dict) and key not in content):
        return None
    return entry(content, key, where)


def numbers(value: Any, shape: tuple[int | None, ...], name: str, where: object) -> np.ndarray:
    """The value as float64, its shape checked; None in `shape` is any length.

    Raises:
      InputError: not numbers, or another shape.
    """
    try:
        array = np.asarray(bare(value), np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(where, f"{name} is not made of numbers ({error})", "is this the official release?") from error
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise InputError(where, f"{name} has shape {array.shape}", f"it must have shape ({wanted})")
    return array
