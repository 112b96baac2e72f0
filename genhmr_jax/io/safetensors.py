"""Tensors of .safetensors files.

The format is a header length, a JSON header, and the numbers
(https://github.com/huggingface/safetensors).
"""

import json
import math
import os
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.torch_files import MOST_AXES, LazyTensor, Storage

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(path: str | os.PathLike) -> dict[str, LazyTensor]:
    """The tensors of a .safetensors file by name.

    Raises:
      InputError: no such file, not this format, or truncated.
    """
    path, remedy = pathlib.Path(path), "download it again"
    if not os.path.isfile(path):
        raise InputError(path, "no such file", "give the .safetensors file as it was published")
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise InputError(path, "is no safetensors file", remedy)
        try:
            header = {
                name: value
                for name, value in json.loads(file.read(length)).items()
                if name != "__metadata__"
            }
            found = {name: _safetensor(path, 8 + length, entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problem = str(error) if len(str(error)) < 200 else type(error).__name__
            raise InputError(path, f"is no safetensors file ({problem})", remedy) from error
    if 8 + length + max((value["data_offsets"][1] for value in header.values()), default=0) > size:
        raise InputError(path, "is truncated", remedy)
    return found


def _safetensor(path: pathlib.Path, start: int, entry: Any) -> LazyTensor:
    """The tensor of an entry of the header.

    Args:
      path: the file.
      start: of the numbers in the file.
      entry: of untrusted JSON: it can be anything.

    Raises:
      ValueError, KeyError, TypeError: it does not describe a tensor.
    """
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    shape, place = entry["shape"], entry["data_offsets"]
    # JSON has other numbers too, and a list times a number would be a long list.
    whole = isinstance(shape, list) and isinstance(place, list) and len(place) == 2
    if not whole or any(type(n) is not int or n < 0 for n in (*shape, *place)):
        raise ValueError("a shape or a place that is not one of whole numbers")
    if len(shape) > MOST_AXES or max(shape, default=0) > 1 << 48:
        raise ValueError("a tensor of too many axes or numbers")
    count = math.prod(shape)
    if place[1] - place[0] != count * dtype.itemsize:
        raise ValueError(f"a tensor of shape {tuple(shape)} in {place[1] - place[0]} bytes")
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    read = lambda: np.fromfile(path, dtype, count, offset=start + place[0])
    return LazyTensor(Storage(path, dtype, count, read), 0, tuple(shape), strides)
