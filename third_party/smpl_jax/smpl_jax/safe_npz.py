"""Arrays of an .npz file, read without running code in the file.

Arrays of objects are read by the unpickler of safe_pickle. A compressed file can hold a thousand
times its size, and a header can declare any shape: both are checked before memory is allocated.
"""

import io
import os
import zipfile
from collections.abc import Container
from typing import IO

import numpy as np

from smpl_jax.safe_pickle import UnsafePickle, load_data_pickle

LARGEST_ARRAY = 16 * 2**30  # bytes; the size in a header is checked before memory is allocated
ALLOWANCE = 1 << 28
"""Bytes that the arrays of an archive may have, however small the archive is."""
RATIO = 200
"""Further bytes for each byte of the archive. Deflate reaches 1030, masks of people about 100."""
OBJECTS = 1 << 21
"""Objects that an array may hold; one more for each byte of the archive."""
_LONGEST_HEADER = 1 << 20


def load_npz(
    source: str | os.PathLike | IO[bytes], keys: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz by name.

    Args:
      source: a path, or a file that is open for reading.
      keys: the names to read; None: all of them.

    Raises:
      OSError: the file cannot be read.
      UnsafePickle: an object that is not plain data.
      ValueError: no .npz, damaged, or one of the limits above is exceeded.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = npz_members(archive)
            names = [name for name in members if keys is None or name in keys]
            return {name: read_member(archive, members[name]) for name in names}
    except UnsafePickle:
        raise
    except Exception as error:  # a damaged archive raises zlib.error, EOFError, even OSError
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(str(error) or type(error).__name__) from error


def npz_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by the names of their arrays.

    Raises:
      ValueError: their sizes exceed the limits above, or a compression that NumPy does not write.
    """
    members = archive.infolist()
    limit = ALLOWANCE + RATIO * _size(archive)
    if (total := sum(member.file_size for member in members)) > limit:
        raise ValueError(f"it would have {total} bytes, more than {limit} for a file of its size")
    known = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    if any(member.compress_type not in known for member in members):
        raise ValueError("it is compressed in a way that NumPy does not use")
    return {member.filename.removesuffix(".npy"): member for member in members}


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The array of one of `npz_members`. Raises as `read_npy`, and zipfile's and zlib's errors."""
    with archive.open(member) as file:
        return read_npy(file, member.file_size, OBJECTS + _size(archive))


def _size(archive: zipfile.ZipFile) -> int:
    """Bytes of the file of an archive."""
    place = archive.fp.tell()
    size = archive.fp.seek(0, os.SEEK_END)
    archive.fp.seek(place)
    return size


def read_npy(file: IO[bytes], size: int, most: int | None = None) -> np.ndarray:
    """Read the array of one .npy of `size` bytes; entries of an array of objects are plain data.

    NumPy wraps an object that is no array, such as a sparse matrix of scipy, into an array of one
    object without axes. If that object is an array after unpickling (a sparse matrix becomes
    dense), it is returned itself.

    Args:
      file: the .npy.
      size: its bytes.
      most: objects that an array of objects may hold; None: any number.

    Raises:
      UnsafePickle: an object that is not plain data.
      ValueError: no .npy, or a header that does not fit the bytes.
      EOFError: the file is truncated.
    """
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): (2, np.lib.format.read_array_header_1_0),
        (2, 0): (4, np.lib.format.read_array_header_2_0),
    }
    if version not in readers:
        raise ValueError(f"npy version {version}")
    width, read_header = readers[version]
    length = file.read(width)
    if int.from_bytes(length, "little") > _LONGEST_HEADER:
        raise ValueError("npy header: far too long")
    header = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
    try:
        shape, fortran, dtype = read_header(header)
    except Exception as error:  # the header is parsed as Python, which can raise nearly anything
        problem = str(error) if len(str(error)) < 200 else type(error).__name__
        raise ValueError(f"npy header: {problem}") from error
    if dtype.hasobject:
        return _objects(file.read(), shape, dtype, most)
    if min(shape, default=0) < 0 or len(shape) > 32:
        raise ValueError("npy header: no such shape")
    count = 1
    for length in shape:
        count *= int(length)
    if count * dtype.itemsize > min(size, LARGEST_ARRAY):
        raise ValueError(f"an array of shape {shape} in {size} bytes")
    raw = file.read(count * dtype.itemsize)
    if len(raw) != count * dtype.itemsize:
        raise EOFError("an array ends early")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _objects(
    pickled: bytes, shape: tuple[int, ...], dtype: np.dtype, most: int | None
) -> np.ndarray:
    if dtype.kind != "O":
        raise ValueError("an array of records with objects")
    content = load_data_pickle(pickled, most)
    if not isinstance(content, np.ndarray) or content.shape != shape:
        raise ValueError(f"objects that are not of the shape {shape} of its header")
    if shape == () and isinstance(content[()], np.ndarray):
        return content[()]
    return content
