"""Tensors of PyTorch checkpoint files, read without PyTorch and without running code in the file.

A checkpoint is a pickle that names storages, and the raw storages. Every name in the pickle is
looked up in a fixed table. Names of known training libraries (yacs, omegaconf, Lightning, ...)
become inert objects that hold only their state. Any other name is refused before it is resolved.
A tensor is read when it is loaded, so that an optimiser state costs nothing.

Formats: the zip of PyTorch >= 1.6, and the older stream of pickles (torch/serialization.py
documents both layouts).
"""

import dataclasses
import io
import math
import mmap
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from smpl_jax import pickle_scan

from genhmr_jax.io.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MOST_AXES = 32
MOST_REPEATED = 1 << 20
"""Entries of a tensor that has more of them than its storage."""

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


class _Ordered(dict, metaclass=_Sealed):
    """collections.OrderedDict, whose attributes (`_metadata` of a state_dict) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes: one of them could replace `items`."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """The type of a storage, such as torch.FloatStorage: a dtype."""

    dtype: np.dtype

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a storage type")


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in the file `where`: `read()` returns all of them as a flat array."""

    where: pathlib.Path
    dtype: np.dtype
    count: int
    read: Callable[[], np.ndarray]

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a storage")


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: shape and dtype are known, and `load()` reads the numbers."""

    storage: Storage
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
        """Read the numbers, in their stored type.

        Raises:
          InputError: they are damaged, or missing since the file was opened.
        """
        try:
            flat = self.storage.read()
        except Exception as error:  # zipfile.BadZipFile (a checksum), OSError, ValueError, ...
            problem = f"has a damaged tensor ({error})"
            raise InputError(self.storage.where, problem, "download it again") from error
        strides = tuple(flat.itemsize * step for step in self.strides)
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )
        return view.copy()


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> LazyTensor:
    """`torch._utils._rebuild_tensor_v2`: a view of a storage, which must lie inside it."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    shape, strides = tuple(int(n) for n in shape), tuple(int(n) for n in strides)
    offset = int(offset)
    negative = offset < 0 or min((*shape, *strides), default=0) < 0
    if len(shape) != len(strides) or len(shape) > MOST_AXES or negative:
        raise pickle.UnpicklingError("a tensor whose shape or strides cannot be")
    # A stride of 0 repeats numbers: a small file must not describe a large tensor.
    if math.prod(shape) > max(storage.count, MOST_REPEATED):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} in {storage.count} numbers")
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
        raise pickle.UnpicklingError("it requests another codec than latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], type] = {
    ("torch._utils", "_rebuild_tensor_v2"): _sealed(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor"): _sealed(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _sealed(_first),
    ("torch", "Size"): _sealed(_size),
    ("torch", "device"): _sealed(_nothing),
    ("collections", "OrderedDict"): _Ordered,
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
    def __init__(self, file: BinaryIO, storage: Callable[..., Storage]):
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

    def persistent_load(self, identity: Any) -> Storage:
        kind, storage_type, key, *rest = identity
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError("it names a storage of unknown kind")
        count = int(rest[1])
        if count < 0:
            raise pickle.UnpicklingError(f"it names a storage of {count} numbers")
        return self._storage(storage_type.dtype, str(key), count)


def read(path: str | os.PathLike) -> Any:
    """The content of a checkpoint: dictionaries and lists with `LazyTensor` in them.

    Raises:
      InputError: no such file, no checkpoint of PyTorch, truncated, or a pickle that requests
        anything but weights and configs.
    """
    path = pathlib.Path(path)
    if not os.path.isfile(path):
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
        # PyTorch never compresses: what is read is no larger than the file.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise pickle.UnpicklingError("its archive is compressed")
        if len(pickles) != 1:
            raise pickle.UnpicklingError(
                "no data.pkl in the archive (TorchScript files hold code and are not read)"
            )
        folder = pickles[0].removesuffix("data.pkl")
        byteorder = f"{folder}byteorder"
        if byteorder in names and archive.read(byteorder) != b"little":
            raise pickle.UnpicklingError("it was written on a big-endian machine")

        def storage(dtype: np.dtype, key: str, count: int) -> Storage:
            member = f"{folder}data/{key}"
            if archive.getinfo(member).file_size < count * dtype.itemsize:
                raise pickle.UnpicklingError(f"{member} is shorter than its {count} numbers")

            def load() -> np.ndarray:
                with zipfile.ZipFile(path) as again:
                    return np.frombuffer(again.read(member), dtype, count)

            return Storage(path, dtype, count, load)

        content = archive.read(pickles[0])
        pickle_scan.check(content)
        return _Unpickler(io.BytesIO(content), storage).load()


def _read_legacy(path: pathlib.Path) -> Any:
    starts: dict[str, int] = {}  # key -> offset of its numbers in the file; follows the pickles

    def storage(dtype: np.dtype, key: str, count: int) -> Storage:
        def load() -> np.ndarray:
            return np.fromfile(path, dtype, count, offset=starts[key])

        found = Storage(path, dtype, count, load)
        named.setdefault(key, found)
        return found

    def no_storage(*_: object) -> Storage:
        raise pickle.UnpicklingError("an unexpected storage")

    named: dict[str, Storage] = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def load_next(find: Callable[..., Storage]) -> Any:
            start = file.tell()
            end = pickle_scan.check(data, start)
            file.seek(end)
            return _Unpickler(io.BytesIO(data[start:end]), find).load()

        # 1. The header: a magic number, the protocol, the writer's byte order and integer sizes.
        if load_next(no_storage) != LEGACY_MAGIC or load_next(no_storage) != LEGACY_PROTOCOL:
            raise pickle.UnpicklingError("neither a zip nor a stream of PyTorch")
        load_next(no_storage)
        # 2. The content, which names storages.
        content = load_next(storage)
        # 3. The storages: their keys, then for each one its count and its numbers.
        end = path.stat().st_size
        for key in load_next(no_storage):
            (count,) = np.frombuffer(file.read(8), "<i8")
            starts[str(key)] = file.tell()
            if (known := named.get(str(key))) is not None and (
                count != known.count or file.tell() + count * known.dtype.itemsize > end
            ):
                raise pickle.UnpicklingError(
                    f"storage {key} holds {count} numbers, not {known.count}, or is truncated"
                )
            if count < 0:
                raise pickle.UnpicklingError(f"storage {key} holds {count} numbers")
            file.seek(int(count) * (known.dtype.itemsize if known else 1), os.SEEK_CUR)
        if missing := set(named) - set(starts):
            raise pickle.UnpicklingError(f"storage {sorted(missing)[0]} is missing")
    return content


def tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
    """Every tensor in nested dictionaries, by its dotted name."""
    if isinstance(content, LazyTensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from tensors(value, f"{prefix}.{name}" if prefix else str(name))
