"""Writes PyTorch checkpoints without PyTorch: what torch.save writes, in both of its formats, from
NumPy arrays.

The layouts were compared with files of torch 2.13 (same opcodes of the same names; both are read
alike).
"""

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype("<f4"): "FloatStorage",
    np.dtype("<f2"): "HalfStorage",
    np.dtype("<f8"): "DoubleStorage",
    np.dtype("<i8"): "LongStorage",
    np.dtype("?"): "BoolStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
}


class _Numbers:
    """A storage on its way into a file."""

    def __init__(self, array: np.ndarray):
        self.array = np.ascontiguousarray(array)


def fake(module: str, name: str, base: type = object) -> type:
    """A class that pickles as module.name; `modules` must be in place while it is written."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


def _function(module: str, name: str) -> Any:
    made = types.FunctionType((lambda *_: None).__code__, {}, name)
    made.__module__, made.__qualname__ = module, name
    return made


TORCH = [fake("torch", name) for name in STORAGES.values()] + [
    _function("torch._utils", "_rebuild_tensor_v2"),
    _function("torch._utils", "_rebuild_parameter"),
]
_BY_NAME = {thing.__name__: thing for thing in TORCH}


@contextlib.contextmanager
def modules(*things: Any) -> Iterator[None]:
    """Puts classes and functions where their __module__ says, for as long as a pickle is written:
    the real libraries may not be here."""
    names = {
        ".".join(t.__module__.split(".")[: i + 1])
        for t in things
        for i in range(t.__module__.count(".") + 1)
    }
    before = {name: sys.modules.get(name) for name in names}
    try:
        for name in sorted(names):
            sys.modules[name] = types.ModuleType(name)
        for thing in things:
            setattr(sys.modules[thing.__module__], thing.__name__, thing)
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, legacy: bool):
        super().__init__(file, protocol=2)
        self.storages: list[np.ndarray] = []
        self._legacy = legacy

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, np.ndarray):
            strides = tuple(step // thing.itemsize for step in np.ascontiguousarray(thing).strides)
            arguments = (
                _Numbers(thing),
                0,
                thing.shape,
                strides if thing.ndim else (),
                False,
                collections.OrderedDict(),
            )
            return _BY_NAME["_rebuild_tensor_v2"], arguments
        return NotImplemented

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, _Numbers):
            return None
        self.storages.append(thing.array)
        kind = _BY_NAME[STORAGES[thing.array.dtype]]
        return (
            "storage",
            kind,
            str(len(self.storages) - 1),
            "cpu",
            thing.array.size,
            *([None] if self._legacy else []),
        )


def save(path: Path, content: Any, *libraries: type, legacy: bool = False) -> Path:
    """torch.save(content, path): NumPy arrays become tensors, a list [array] with `parameter` stays
    one.

    Args:
      libraries: classes of absent libraries that lie in the content (made by `fake`).
      legacy: the stream of pickles from before PyTorch 1.6.
    """
    with modules(*TORCH, *libraries):
        stream = io.BytesIO()
        pickler = _Pickler(stream, legacy)
        pickler.dump(content)
        if not legacy:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", stream.getvalue())
                archive.writestr("archive/byteorder", b"little")
                for key, array in enumerate(pickler.storages):
                    archive.writestr(f"archive/data/{key}", array.tobytes())
                archive.writestr("archive/version", b"3\n")
            return path
    head = [
        0x1950A86A20F9469CFC6C,
        1001,
        {
            "protocol_version": 1001,
            "little_endian": True,
            "type_sizes": {"short": 2, "int": 4, "long": 4},
        },
    ]
    with open(path, "wb") as file:
        for part in head:
            pickle.dump(part, file, protocol=2)
        file.write(stream.getvalue())
        pickle.dump([str(key) for key in range(len(pickler.storages))], file, protocol=2)
        for array in pickler.storages:
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


def save_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """The safetensors format: the length of a JSON header, the header, the numbers."""
    import json

    names = {
        np.dtype("<f4"): "F32",
        np.dtype("<f2"): "F16",
        np.dtype(ml_dtypes.bfloat16): "BF16",
        np.dtype("<i8"): "I64",
    }
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(text))
        + text
        + b"".join(np.ascontiguousarray(a).tobytes() for a in tensors.values())
    )
    return path
