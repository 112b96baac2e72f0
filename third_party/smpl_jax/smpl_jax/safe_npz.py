"""Reads the arrays of an .npz without running anything that is in it.

Arrays of objects go through the unpickler of safe_pickle.
"""

from typing import IO

import numpy as np

from smpl_jax.safe_pickle import load_data_pickle

LARGEST_ARRAY = 16 * 2**30  # bytes; what a header claims is checked before memory is taken


def read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """The array of one .npy of `size` bytes; entries of an array of objects are plain data.

    NumPy wraps whatever is no array, such as a sparse matrix of scipy, into an array of one object
    without axes: where that object is an array here (a sparse matrix comes back dense), it is
    returned itself.

    Raises:
      UnsafePickle: an object that is not plain data.
      ValueError: no .npy, or a header that does not fit the bytes.
      EOFError: it ends early.
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
    except Exception as error:  # it parses the header as Python, which can raise nearly anything
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
        raise ValueError(f"objects that are not of shape {shape}, as it says")
    if shape == () and isinstance(content[()], np.ndarray):
        return content[()]
    return content
