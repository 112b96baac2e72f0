"""Pickles as Python 2 and its NumPy wrote them: text as byte strings, modules under their old
names."""

import io
import pickle
import struct


class _Python2Pickler(pickle._Pickler):
    """The pure Python pickler, with Python 2's opcodes for text and the module names of NumPy 1."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(
            (b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)))
            + raw
        )
        self.memoize(value)

    def save_global(self, obj: object, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core").replace(
            "builtins", "__builtin__"
        )
        self.write(f"c{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[type] = dispatch[type(len)] = save_global


def python2_pickle(value: object) -> bytes:
    """`cPickle.dumps(value, 2)` of Python 2: what `pickle.load(..., encoding="latin1")` is for."""
    stream = io.BytesIO()
    _Python2Pickler(stream, 2).dump(value)
    return stream.getvalue()


def numpy1_pickle(value: object) -> bytes:
    """`pickle.dumps(value)` of Python 3.7 with NumPy 1 (protocol 3)."""
    return pickle.dumps(value, protocol=3).replace(b"cnumpy._core.", b"cnumpy.core.")
