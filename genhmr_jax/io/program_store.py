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
import dataclasses
import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.xla_options import compiler_options

UNUSED_DAYS = 30
"""An entry that was not read for this long is deleted when another one is written."""
LARGE = 2**20
"""Bytes. Larger files of the package are model weights: arguments, not parts, of a program."""

_directory: Path | None = None


def use(directory: Path | None) -> None:
    """Store programs in a directory that can be written to; None: store nothing."""
    global _directory
    _directory = directory


def in_use() -> bool:
    """Whether programs are stored."""
    return _directory is not None


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
    """A function with its programs. Threads may call it at the same time."""

    def __init__(self, function: Callable, static: tuple[str, ...]) -> None:
        self.jitted = jax.jit(function, static_argnames=static)
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.static = tuple(names.index(name) for name in static)
        self.name = f"{function.__module__}.{function.__qualname__}".removeprefix("genhmr_jax.")
        self.programs: dict[Any, Future] = {}
        self.lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        call = self._call(args)
        return self.jitted(*args) if call is None else self._program(call, make=True)(*call.leaves)

    def preload(self, *args: Any, make: bool = False) -> None:
        """Read the program for such arguments: a later call does not wait.

        Args:
          args: of the call.
          make: trace and compile it if it is not stored; by default it is left to the call.
        """
        if (call := self._call(args)) is not None:
            self._program(call, make)

    def _call(self, args: tuple) -> "_Call | None":
        """The arguments, taken apart; None for a call that is left to jax.jit."""
        if _directory is None:
            return None
        fixed = tuple(args[i] for i in self.static)
        arrays = [value for i, value in enumerate(args) if i not in self.static]
        call = _Call(fixed, *jax.tree.flatten(arrays)[::-1])
        return call if all(map(_on_one_device, call.leaves)) else None

    def _program(self, call: "_Call", make: bool) -> Callable | None:
        """The compiled program; None if it is not stored and must not be made."""
        # 1. The first thread that needs a program loads it, and the others wait.
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in call.leaves)
        key = (_directory, call.fixed, call.tree, shapes)
        with self.lock:
            mine = key not in self.programs
            found = self.programs.setdefault(key, Future())
        if not mine:
            program = found.result()
            return self._program(call, make) if program is None and make else program
        # 2. Read it, or make it.
        program = None
        try:
            entry = self._entry(call)
            program = entry and self._read(entry, call)
            if program is None and make:
                program = self._make(entry, call)
        finally:
            if program is None:
                del self.programs[key]
            found.set_result(program)
        return program

    def _entry(self, call: "_Call") -> Path | None:
        """The file of a program; None for a program that must not be stored."""
        described = repr(call.fixed)
        # The sources of other packages, such as a system of theirs, are not a part of the name.
        # The repr of an object without its own one differs in each process.
        roots = {type(value).__module__.partition(".")[0] for value in call.fixed}
        if not roots <= {"builtins", "genhmr_jax"} or " at 0x" in described:
            return None
        shapes = [f"{leaf.dtype}{leaf.shape}" for leaf in call.leaves]
        return _entry(self.name, described, str(call.tree), *shapes)

    def _read(self, entry: Path, call: "_Call") -> Callable | None:
        """The program of an entry; None if there is none that this version of jax can read."""
        with contextlib.suppress(Exception):
            if (content := read(entry)) is not None:
                return self._compiled(jax.export.deserialize(bytearray(content)), call)
        return None

    def _make(self, entry: Path | None, call: "_Call") -> Callable:
        """Trace and compile the function, and write the entry if that is possible."""

        def flat(*leaves: jax.Array) -> Any:
            args = jax.tree.unflatten(call.tree, leaves)
            for i, value in sorted(zip(self.static, call.fixed, strict=True)):
                args.insert(i, value)
            return self.jitted(*args)

        if entry is not None:
            # jax.export raises many types, for example if the program calls a kernel (cuDNN's)
            # whose interface may change between versions of jaxlib.
            with contextlib.suppress(Exception):
                exported = jax.export.export(jax.jit(flat))(*call.leaves)
                content = exported.serialize()
                # Compiled from the entry, so that XLA's cache holds the result for it.
                program = self._compiled(jax.export.deserialize(content), call)
                write(entry, content)
                return program
        return _compile(flat, call)

    def _compiled(self, exported: jax.export.Exported, call: "_Call") -> Callable:
        """Compile an exported program, or read it from XLA's cache."""

        def run(*leaves: jax.Array) -> Any:
            return exported.call(*leaves)

        run.__name__ = self.name.rpartition(".")[2].strip("_")
        return _compile(run, call)


def _compile(function: Callable, call: "_Call") -> Callable:
    """The compiled program of a function of the leaves of a call."""
    return jax.jit(function, compiler_options=compiler_options()).lower(*call.leaves).compile()


@dataclasses.dataclass(frozen=True)
class _Call:
    """The arguments of a call: the static ones, and the leaves of the others with their tree."""

    fixed: tuple
    tree: Any
    leaves: list[Any]


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
    with contextlib.suppress(OSError, InputError):
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
