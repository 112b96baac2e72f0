"""Reading PyTorch's files without PyTorch: every format, every layout of a tensor; files that ask
for more are refused."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from genhmr_jax.io import torch_files
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.safetensors import read_safetensors
from support.torch_fixtures import fake, save, save_safetensors

TENSORS = {
    "f32": np.arange(12, dtype="<f4").reshape(3, 4),
    "f16": np.arange(4, dtype="<f2"),
    "f64": np.array([[0.1, 0.2]]),
    "bf16": np.arange(3).astype(ml_dtypes.bfloat16),
    "scalar": np.array(7, "<i8"),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), "<f4"),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_come_back(tmp_path, legacy):
    config = fake("yacs.config", "CfgNode", dict)(lr=0.1)
    content = {
        "state_dict": TENSORS,
        "epoch": 3,
        "hparams": config,
        "optimizer_states": [{"exp_avg": np.zeros(5, "<f4")}],
    }
    found = torch_files.read(save(tmp_path / "x.ckpt", content, type(config), legacy=legacy))
    assert found["epoch"] == 3 and found["hparams"]["lr"] == 0.1
    tensors = dict(torch_files.tensors(found["state_dict"]))
    assert list(tensors) == list(TENSORS)
    for name, array in TENSORS.items():
        assert (
            tensors[name].shape == array.shape
            and tensors[name].dtype == array.dtype
            and tensors[name].size == array.size
        )
        np.testing.assert_array_equal(tensors[name].load(), array)


def test_views_of_a_storage(tmp_path):
    """A transposed and a sliced tensor share the numbers of another."""
    base = torch_files.Storage(Path("x"), np.dtype("<f4"), 24, lambda: np.arange(24, dtype="<f4"))
    view = torch_files._rebuild_tensor(base, 4, (2, 2, 2), (12, 4, 2))
    np.testing.assert_array_equal(view.load(), np.arange(24.0).reshape(2, 3, 4)[:, 1:, ::2])
    with pytest.raises(pickle.UnpicklingError, match="larger than its storage"):
        torch_files._rebuild_tensor(base, 4, (2, 3, 4), (12, 4, 1))


class Command:
    """What an attacker puts into a checkpoint."""

    def __reduce__(self):
        return os.system, ("exit 1",)


class Evaluated:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("attack", [Command(), Evaluated()])
def test_code_is_refused(tmp_path, attack, legacy, monkeypatch):
    monkeypatch.setattr(os, "system", os.system)
    path = save(tmp_path / "evil.ckpt", {"state_dict": attack}, legacy=legacy)
    with pytest.raises(InputError, match="evil.ckpt.*it requests .*(system|eval)"):
        torch_files.read(path)


@pytest.mark.parametrize(
    ("opcodes", "said"),
    [
        (
            b"\x80\x02ccollections\nOrderedDict\n}U\x01xK\x01sb.",
            "refused",
        ),  # BUILD on a class: by its dictionary, then by its attributes
        (b"\x80\x02cyacs.config\nCfgNode\nN}U\x06appendK\x01s\x86b.", "refused"),
        (b"\x80\x02ctorch\nSize\nN}U\x01xK\x01s\x86b.", "tries to change _size"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))tR.", "without a storage"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.", None),  # dead, and harmless
        (b"garbage", "refused"),
    ],
)
def test_tricks(tmp_path, opcodes, said):
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", opcodes)
    if said is None:
        assert isinstance(torch_files.read(tmp_path / "x.ckpt"), torch_files.Inert)
        return
    with pytest.raises(InputError, match=said):
        torch_files.read(tmp_path / "x.ckpt")
    assert not hasattr(torch_files.Inert, "x")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_half_downloaded_file(tmp_path, legacy):
    path = save(tmp_path / "x.ckpt", {"state_dict": TENSORS}, legacy=legacy)
    data = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match="x.ckpt.*download it again"):
            torch_files.read(path)


def test_other_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        torch_files.read(tmp_path / "none.ckpt")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(InputError, match="not a PyTorch checkpoint"):
        torch_files.read(tmp_path / "empty.pth")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(InputError, match="TorchScript"):
        torch_files.read(tmp_path / "script.pt")


def test_real_torch_writes_what_is_read(tmp_path: Path):
    torch = pytest.importorskip("torch")
    big = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        "state_dict": {
            "view": big[:, 1:, ::2],
            "turned": big.permute(2, 0, 1),
            "parameter": torch.nn.Linear(3, 2).weight,
        }
    }
    for legacy in (False, True):
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        for name, tensor in torch_files.tensors(torch_files.read(tmp_path / "x.pth")["state_dict"]):
            np.testing.assert_array_equal(
                tensor.load(), content["state_dict"][name].detach().numpy()
            )


def test_safetensors(tmp_path):
    arrays = {name: TENSORS[name] for name in ("f32", "f16", "bf16", "scalar", "empty")}
    path = save_safetensors(tmp_path / "x.safetensors", arrays)
    found = read_safetensors(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].load(), array)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="x.safetensors.*truncated"):
        read_safetensors(path)
    path.write_bytes(b"\xff" * 16)
    with pytest.raises(InputError, match="no safetensors file"):
        read_safetensors(path)


def test_nothing_is_read_before_it_is_asked_for(tmp_path, monkeypatch):
    path = save(tmp_path / "x.ckpt", {"big": np.zeros(1000, "<f4"), "small": np.ones(2, "<f4")})
    content = torch_files.read(path)
    opened = []
    original = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile,
        "read",
        lambda self, name, *a: opened.append(name) or original(self, name, *a),
    )
    content["small"].load()
    assert opened == ["archive/data/1"]


def test_files_that_lie(tmp_path):
    """A repeated number, a compressed archive, attributes that hide a method, a damaged number."""
    base = torch_files.Storage(Path("x"), np.dtype("<f4"), 1, lambda: np.ones(1, "<f4"))
    with pytest.raises(pickle.UnpicklingError, match="in 1 numbers"):
        torch_files._rebuild_tensor(base, 0, (1 << 30,), (0,))
    path = save(tmp_path / "x.ckpt", {"a": np.ones(1000, "<f4")})
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "y.ckpt", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(InputError, match="its archive is compressed"):
        torch_files.read(tmp_path / "y.ckpt")
    ordered = b"\x80\x02ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb."
    with zipfile.ZipFile(tmp_path / "z.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", ordered)
    assert dict(torch_files.tensors(torch_files.read(tmp_path / "z.ckpt"))) == {}
    data = bytearray(path.read_bytes())
    data[data.index(np.ones(9, "<f4").tobytes())] ^= 1
    path.write_bytes(data)
    ((_, tensor),) = torch_files.tensors(torch_files.read(path))
    with pytest.raises(InputError, match="x.ckpt: has a damaged tensor"):
        tensor.load()


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [1 << 30, [0]]}, {"shape": [1 << 30, "xxxx"]}, {"shape": [2.0, 2]}, {"shape": 4},
        {"shape": [-2, -2]}, {"shape": [2] * 100}, {"data_offsets": [0.0, 16]},
        {"data_offsets": [-16, 0]}, {"data_offsets": "ab"}, {"dtype": ["F32"]}, {"dtype": "F9"},
    ],
)  # fmt: skip
def test_safetensors_of_anything(tmp_path, entry):
    good = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for header in ({"a": good | entry}, [good], {"a": None}):
        text = json.dumps(header).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        with pytest.raises(InputError, match="no safetensors file"):
            read_safetensors(path)
    path.write_bytes((20_000).to_bytes(8, "little") + b"[" * 20_000)
    with pytest.raises(InputError, match="no safetensors file"):
        read_safetensors(path)
