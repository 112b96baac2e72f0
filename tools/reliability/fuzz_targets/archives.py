"""Targets: archives, and files of arrays and tensors."""

import io
import struct
import tarfile
import zipfile

import numpy as np

from fuzz_targets.pickles import _torch
from fuzz_targets.target import Target, file, folder, refusing
from genhmr_jax.data.sources.reading import read_npz, tar_samples
from genhmr_jax.io import model_folder
from genhmr_jax.io.row_table import RowTable
from genhmr_jax.io.safetensors import read_safetensors
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.people import People

_NPY = (
    b"\x93NUMPY\x01\x00", b"'descr': '<f8'", b"'fortran_order': True", b"'shape': (3, 2)", b"|O",
    b"<U10", b"(1000000000000,)", b"[('a', '<f4')]", b"}\n",
)  # fmt: skip
_ZIP = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"a.npy", b"b.npy")
_TAR = (b"ustar\x00", b"././@LongLink", b"21 path=x\n", b"GNU.sparse.map=0,9", b"size=-512\n")
_JSON = (b'"dtype"', b'"F32"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b"[[", b"1e999")


def _npz(data: bytes) -> None:
    with refusing():
        read_npz(data, (), ("a", "b"))


def _npy(data: bytes) -> None:
    """One array of an archive, compressed: a mutated archive would fail its checksum."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", data)
    _npz(stream.getvalue())


def _torch_zip(data: bytes) -> None:
    _torch(file("x.ckpt", data))


def _torch_legacy(data: bytes) -> None:
    _torch(file("x.pth", data))


def _safetensors(data: bytes) -> None:
    """The input is the JSON header; 64 bytes of numbers follow."""
    path = file("x.safetensors", struct.pack("<Q", len(data)) + data + bytes(64))
    with refusing():
        for tensor in read_safetensors(path).values():
            assert tensor.load().size == tensor.size


def _safetensors_file(data: bytes) -> None:
    with refusing():
        read_safetensors(file("x.safetensors", data))


def _tar(data: bytes) -> None:
    """A tar whose headers get the right checksums, since tarfile stops at a wrong one."""
    data = bytearray(data)
    for start in range(0, len(data) - 511, tarfile.BLOCKSIZE):
        if data[start + 257 : start + 262] == b"ustar":
            block = data[start : start + 512]
            total = 256 + sum(block[:148]) + sum(block[156:512])
            data[start + 148 : start + 156] = b"%06o\0 " % total
    with refusing():
        for key, fields in tar_samples(file("x.tar", bytes(data))):
            assert ".." not in key.split("/") and not key.startswith("/") and fields


def _tar_file(data: bytes) -> None:
    with refusing():
        list(tar_samples(file("x.tar", data)))


def _model_folder(data: bytes) -> None:
    """The first half of the input is config.json, the second one the array of params.npz."""
    config, _, array = data.partition(b"\0\0")
    file("model/config.json", config)
    with zipfile.ZipFile(folder() / "model" / "params.npz", "w") as archive:
        archive.writestr("net/kernel:float32.npy", array)
    with refusing():
        assert isinstance(model_folder.load_meta(folder() / "model"), dict)
    with refusing():
        model_folder.read_arrays(folder() / "model")
    like = {"net": {"kernel": np.zeros((2, 2), np.float32)}}
    with refusing():
        model_folder.load_params(folder() / "model", like)


def _results(data: bytes) -> None:
    """A result of `genhmr recover`, which `genhmr view` and `genhmr angles` read."""
    path = file("x.npz", data)
    for kind in (People, Clip):
        with refusing():
            kind.load(path)


def _result_array(data: bytes) -> None:
    """One array of a result of a photo."""
    with zipfile.ZipFile(folder() / "y.npz", "w") as archive:
        archive.writestr("boxes.npy", data)
    with refusing():
        People.load(folder() / "y.npz")


def _row_table(data: bytes) -> None:
    """The head of a table on disk; each column that it names has a file."""
    path = folder() / "table"
    file("table/table.json", data)
    for name in ("a", "b"):
        file(f"table/{name}.rows", bytes(64))
    with refusing():
        table = RowTable.open(path)
        for array in table.read().values():
            assert len(array) == len(table)


TARGETS = (
    Target("npz", "data.sources.reading.read_npz", _npz, tokens=_ZIP + _NPY),
    Target("npy", "smpl_jax.safe_npz.read_npy", _npy, tokens=_NPY),
    Target("torch_zip", "io.torch_files.read, zip", _torch_zip, tokens=_ZIP),
    Target("torch_legacy", "io.torch_files.read, stream of pickles", _torch_legacy),
    Target("safetensors", "io.safetensors.read_safetensors, header", _safetensors, tokens=_JSON),
    Target("safetensors_file", "io.safetensors.read_safetensors, file", _safetensors_file),
    Target("tar", "data.sources.reading.tar_samples, right checksums", _tar, tokens=_TAR),
    Target("tar_file", "data.sources.reading.tar_samples (gz, bz2, xz)", _tar_file),
    Target("model_folder", "io.model_folder (config.json, params.npz)", _model_folder, tokens=_NPY),
    Target("results", "recover.results.Results.load", _results, tokens=_ZIP),
    Target("result_array", "recover.results.Results.load, one array", _result_array, tokens=_NPY),
    Target("row_table", "io.row_table.RowTable.open", _row_table, tokens=(b"<f4", b"1e999", b"[[")),
)
