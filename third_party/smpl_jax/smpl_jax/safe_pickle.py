"""Arrays of the pickles of this field, read without running code in the pickle.

SMPL's official files are Python 2 pickles of numpy arrays, chumpy arrays and scipy sparse matrices.
Datasets are pickles of dictionaries, lists, strings, numbers and arrays, which may hold objects. A
plain `pickle.load` would need chumpy (which no longer installs) and would run any code that an
untrusted file requests. Here every name in a pickle is looked up in a fixed table of stand-ins that
only hold data. Any other name is refused before it is resolved.
"""

import io
import math
import pickle
import re
from collections.abc import Mapping, Sequence

import numpy as np

from smpl_jax import pickle_scan

MOST_EXPANDED = 1 << 27
"""Bytes of all arrays that a pickle describes by fewer numbers: sparse matrices, selections."""
MOST_AXES = 32


class UnsafePickle(ValueError):
    """The pickle is broken, or requests something that is not an array."""


def brief(error: object) -> str:
    """The start of a library's message: some repeat the file."""
    return str(error)[:400]


class _Sealed(type):
    """A class that a pickle cannot change.

    The BUILD opcode can set attributes on any object of the unpickler's stack, including classes.
    """

    def __setattr__(cls, name: str, value: object) -> None:
        raise UnsafePickle(f"it tries to change {cls.__name__}.{name}")


_DTYPE_CODE = re.compile(r"[<>=|]?([biuf][1248]|\?|[SU]\d{1,6}|O8?)")


class _Dtype(metaclass=_Sealed):
    """numpy.dtype; `value` is None for anything but numbers, strings and objects."""

    def __init__(self, code: str, *_: object) -> None:
        self.value: np.dtype | None = None
        if isinstance(code, str) and _DTYPE_CODE.fullmatch(code):
            self.value = np.dtype(code.replace("O8", "O"))

    def __setstate__(self, state: tuple) -> None:
        if self.value is not None and state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(metaclass=_Sealed):
    """numpy.ndarray, made by numpy's `_reconstruct` and filled by its state.

    `array` holds numbers or strings; `objects` the entries, shape and order of an array of objects.
    """

    def __init__(self, *_: object) -> None:
        self.array: np.ndarray | None = None
        self.objects: tuple[list, tuple, str] | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        order = "F" if fortran else "C"
        if isinstance(dtype, _Dtype) and dtype.value is not None and dtype.value.kind == "O":
            shape = _shape(shape)
            if not isinstance(raw, list) or len(raw) != math.prod(shape):
                kind = f"an array of objects of shape {shape}"
                raise UnsafePickle(f"{kind} does not fit its entries")
            self.objects = (raw, shape, order)
        else:
            self.array = _from_bytes(raw, dtype, shape, order)


class _FromBuffer(metaclass=_Sealed):
    """numpy's `_frombuffer`, used by newer pickles."""

    def __new__(cls, raw: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:
        result = _Array()
        result.array = _from_bytes(raw, dtype, shape, order)
        return result


class _Scalar(metaclass=_Sealed):
    """A numpy scalar."""

    def __new__(cls, dtype: _Dtype, raw: object = b"") -> _Array:
        result = _Array()
        result.array = _from_bytes(raw, dtype, (), "C")
        return result


class _LatinBytes(metaclass=_Sealed):
    """`_codecs.encode(text, "latin1")`, with which Python 3 stores bytes in old protocols."""

    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise UnsafePickle("it requests another codec than latin1")
        return text.encode("latin1")


class _Opaque(metaclass=_Sealed):
    """An object that is stored but not interpreted."""

    def __new__(cls, *_: object) -> "_Opaque":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Ch(_Opaque):
    """chumpy.ch.Ch: an array in the attribute x."""


class _Select(_Opaque):
    """chumpy.reordering.Select, as SMPL's shapedirs: a.ravel()[idxs].reshape(preferred_shape)."""


class _Csc(_Opaque):
    """scipy's csc_matrix: compressed columns."""


class _Csr(_Opaque):
    """scipy's csr_matrix: compressed rows."""


class _Coo(_Opaque):
    """scipy's coo_matrix: rows and columns of the entries."""


class _Reconstructor(metaclass=_Sealed):
    """`copy_reg._reconstructor`: an instance of one of the stand-ins above."""

    def __new__(cls, kind: type, base: type, state: object) -> _Opaque:
        if not (isinstance(kind, type) and issubclass(kind, _Opaque)) or base is not object:
            raise UnsafePickle("it builds an instance of something that is not data")
        return kind()


_UNFINISHED = object()  # the result of a node that is still being converted
# Errors of data that do not have the expected form.
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)

_ALLOWED: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Opaque,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _LatinBytes,
    ("chumpy.ch", "Ch"): _Ch,
    ("chumpy.reordering", "Select"): _Select,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("collections", "OrderedDict"): dict,
    ("copy_reg", "_reconstructor"): _Reconstructor,
    ("copyreg", "_reconstructor"): _Reconstructor,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _FromBuffer
for _format, _stand_in in (("csc", _Csc), ("csr", _Csr), ("coo", _Coo)):
    for _module in (f"scipy.sparse.{_format}", f"scipy.sparse._{_format}"):
        _ALLOWED[_module, f"{_format}_matrix"] = _ALLOWED[_module, f"{_format}_array"] = _stand_in


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.split(".")[0] == "chumpy":  # other expressions, in entries that are not needed
            return _Opaque
        raise UnsafePickle(f"the pickle requests {module}.{name}, which is no array")


def load_data_pickle(data: bytes, most: int | None = None) -> object:
    """The content of a pickle that holds only data.

    Data are dictionaries, lists, tuples, sets, text, bytes, numbers and numpy arrays. Text of
    Python 2 becomes latin-1 str. Arrays are read-only; chumpy arrays and sparse matrices become
    numpy arrays.

    Args:
      data: the pickle.
      most: opcodes that it may have (pickle_scan.check).

    Raises:
      UnsafePickle: broken, or it holds something else.
    """
    content = _unpickled(data, most)
    try:
        return _Conversion().plain(content)
    except UnsafePickle:
        raise
    except _MALFORMED as error:
        problem = f"it is not plain data ({type(error).__name__}: {brief(error)})"
        raise UnsafePickle(problem) from error


def load_smpl_pickle(data: bytes, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a pickled dictionary under the given keys; sparse matrices become dense.

    Keys that the dictionary lacks are left out.

    Raises:
      UnsafePickle: broken, not a dictionary, a name outside the table, or an entry that is not an
        array.
    """
    content = _unpickled(data)
    if not isinstance(content, dict):
        raise UnsafePickle(f"it holds a {type(content).__name__} instead of SMPL's dictionary")
    text = lambda key: key.decode("latin1") if isinstance(key, bytes) else key
    content = {text(key): value for key, value in content.items()}
    arrays, conversion = {}, _Conversion()
    for key in [key for key in keys if key in content]:
        try:
            arrays[key] = conversion.array(content[key])
        except _MALFORMED as error:
            problem = f"its entry {key} cannot be read as an array ({brief(error)})"
            raise UnsafePickle(problem) from error
    return arrays


def _unpickled(data: bytes, most: int | None = None) -> object:
    """Unpickle to stand-ins and plain containers."""
    try:
        pickle_scan.check(data, most=most)
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except UnsafePickle:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        problem = f"it is not a readable pickle ({type(error).__name__}: {brief(error)})"
        raise UnsafePickle(problem) from error


class _Conversion:
    """Replaces stand-ins by arrays, in all of a pickle's content.

    Attributes:
      done: (node, result) by id: a node with several references is converted once.
      expanded: bytes of the arrays that were larger than their description.
    """

    def __init__(self) -> None:
        self.done: dict[int, tuple[object, object]] = {}
        self.expanded = 0

    def plain(self, node: object) -> object:
        """The node as plain data. Raises UnsafePickle, or one of _MALFORMED."""
        if node is None or isinstance(node, bool | int | float | complex | str | bytes):
            return node
        if id(node) in self.done:
            result = self.done[id(node)][1]
            if result is _UNFINISHED:
                raise UnsafePickle("an object in it contains itself")
            return result
        self.done[id(node)] = (node, _UNFINISHED)
        if isinstance(node, _Array) and node.objects is not None:
            entries, shape, order = node.objects
            result = np.empty(len(entries), object)
            for i, entry in enumerate(entries):
                result[i] = self.plain(entry)
            result = result.reshape(shape, order=order)
        elif isinstance(node, _Array | _Ch | _Select | _Csc | _Csr | _Coo):
            array = self.array(node)
            result = array[()] if array.ndim == 0 else array
        elif isinstance(node, dict):
            result = {self.plain(key): self.plain(value) for key, value in node.items()}
        elif type(node) in (list, tuple, set):
            result = type(node)(self.plain(entry) for entry in node)
        elif isinstance(node, bytearray):
            result = bytes(node)
        else:
            kind = type(node).__name__.lstrip("_")
            raise UnsafePickle(f"it holds an object of kind {kind}, not data")
        self.done[id(node)] = (node, result)
        return result

    def array(self, node: object) -> np.ndarray:
        """The array of a stand-in. Raises UnsafePickle, or one of _MALFORMED."""
        array = _value(node)
        if not isinstance(node, _Array):
            self.expanded += array.nbytes
            if self.expanded > MOST_EXPANDED:
                raise UnsafePickle(f"its matrices have more than {MOST_EXPANDED >> 20} MiB")
        return array


def _value(node: object) -> np.ndarray:
    """The array of a stand-in. Raises one of _MALFORMED."""
    if isinstance(node, _Array) and node.array is not None:
        return node.array
    if isinstance(node, _Array) and node.objects is not None and node.objects[1] == ():
        return _value(node.objects[0][0])
    if isinstance(node, _Ch):
        return _value(node.state["x"])
    if isinstance(node, _Select):
        shape = node.state["preferred_shape"]
        shape = tuple(_value(shape)) if isinstance(shape, _Array) else tuple(shape)
        return _value(node.state["a"]).ravel()[_value(node.state["idxs"])].reshape(shape)
    if isinstance(node, _Csc | _Csr | _Coo):
        return dense(node.state, isinstance(node, _Csc))
    if isinstance(node, dict):
        return dense(node)
    if isinstance(node, np.ndarray):
        return node
    raise TypeError(f"not an array of numbers but {type(node).__name__.lstrip('_')}")


def dense(parts: Mapping[str, object], by_columns: bool | None = None) -> np.ndarray:
    """The dense matrix of the parts of a sparse one.

    Args:
      parts: by scipy's names: `shape`, `data`, and `indices` and `indptr`, or `row` and `col`
        (`coords` in newer versions).
      by_columns: whether `indptr` counts columns (csc) or rows (csr). None: decided by its length.

    Raises:
      KeyError, TypeError, ValueError, IndexError: parts are missing or inconsistent.
    """
    rows, columns = (int(n) for n in parts.get("_shape", parts.get("shape")))
    # A limit far above SMPL's 24 x 6890: the memory must not depend on the claim of a file.
    if rows * columns > 10_000_000:
        raise ValueError(f"a sparse matrix of {rows} x {columns}")
    matrix, data = np.zeros((rows, columns)), _value(parts["data"])
    if "indptr" not in parts:
        index = parts["coords"] if "coords" in parts else (parts["row"], parts["col"])
        np.add.at(matrix, tuple(_value(part) for part in index), data)
        return matrix
    minor, starts = _value(parts["indices"]), _value(parts["indptr"])
    counts = np.diff(starts)
    # Repeated as the file claims, a few numbers could take gigabytes.
    if minor.ndim != 1 or starts.ndim != 1 or counts.min(initial=0) < 0:
        raise ValueError("a sparse matrix with impossible indices")
    if len(starts) < 1 or int(starts[-1]) - int(starts[0]) != len(minor):
        raise ValueError(f"a sparse matrix of {len(minor)} entries, not as many as it counts")
    major = np.repeat(np.arange(len(counts)), counts)
    if by_columns is None:
        by_columns = len(starts) == columns + 1
    np.add.at(matrix, (minor, major) if by_columns else (major, minor), data)
    return matrix


def _shape(shape: object) -> tuple[int, ...]:
    """A shape of a pickle, which can hold anything. Raises UnsafePickle."""
    whole = isinstance(shape, tuple | list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or len(shape) > MOST_AXES or any(n >= 1 << 63 for n in shape):
        raise UnsafePickle("an array whose shape is not one of whole numbers")
    return tuple(shape)


def _from_bytes(raw: object, dtype: object, shape: object, order: object) -> np.ndarray | None:
    if not isinstance(dtype, _Dtype) or dtype.value is None or dtype.value.kind == "O":
        return None
    if not isinstance(raw, str | bytes | bytearray):  # bytes(10**9) would be a gigabyte
        raise UnsafePickle(f"an array of {type(raw).__name__} instead of bytes")
    shape = _shape(shape)
    raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    if len(raw) != math.prod(shape) * dtype.value.itemsize:
        raise UnsafePickle(f"an array of shape {shape} does not fit its {len(raw)} bytes")
    return np.frombuffer(raw, dtype.value).reshape(shape, order=order)
