"""Small files that would need gigabytes, or years, are refused before they do."""

import contextlib
import io
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from smpl_jax import pickle_scan, safe_npz
from smpl_jax.safe_pickle import UnsafePickle, load_data_pickle, load_smpl_pickle
from smpl_reference import python2_array, python2_csc, python2_pickle

MOST = 200 << 20  # bytes


@contextlib.contextmanager
def cheap():
    """The block allocates little, and is fast."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST
        assert time.process_time() - start < 5
    finally:
        tracemalloc.stop()


def nested_tuples(levels: int, end: bytes) -> bytes:
    """(((), ()), ((), ())): each level refers twice to the one below it."""
    levels = b"".join(b"h%c" % (i % 256) + b"\x86q%c" % (i + 1) for i in range(levels))
    return b"\x80\x02)q\x00" + levels + end


def numpy_array(raw: object, shape: object) -> bytes:
    """An array made by numpy's `_frombuffer`."""
    body = lambda value: pickle.dumps(value, 2)[2:-1]
    dtype = b"cnumpy\ndtype\nU\x02f8\x85R"
    arguments = b"(" + body(raw) + dtype + body(shape) + b"U\x01CtR"
    return b"\x80\x02cnumpy.core.numeric\n_frombuffer\n" + arguments + b"."


BOMBS = {
    "a memo of 2^31 entries": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "2^40 bytes that are not there": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a bytearray that is not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "2^60 tuples as a key": nested_tuples(60, b"}h\x3cNs."),
    "2^60 tuples in a set": nested_tuples(60, b"c__builtin__\nset\n]h\x3ca\x85R."),
    "a number instead of bytes": numpy_array(1 << 40, (2,)),
    "a shape that is a list times a number": numpy_array(b"x" * 8, (1 << 30, [0] * 100)),
    "a shape of a thousand large numbers": numpy_array(b"x" * 8, (2**62,) * 1000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickle_bombs(name):
    assert len(BOMBS[name]) < 20_000
    with cheap(), pytest.raises(UnsafePickle):
        load_data_pickle(BOMBS[name])


def test_sparse_matrices_that_together_need_gigabytes():
    matrices = []
    for _ in range(8):
        matrices.append(python2_csc(np.eye(2)))
        matrices[-1].state["_shape"] = (3000, 3000)
    with cheap(), pytest.raises(UnsafePickle, match="more than 128 MiB"):
        load_data_pickle(python2_pickle(tuple(matrices)))
    keys = [str(i) for i in range(8)]
    with cheap(), pytest.raises(UnsafePickle, match="more than 128 MiB"):
        load_smpl_pickle(python2_pickle(dict(zip(keys, matrices, strict=True))), keys)


@pytest.mark.parametrize("protocol", range(6))
def test_ordinary_pickles_pass_the_scan(protocol):
    shared = np.arange(3.0)
    content = {"a": [shared, shared], "b": ({1, 2}, "x" * 300, b"y", 2**80, -1.5, None, True),
               "c": [[i] for i in range(300)], "d": np.array(["é"])}  # fmt: skip
    data = pickle.dumps(content, protocol)
    assert pickle_scan.check(data) == len(data)
    assert pickle_scan.check(b"before" + data + b"after", 6) == 6 + len(data)
    with pytest.raises(ValueError, match="more than 10 objects"):
        pickle_scan.check(data, most=10)
    for end in range(0, len(data), 1 + len(data) // 50):
        with pytest.raises(ValueError):
            pickle_scan.check(data[:end])
    data = python2_pickle({"a": python2_array(shared)})
    assert pickle_scan.check(data) == len(data)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return stream


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def declared(shape: str) -> bytes:
    """An .npy whose header declares a shape, without its numbers."""
    return npy(np.zeros(1)).replace(b"(1,), }" + b" " * 20, f"({shape},), }}".encode().ljust(27))


def test_archives_of_zeros(monkeypatch):
    """A megabyte can hold a gigabyte."""
    zeros = npy(np.zeros(1 << 20, np.uint8))
    large = archive({f"{i}.npy": zeros for i in range(40)})
    assert large.tell() < 1 << 16
    assert len(safe_npz.load_npz(large)) == 40
    monkeypatch.setattr(safe_npz, "ALLOWANCE", 1 << 24)
    with cheap(), pytest.raises(ValueError, match="bytes, more than"):
        safe_npz.load_npz(large)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(method):
    """They reach a million times."""
    with pytest.raises(ValueError, match="NumPy does not use"):
        safe_npz.load_npz(archive({"a.npy": npy(np.zeros(9))}, method))


def test_headers_that_lie():
    for shape in ("10**6", "1000000000000", "-1", "1, " * 40 + "1"):
        with cheap(), pytest.raises(ValueError):
            safe_npz.load_npz(archive({"a.npy": declared(shape)}))
    header = b"\x93NUMPY\x02\x00" + struct.pack("<L", 1 << 30) + bytes(1 << 22)
    with cheap(), pytest.raises(ValueError, match="far too long"):
        safe_npz.load_npz(archive({"a.npy": header}))


def test_objects_from_a_compressed_file_are_counted(monkeypatch):
    """Four million empty dictionaries are four kilobytes of an archive, and 350 MiB of memory."""
    assert safe_npz.OBJECTS == 2 << 20
    monkeypatch.setattr(safe_npz, "OBJECTS", 2000)
    head = npy(np.array([None]))[:128]
    data = head + b"\x80\x02](" + b"}" * 4000 + b"e."
    with pytest.raises(UnsafePickle, match="objects"):
        safe_npz.load_npz(archive({"a.npy": data}))


def test_damaged_archives_are_value_errors():
    whole = archive({"a.npy": npy(np.arange(50.0))}).getvalue()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        with contextlib.suppress(ValueError):
            safe_npz.load_npz(io.BytesIO(damaged))
