"""Tensors of PyTorch checkpoint files, read without PyTorch and without running code in the file.

A checkpoint is a pickle that names storages, and the raw storages. Every name in the pickle is
looked up in a fixed table. Names of known training libraries (yacs, omegaconf, Lightning, ...)
become inert objects that hold only their state. Any other name is refused before it is resolved.
A tensor is read when it is loaded, so that an optimiser state costs nothing.

Formats: the zip of PyTorch >= 1.6, and the older stream of pickles (torch/serialization.py
documents both layouts).
"""

import collections
import dataclasses
import io
import json
import math
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from genhmr_jax.io.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Modules whose objects (configs, paths, schedules) training checkpoints hold in addition to the
# weights. They become Inert.
INERT_MODULES = {
    *("argparse", "collections", "lightning", "lightning_fabric", "numpy"),
    *("omegaconf", "pathlib", "pytorch_lightning", "typing", "yacs"),
}


class _Sealed(type):
    """A class that a pickle cannot change.

    The BUILD opcode can set attributes on any object of the unpickler's stack, including classes.
    """

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"it tries to change {cls.__name__}.{name}")


class Inert(dict, metaclass=_Sealed):
    """An object of a library that is not installed: its attributes as a dictionary, and `state`."""

    def __init__(self, *args: object) -> None:
        super().__init__()
        object.__setattr__(self, "state", args or None)

    def __setstate__(self, state: object) -> None:
        object.__setattr__(self, "state", state)
        if isinstance(state, dict):
            self.update(state)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"it tries to set {name}")

    def __reduce__(self) -> tuple:
        raise pickle.PicklingError("an inert object is not written again")

    def __hash__(self) -> int:  # some are keys of dictionaries
        return id(self)

    def append(self, item: object) -> None:
        """Drop an item: the object may have been a list."""

    def extend(self, items: object) -> None:
        """Drop several items."""

    add = append


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """The type of a storage, such as torch.FloatStorage: a dtype."""

    dtype: np.dtype

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a storage type")


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers in the file: `read()` returns all of them as a flat array."""

    dtype: np.dtype
    count: int
    read: Callable[[], np.ndarray]

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a storage")


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: shape and dtype are known, and `load()` reads the numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes of a parameter."""

    @property
    def dtype(self) -> np.dtype:
        """The type of the stored numbers."""
        return self.storage.dtype

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    def load(self) -> np.ndarray:
        """Read the numbers, in their stored type."""
        flat = self.storage.read()
        strides = tuple(flat.itemsize * step for step in self.strides)
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )
        return view.copy()


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> LazyTensor:
    """`torch._utils._rebuild_tensor_v2`: a view of a storage, which must lie inside it."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    shape, strides = tuple(int(n) for n in shape), tuple(int(n) for n in strides)
    offset = int(offset)
    if len(shape) != len(strides) or offset < 0 or min((*shape, *strides), default=0) < 0:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} with strides {strides}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
    if math.prod(shape) and last > storage.count:
        raise pickle.UnpicklingError(
            f"a tensor of shape {shape} that is larger than its storage of {storage.count}"
        )
    return LazyTensor(storage, offset, shape, strides)


def _sealed(function: Callable[..., Any]) -> type:
    """Wrap a function in a class that a pickle can call but cannot change."""

    def new(_: type, *args: object) -> Any:
        return function(*args)

    return _Sealed(function.__name__, (), {"__new__": new})


def _first(data: object, *_: object) -> object:
    return data


def _nothing(*_: object) -> None:
    """Stand-in for torch.device, which is not needed."""


def _size(items: object = ()) -> tuple:
    return tuple(items)


def _latin_bytes(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`, with which old pickle protocols store bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it requests the codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], type] = {
    ("torch._utils", "_rebuild_tensor_v2"): _sealed(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor"): _sealed(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _sealed(_first),
    ("torch", "Size"): _sealed(_size),
    ("torch", "device"): _sealed(_nothing),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _sealed(_latin_bytes),
}
# Builtin names in pickles; those that only describe a type become Inert.
_BUILTINS: dict[str, type] = {
    "set": set,
    "frozenset": frozenset,
    **{name: Inert for name in ("dict", "int", "list", "object", "str", "tuple")},
}
_TORCH_DTYPES = {
    *("bfloat16", "bool", "float16", "float32", "float64"),
    *("int16", "int32", "int64", "int8", "uint8"),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storage: Callable[..., _Storage]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and name in DTYPES:
            return _StorageType(DTYPES[name])
        if module == "torch" and name in _TORCH_DTYPES:
            return Inert
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if module.split(".")[0] in INERT_MODULES:
            return Inert
        raise pickle.UnpicklingError(
            f"it requests {module}.{name}, which no checkpoint of weights needs"
        )

    def persistent_load(self, identity: Any) -> _Storage:
        kind, storage_type, key, *rest = identity
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"it names a storage of unknown kind {kind!r}")
        return self._storage(storage_type.dtype, str(key), int(rest[1]))


def read(path: str | os.PathLike) -> Any:
    """The content of a checkpoint: dictionaries and lists with `LazyTensor` in them.

    Raises:
      InputError: no such file, no checkpoint of PyTorch, truncated, or a pickle that requests
        anything but weights and configs.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "give the .ckpt or .pth file as it was published")
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except InputError:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        problem = f"refused, or not a PyTorch checkpoint ({type(error).__name__}: {error})"
        remedy = "download it again from its authors; files with more than weights are refused"
        raise InputError(path, problem, remedy) from error


def _read_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise pickle.UnpicklingError(
                "no data.pkl in the archive (TorchScript files hold code and are not read)"
            )
        folder = pickles[0].removesuffix("data.pkl")
        byteorder = f"{folder}byteorder"
        if byteorder in names and archive.read(byteorder) != b"little":
            raise pickle.UnpicklingError("it was written on a big-endian machine")

        def storage(dtype: np.dtype, key: str, count: int) -> _Storage:
            member = f"{folder}data/{key}"
            if archive.getinfo(member).file_size < count * dtype.itemsize:
                raise pickle.UnpicklingError(f"{member} is shorter than its {count} numbers")

            def load() -> np.ndarray:
                with zipfile.ZipFile(path) as again:
                    return np.frombuffer(again.read(member), dtype, count)

            return _Storage(dtype, count, load)

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _read_legacy(path: pathlib.Path) -> Any:
    starts: dict[str, int] = {}  # key -> offset of its numbers in the file; follows the pickles

    def storage(dtype: np.dtype, key: str, count: int) -> _Storage:
        def load() -> np.ndarray:
            return np.fromfile(path, dtype, count, offset=starts[key])

        found = _Storage(dtype, count, load)
        named.setdefault(key, found)
        return found

    def no_storage(*_: object) -> _Storage:
        raise pickle.UnpicklingError("an unexpected storage")

    named: dict[str, _Storage] = {}
    with open(path, "rb") as file:
        # 1. The header: a magic number, the protocol, the writer's byte order and integer sizes.
        if (
            _Unpickler(file, no_storage).load() != LEGACY_MAGIC
            or _Unpickler(file, no_storage).load() != LEGACY_PROTOCOL
        ):
            raise pickle.UnpicklingError("neither a zip nor a stream of PyTorch")
        _Unpickler(file, no_storage).load()
        # 2. The content, which names storages.
        content = _Unpickler(file, storage).load()
        # 3. The storages: their keys, then for each one its count and its numbers.
        end = path.stat().st_size
        for key in _Unpickler(file, no_storage).load():
            (count,) = np.frombuffer(file.read(8), "<i8")
            starts[str(key)] = file.tell()
            if (known := named.get(str(key))) is not None and (
                count != known.count or file.tell() + count * known.dtype.itemsize > end
            ):
                raise pickle.UnpicklingError(
                    f"storage {key} holds {count} numbers, not {known.count}, or is truncated"
                )
            file.seek(count * (known.dtype.itemsize if known else 1), os.SEEK_CUR)
        if missing := set(named) - set(starts):
            raise pickle.UnpicklingError(f"storage {sorted(missing)[0]} is missing")
    return content


_SAFETENSORS = {
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

    The format is a header length, a JSON header, and the numbers
    (https://github.com/huggingface/safetensors).

    Raises:
      InputError: no such file, not this format, or truncated.
    """
    path, remedy = pathlib.Path(path), "download it again"
    if not path.is_file():
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
            found = {}
            for name, entry in header.items():
                dtype = np.dtype(_SAFETENSORS[entry["dtype"]])
                shape = tuple(entry["shape"])
                start, stop = entry["data_offsets"]
                fits = stop - start == math.prod(shape) * dtype.itemsize
                if min(shape, default=0) < 0 or start < 0 or not fits:
                    raise ValueError(f"{name} of shape {shape} in {stop - start} bytes")
                found[name] = _safetensor(path, dtype, shape, 8 + length + start)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(path, f"is no safetensors file ({error})", remedy) from error
    if size < 8 + length + max((value["data_offsets"][1] for value in header.values()), default=0):
        raise InputError(path, "is truncated", remedy)
    return found


def _safetensor(path: pathlib.Path, dtype: np.dtype, shape: tuple[int, ...], at: int) -> LazyTensor:
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    count = math.prod(shape)
    storage = _Storage(dtype, count, lambda: np.fromfile(path, dtype, count, offset=at))
    return LazyTensor(storage, 0, shape, strides)


def tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
    """Every tensor in nested dictionaries, by its dotted name."""
    if isinstance(content, LazyTensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from tensors(value, f"{prefix}.{name}" if prefix else str(name))
