"""Targets: the unpicklers, and the readers on top of them."""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image
from smpl_jax.io import load
from smpl_jax.safe_pickle import UnsafePickle, load_data_pickle

from fuzz_targets.target import Target, file, folder, refusing
from genhmr_jax.data.sources import find
from genhmr_jax.io import torch_files

_TOKENS = (
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n",
    b"cnumpy.core.numeric\n_frombuffer\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n",
    b"cchumpy.ch\nCh\n", b"cchumpy.reordering\nSelect\n", b"cscipy.sparse.csc\ncsc_matrix\n",
    b"c_codecs\nencode\n", b"c__builtin__\nset\n", b"c__builtin__\nobject\n", b"cos\nsystem\n",
    b"ccollections\nOrderedDict\n", b"ccopy_reg\n_reconstructor\n", b"tR", b"b.", b"\x85R",
    b"}q\x00",     b"r\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00", b"U\x02f8",
    b"h\x00h\x00\x86q\x00",
)  # fmt: skip
_TORCH_TOKENS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nFloatStorage\n", b"ctorch\nSize\n", b"ctorch\ndevice\n", b"U\x07storage", b"Q",
    b"cyacs.config\nCfgNode\n", b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n", b"tR",
    b"K\x00", b"K\x01\x85", b"\x89", b"}U\x01xK\x01sb",
)  # fmt: skip


def _data(data: bytes) -> None:
    with refusing(UnsafePickle):
        _walk(load_data_pickle(data), 0)


def _walk(content: object, depth: int) -> None:
    """Everything in it is plain data."""
    if depth > 50:
        return
    if isinstance(content, dict):
        content = [*content, *content.values()]
    if isinstance(content, list | tuple | set):
        for entry in content:
            _walk(entry, depth + 1)
        return
    plain = (bool, int, float, complex, str, bytes, np.ndarray, np.generic)
    assert content is None or isinstance(content, plain), type(content)


def _smpl(data: bytes) -> None:
    with refusing(ValueError):
        load(file("body.pkl", data))


def _torch_pickle(data: bytes) -> None:
    with zipfile.ZipFile(folder() / "x.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(64))
        archive.writestr("archive/data/1", bytes(64))
    _torch(folder() / "x.ckpt")


def _torch(path: object) -> None:
    with refusing():
        for _, tensor in torch_files.tensors(torch_files.read(path)):
            assert tensor.load().size == tensor.size


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 32)).save(stream, "JPEG")
    return stream.getvalue()


def _people(data: bytes) -> None:
    """The labels of one photo of a training shard."""
    with tarfile.open(_SHARD, "w") as archive:
        for name, content in (("a.jpg", _JPEG), ("a.data.pyd", data)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    source = find("own_tars")
    with refusing():
        for record in source.records(folder(), "train", source.report()):
            assert record is not None


_JPEG = _jpeg()
_SHARD = folder() / "own_tars" / "train" / "0.tar"
_SHARD.parent.mkdir(parents=True)

TARGETS = (
    Target("pickle", "smpl_jax.safe_pickle.load_data_pickle", _data, tokens=_TOKENS),
    Target("smpl", "smpl_jax.load (.pkl, .npz)", _smpl, tokens=_TOKENS),
    Target("torch_pickle", "io.torch_files.read, data.pkl", _torch_pickle, tokens=_TORCH_TOKENS),
    Target("people", "data.sources.hmr2_tars (own_tars), data.pyd", _people, tokens=_TOKENS),
)
