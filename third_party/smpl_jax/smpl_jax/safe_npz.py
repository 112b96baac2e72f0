"""Arrays of an .npz file, read without running code in the file.

Arrays of objects are read by the unpickler of safe_pickle.
"""

from typing import IO

import numpy as np

from smpl_jax.safe_pickle import load_data_pickle

LARGEST_ARRAY = 16 * 2**30  # bytes; the size in a header is checked before memory is allocated


def read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Read the array of one .npy of `size` bytes; entries of an array of objects are plain data.

    NumPy wraps an object that is no array, such as a sparse matrix of scipy, into an array of one
    object without axes. If that object is an array after unpickling (a sparse matrix becomes
    dense), it is returned itself.

    Raises:
      UnsafePickle: an object that is not plain data.
      ValueError: no .npy, or a header that does not fit the bytes.
      EOFError: the file is truncated.
    """
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in header:
        raise ValueError(f"npy version {version}")
    try:
        shape, fortran, dtype = header[version](file)
    except Exception as error:  # the header is parsed as Python, which can raise nearly anything
        raise ValueError(f"npy header: {error}") from error
    if dtype.hasobject:
        return _objects(file.read(), shape, dtype)
    count = 1
    for length in shape:
        count *= int(length)
    if count * dtype.itemsize > min(size, LARGEST_ARRAY):
        raise ValueError(f"an array of shape {shape} in {size} bytes")
    raw = file.read(count * dtype.itemsize)
    if len(raw) != count * dtype.itemsize:
        raise EOFError("an array ends early")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _objects(pickled: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind != "O":
        raise ValueError("an array of records with objects")
    content = load_data_pickle(pickled)
    if not isinstance(content, np.ndarray) or content.shape != shape:
        raise ValueError(f"objects that are not of the shape {shape} of its header")
    if shape == () and isinstance(content[()], np.ndarray):
        return content[()]
    return content
