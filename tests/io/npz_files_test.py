"""Our own npz files: every damage is one error that names the file."""

import numpy as np
import pytest

from genhmr_jax.data.poses import load_corpus
from genhmr_jax.data.synthetic.motions import load_sequences
from genhmr_jax.evaluate import clip_split
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.npz_files import read_own_npz
from genhmr_jax.recover.view_command import is_clip_result
from genhmr_jax.systems.biopose.labels import load_labels


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    rng = np.random.default_rng(0)
    np.savez(path, a=rng.random((40, 72)), b=np.array("text"))
    return path.read_bytes()


def damages(content):
    """Contents with a flipped bit in the data, a cut, zeros, nothing, or of something else."""
    middle = len(content) // 2
    yield content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    yield content[:middle]
    yield content[: middle - 2000] + bytes(4000) + content[middle + 2000 :]
    yield b""
    yield b"PK\x03\x04 no archive"
    yield bytes(len(content))


def test_a_whole_file(content, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    found = read_own_npz(path, "file", "write it again", ("a",), ("b", "c"))
    assert found.keys() == {"a", "b"} and found["a"].shape == (40, 72)
    assert read_own_npz(path, "file", "write it again").keys() == {"a", "b"}
    with pytest.raises(InputError, match=r"a.npz: keys missing: c, d; write it again"):
        read_own_npz(path, "file", "write it again", ("d", "a", "c"))
    with pytest.raises(InputError, match=r"none.npz: no such file; write it again"):
        read_own_npz(tmp_path / "none.npz", "file", "write it again")
    with pytest.raises(InputError, match="cannot be read .Is a directory"):
        read_own_npz(tmp_path, "file", "write it again")


READERS = {
    "pose corpus": lambda path: load_corpus(path, "train"),
    "motions": lambda path: load_sequences(path, "val", 1.0),
    "angles": load_labels,
    "clip or photo": is_clip_result,
    "any": lambda path: read_own_npz(path, "file", "write it again"),
}


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_named(content, tmp_path, reader):
    """A flipped bit in a pose corpus was a traceback of zipfile."""
    path = tmp_path / "damaged.npz"
    for damaged in damages(content):
        path.write_bytes(damaged)
        if reader == "clip or photo" and damaged[-22:] == content[-22:]:
            continue  # it reads names only
        with pytest.raises(InputError, match="damaged.npz: (cannot be read as|keys missing)"):
            READERS[reader](path)


def test_damaged_labels_of_a_clip(content, tmp_path):
    path = clip_split._labels(tmp_path, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    for damaged in damages(content):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="(cannot be read as|keys missing)"):
            clip_split._read(tmp_path, 0)
