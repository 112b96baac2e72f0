"""Reads the tensors out of PyTorch's checkpoint files without PyTorch, and without running anything that is in them.

A checkpoint is a pickle that names storages, and the raw storages. Here every name in the pickle is looked up in a fixed table; names of
known training libraries (yacs, omegaconf, Lightning, ...) become dead objects that keep nothing but their state; any other name is refused
before it is touched. Tensors are read when they are asked for: an optimiser state costs nothing.

Formats: the zip of PyTorch >= 1.6, and the stream of pickles before it (torch/serialization.py says how both are laid out).
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
# Modules whose objects lie in training checkpoints beside the weights: configs, paths, schedules. They are carried along dead.
CARRIED = {
    "argparse",
    "collections",
    "lightning",
    "lightning_fabric",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "typing",
    "yacs",
}


class _Sealed(type):
    """A class that a pickle cannot change: the BUILD opcode may set attributes on anything it has in hand, classes included."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"it tries to change {cls.__name__}.{name}")


class Dead(dict, metaclass=_Sealed):
    """An object of a library that is not here: what it would have held as a dictionary, and its `state`. It does nothing."""

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
        raise pickle.PicklingError("a dead object is not written again")

    def __hash__(self) -> int:  # some are keys of dictionaries
        return id(self)

    def append(self, item: object) -> None:
        """Items of a list that the object would have been are dropped."""

    def extend(self, items: object) -> None:
        """The same, several at a time."""

    add = append


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """torch.FloatStorage and its kin: names a dtype."""

    dtype: np.dtype

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a storage type")


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers in the file: `read()` gives them all, flat."""

    dtype: np.dtype
    count: int
    read: Callable[[], np.ndarray]

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a storage")


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: shape and dtype are known, `load()` reads it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """A parameter's own attributes are of no use."""

    @property
    def dtype(self) -> np.dtype:
        """As stored."""
        return self.storage.dtype

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    def load(self) -> np.ndarray:
        """The numbers, in their own type. Raises InputError when the file is cut off."""
        flat = self.storage.read()
        itemsize = flat.itemsize
        strides = tuple(itemsize * step for step in self.strides)
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False).copy()


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> LazyTensor:
    """`torch._utils._rebuild_tensor_v2`: a view of a storage, which must lie inside it."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    shape, strides = tuple(int(n) for n in shape), tuple(int(n) for n in strides)
    offset = int(offset)
    if len(shape) != len(strides) or offset < 0 or min((*shape, *strides), default=0) < 0:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} with strides {strides}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
    if math.prod(shape) and last > storage.count:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} that is larger than its storage of {storage.count}")
    return LazyTensor(storage, offset, shape, strides)


def _sealed(function: Callable[..., Any]) -> type:
    """A function as a class that a pickle can call, and cannot change."""

    def new(_: type, *args: object) -> Any:
        return function(*args)

    return _Sealed(function.__name__, (), {"__new__": new})


def _first(data: object, *_: object) -> object:
    return data


def _nothing(*_: object) -> None:
    """Devices of torch: of no use here."""


def _size(items: object = ()) -> tuple:
    return tuple(items)


def _latin_bytes(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`: how bytes are written into old pickle protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
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
# Plain containers that pickles name; what only carries types along is dead.
_BUILTINS: dict[str, type] = {
    "set": set,
    "frozenset": frozenset,
    **{name: Dead for name in ("dict", "int", "list", "object", "str", "tuple")},
}
_TORCH_DTYPES = {"bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8"}


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
            return Dead
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if module.split(".")[0] in CARRIED:
            return Dead
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no checkpoint of weights needs")

    def persistent_load(self, identity: Any) -> _Storage:
        kind, storage_type, key, *rest = identity
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"it names a storage of unknown kind {kind!r}")
        return self._storage(storage_type.dtype, str(key), int(rest[1]))


def read(path: str | os.PathLike) -> Any:
    """What `torch.save` wrote: dictionaries and lists with `LazyTensor` in them.

    Raises:
      InputError: no such file, no checkpoint of PyTorch, cut off, or a pickle that asks for anything but weights and configs.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "give the .ckpt or .pth file as it was published")
    remedy = "download it again from its authors; a file that asks for more than weights is not opened"
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except InputError:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InputError(path, f"refused, or not a PyTorch checkpoint ({type(error).__name__}: {error})", remedy) from error


def _read_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("no data.pkl in the archive (TorchScript files hold code and are not read)")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
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
    places: dict[str, int] = {}  # key -> where its numbers start; known only after the pickle

    def storage(dtype: np.dtype, key: str, count: int) -> _Storage:
        def load() -> np.ndarray:
            return np.fromfile(path, dtype, count, offset=places[key])

        found = _Storage(dtype, count, load)
        named.setdefault(key, found)
        return found

    def plain(*_: object) -> _Storage:
        raise pickle.UnpicklingError("a storage where none belongs")

    named: dict[str, _Storage] = {}
    with open(path, "rb") as file:
        if _Unpickler(file, plain).load() != LEGACY_MAGIC or _Unpickler(file, plain).load() != LEGACY_PROTOCOL:
            raise pickle.UnpicklingError("neither a zip nor a stream of PyTorch's")
        _Unpickler(file, plain).load()  # the writer's byte order and sizes of integers
        content = _Unpickler(file, storage).load()
        end = path.stat().st_size
        for key in _Unpickler(file, plain).load():
            (count,) = np.frombuffer(file.read(8), "<i8")
            places[str(key)] = file.tell()
            if (known := named.get(str(key))) is not None and (count != known.count or file.tell() + count * known.dtype.itemsize > end):
                raise pickle.UnpicklingError(f"storage {key} holds {count} numbers, not {known.count}, or is cut off")
            file.seek(count * (known.dtype.itemsize if known else 1), os.SEEK_CUR)
        if missing := set(named) - set(places):
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
    """The tensors of a .safetensors file by name (https://github.com/huggingface/safetensors: header length, JSON header, numbers).

    Raises:
      InputError: no such file, not this format, or cut off.
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
            header = {name: value for name, value in json.loads(file.read(length)).items() if name != "__metadata__"}
            found = {}
            for name, entry in header.items():
                dtype, shape, (start, stop) = np.dtype(_SAFETENSORS[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
                if min(shape, default=0) < 0 or stop - start != math.prod(shape) * dtype.itemsize or start < 0:
                    raise ValueError(f"{name} of shape {shape} in {stop - start} bytes")
                found[name] = _safetensor(path, dtype, shape, 8 + length + start)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(path, f"is no safetensors file ({error})", remedy) from error
    if size < 8 + length + max((value["data_offsets"][1] for value in header.values()), default=0):
        raise InputError(path, "is cut off", remedy)
    return found


def _safetensor(path: pathlib.Path, dtype: np.dtype, shape: tuple[int, ...], at: int) -> LazyTensor:
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    count = math.prod(shape)
    return LazyTensor(_Storage(dtype, count, lambda: np.fromfile(path, dtype, count, offset=at)), 0, shape, strides)


def tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
    """Every tensor in nested dictionaries, by its dotted name."""
    if isinstance(content, LazyTensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from tensors(value, f"{prefix}.{name}" if prefix else str(name))
