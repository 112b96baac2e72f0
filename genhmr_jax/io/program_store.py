"""Traced programs on disk, so that the second call of a command traces and lowers nothing.

jax's persistent cache holds the result of XLA, but its key is the lowered program: Python traces
and lowers every function again in each process, which takes longer than to read the result. Here
a function is exported on its first call (`jax.export`, StableHLO). Later processes read the export.

An entry depends on everything that the program depends on: the source files of the package, the
versions of jax and jaxlib, the platform, the settings of jax, the static arguments, and the shapes
and types of the arrays. It begins with its own SHA-256 hash, because XLA's parser can crash on a
damaged program. A missing, damaged or foreign entry costs as much as no store.
"""

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genhmr_jax.io.atomic import atomic_path

UNUSED_DAYS = 30
"""An entry that was not read for this long is deleted when another one is written."""
LARGE = 2**20
"""Bytes. Larger files of the package are model weights: arguments, not parts, of a program."""

_directory: Path | None = None


def use(directory: Path | None) -> None:
    """Store programs in a directory that can be written to; None: store nothing."""
    global _directory
    _directory = directory


def stored(*static: str) -> Callable[[Callable], Callable]:
    """Decorate a pure function: `jax.jit`, and its traced programs are stored.

    Arguments are positional. Everything else is as with jax.jit: inside of another traced function,
    with arrays on several devices, or without a store, it is jax.jit.

    Args:
      static: names of the static arguments, which come last or first. Their `repr` must describe
        them completely.
    """

    def decorate(function: Callable) -> Callable:
        return functools.wraps(function)(_Stored(function, static))

    return decorate


def stored_output(kind: type) -> type:
    """Decorate a registered dataclass of arrays only: stored programs can return it."""
    jax.export.register_pytree_node_serialization(
        kind,
        serialized_name=f"{kind.__module__}.{kind.__qualname__}",
        serialize_auxdata=lambda fixed: b"",
        deserialize_auxdata=lambda content: (),
    )
    return kind


class _Stored:
    """A function with its stored programs."""

    def __init__(self, function: Callable, static: tuple[str, ...]) -> None:
        self.jitted = jax.jit(function, static_argnames=static)
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.static = tuple(names.index(name) for name in static)
        self.name = f"{function.__module__}.{function.__qualname__}".removeprefix("genhmr_jax.")
        self.programs: dict[Any, Callable] = {}

    def __call__(self, *args: Any) -> Any:
        if _directory is None:
            return self.jitted(*args)
        fixed = tuple(args[i] for i in self.static)
        arrays = [value for i, value in enumerate(args) if i not in self.static]
        leaves, tree = jax.tree.flatten(arrays)
        if not all(map(_on_one_device, leaves)):
            return self.jitted(*args)
        key = (_directory, fixed, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self.programs:
            self.programs[key] = self._program(fixed, tree, leaves) or self._flat(fixed, tree)
        return self.programs[key](*leaves)

    def _flat(self, fixed: tuple, tree: Any) -> Callable:
        """The function of the leaves of its arrays."""

        def flat(*leaves: jax.Array) -> Any:
            args = jax.tree.unflatten(tree, leaves)
            for i, value in sorted(zip(self.static, fixed, strict=True)):
                args.insert(i, value)
            return self.jitted(*args)

        return jax.jit(flat)

    def _program(self, fixed: tuple, tree: Any, leaves: Sequence[Any]) -> Callable | None:
        """The stored program, made if it is missing; None if it cannot be exported."""
        described = repr(fixed)
        if " at 0x" in described:  # the repr of an object, which is another one in each process
            return None
        shapes = [f"{leaf.dtype}{leaf.shape}" for leaf in leaves]
        entry = _entry(self.name, described, str(tree), *shapes)
        # jax.export raises many types, for example if the program calls a kernel (cuDNN's) whose
        # interface may change between versions of jaxlib.
        with contextlib.suppress(Exception):
            if (content := read(entry)) is not None:
                return jax.jit(jax.export.deserialize(bytearray(content)).call)
        with contextlib.suppress(Exception):
            exported = jax.export.export(self._flat(fixed, tree))(*leaves)
            write(entry, exported.serialize())
            # The program of the entry and not the traced one: XLA's cache holds the result for it.
            return jax.jit(exported.call)
        return None


def _on_one_device(leaf: Any) -> bool:
    """Whether an array is concrete, and on the host or on one device."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return True
    return not isinstance(leaf, jax.core.Tracer) and len(leaf.sharding.device_set) == 1


def remembered_shapes(name: str, spec: object, compute: Callable[[], Any]) -> Any:
    """The shapes of a network's parameters: nested dictionaries of ShapeDtypeStruct.

    Args:
      name: of the network.
      spec: the sizes of the network; its `repr` must describe it completely.
      compute: traces the initialisation of the network, which takes seconds.
    """
    entry = None if _directory is None else _entry(name, repr(spec))
    if entry is not None:
        with contextlib.suppress(Exception):
            if (content := read(entry)) is not None:
                return _nested(json.loads(content))
    shapes = compute()
    if entry is not None:
        leaves = jax.tree_util.tree_leaves_with_path(shapes)
        rows = [([key.key for key in path], leaf.shape, str(leaf.dtype)) for path, leaf in leaves]
        write(entry, json.dumps(rows).encode())
    return shapes


def _nested(rows: Sequence[tuple[list[str], list[int], str]]) -> dict[str, Any]:
    """Nested dictionaries of (path, shape, type)."""
    result: dict[str, Any] = {}
    for (*above, last), shape, dtype in rows:
        inside = functools.reduce(lambda tree, name: tree.setdefault(name, {}), above, result)
        inside[last] = jax.ShapeDtypeStruct(tuple(shape), dtype)
    return result


def read(entry: Path) -> bytes | None:
    """The content of an entry; None if it is missing or damaged."""
    try:
        content = entry.read_bytes()
        os.utime(entry)
    except OSError:
        return None
    digest, content = content[:32], content[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def write(entry: Path, content: bytes | bytearray) -> None:
    """Write an entry, if that is possible, and delete the entries that nobody reads any more."""
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(entry) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        limit = time.time() - UNUSED_DAYS * 86400
        for other in entry.parent.iterdir():
            if other.stat().st_mtime < limit:
                other.unlink(missing_ok=True)


def _entry(name: str, *parts: str) -> Path:
    """The file of an entry."""
    text = "\n".join((_environment(), name, *parts))
    return _directory / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def _environment() -> str:
    """All that a traced program depends on, beside its arguments."""
    settings = [f"{key}={jax.config.values[key]}" for key in _SETTINGS]
    versions = jax.__version__, jax.lib.__version__, jax.default_backend()
    return "\n".join((*versions, *settings, _sources()))


_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")


@functools.cache
def _sources() -> str:
    """A hash of the files of the package and of smpl_jax."""
    import smpl_jax

    digest = hashlib.sha256()
    for package in (Path(__file__).parents[1], Path(smpl_jax.__file__).parent):
        for folder, folders, files in os.walk(package):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(files):
                file = Path(folder, name)
                large = file.stat().st_size > LARGE
                content = str(file.stat().st_size).encode() if large else file.read_bytes()
                digest.update(f"{file.relative_to(package)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
