"""Shards, motions and YAML of a few kilobytes that would need gigabytes, or never end."""

import gzip
import io
import tarfile
import time
import tracemalloc

import pytest

from genhmr_jax.data.hands.releases.reading import read_yaml
from genhmr_jax.data.sources import reading
from genhmr_jax.data.sources.asf import read_amc, read_asf
from genhmr_jax.data.sources.bvh import read_bvh
from genhmr_jax.io.errors import InputError

MOST = 100 << 20  # bytes


@pytest.fixture(autouse=True)
def cheap():
    """No test here allocates much, or takes long."""
    tracemalloc.start()
    start = time.process_time()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST and time.process_time() - start < 5


def tar(*members: tuple[str, int], packed: bool = False, **fields: object) -> bytes:
    """A tar of files of zeros, whose headers are changed; the numbers are left out."""
    stream = io.BytesIO()
    for name, size in members:
        info = tarfile.TarInfo(name)
        info.size = size
        for field, value in fields.items():
            setattr(info, field, value)
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
    stream.write(bytes(2048))
    return gzip.compress(stream.getvalue()) if packed else stream.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("members", "fields", "message"),
    [
        ([("a.npz", 1 << 40)], {}, "more than 128 MiB"),
        ([("a.jpg", -512)], {}, "ends early"),
        ([("a.jpg", 0), ("._b.jpg", -512)], {}, "no size that can be"),  # it would be read again
        ([("name", 1 << 40)], {"type": tarfile.GNUTYPE_LONGNAME}, "not a whole tar"),
        ([("name", 1 << 40)], {"type": tarfile.XHDTYPE}, "not a whole tar"),
        ([("a.jpg", 0)], {"type": tarfile.GNUTYPE_SPARSE}, "not a plain file|not a whole tar"),
    ],
)
def test_headers_that_lie(tmp_path, members, fields, message, packed):
    (tmp_path / "x.tar").write_bytes(tar(*members, packed=packed, **fields))
    with pytest.raises(InputError, match=message):
        list(reading.tar_samples(tmp_path / "x.tar"))


def test_a_sparse_file_of_a_terabyte(tmp_path):
    """Its header takes 1536 bytes; reading it would give zeros."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {
            "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "a.jpg",
            "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,0",
        }  # fmt: skip
        archive.addfile(info)
    (tmp_path / "x.tar").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="not a plain file"):
        list(reading.tar_samples(tmp_path / "x.tar"))


def test_a_sample_of_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_SAMPLE", 100)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"a.{number}")
            info.size = 40
            archive.addfile(info, io.BytesIO(bytes(40)))
    (tmp_path / "x.tar").write_bytes(stream.getvalue())
    monkeypatch.setattr(reading._Bounded, "read", lambda self, size: self._file.read(size))
    with pytest.raises(InputError, match="makes a sample of more"):
        list(reading.tar_samples(tmp_path / "x.tar"))


BVH = "HIERARCHY\nROOT a\n{{\nOFFSET 0 0 0\nCHANNELS {}\n{}}}\nMOTION\nFrames: {}\nFrame Time: 1\n"


def test_motions_of_more_joints_than_channels(tmp_path):
    """2000 joints that never move, in 20,000 frames: 2.9 GB of matrices."""
    ends = "End Site\n{\n}\n" * 2000
    text = BVH.format("1 Xrotation", ends, 20_000) + "0\n" * 20_000
    (tmp_path / "x.bvh").write_text(text)
    with pytest.raises(InputError, match="joints with 1 channels"):
        read_bvh(tmp_path / "x.bvh")
    bones = "".join(f"begin\nname b{i}\nend\n" for i in range(2000))
    text = f":bonedata\n{bones}:hierarchy\nroot {' '.join(f'b{i}' for i in range(2000))}\n"
    (tmp_path / "x.asf").write_text(text)
    with pytest.raises(InputError, match="joints with 6 channels"):
        read_asf(tmp_path / "x.asf")


@pytest.mark.parametrize(
    ("channels", "count", "message"),
    [("2 Xrotation Xrotation", "1", "twice about one axis"), ("1 Xrotation", "\xb2", "missing")],
)
def test_numbers_and_axes_that_are_none(tmp_path, channels, count, message):
    text = BVH.format(channels, "", count) + "0 0\n"
    (tmp_path / "x.bvh").write_text(text, encoding="latin1")
    with pytest.raises(InputError, match=message):
        read_bvh(tmp_path / "x.bvh")


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        (":root", "orientation", "line 2: cannot be read: 'orientation'"),
        (":bonedata", "direction 1 0", "line 2: cannot be read: 'direction 1 0'"),
        (":bonedata", "axis 0 0 XYZ", "line 2: cannot be read"),
        (":bonedata", "dof rx RX", "line 2: degrees of freedom rx RX"),
    ],
)
def test_lines_of_an_asf_with_too_few_numbers(tmp_path, section, line, message):
    (tmp_path / "x.asf").write_text(f"{section}\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_asf(tmp_path / "x.asf")


def test_messages_do_not_repeat_the_file(tmp_path):
    (tmp_path / "x.bvh").write_text(f"OFFSET {'9' * 100_000}x\nMOTION\n")
    (tmp_path / "x.asf").write_text(f":bonedata\nlength {'9' * 100_000}x\n")
    (tmp_path / "bones.asf").write_text(":bonedata\nbegin\nname a\nend\n:hierarchy\nroot a\n")
    (tmp_path / "x.amc").write_text(f"\xb2\n{'9' * 100_000}x 1\n", encoding="latin1")
    skeleton = read_asf(tmp_path / "bones.asf")
    for read in (
        lambda: read_bvh(tmp_path / "x.bvh"),
        lambda: read_asf(tmp_path / "x.asf"),
        lambda: read_amc(tmp_path / "x.amc", skeleton),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert len(str(error.value)) < 500


def test_yaml_of_aliases(tmp_path):
    levels = "".join(f"- &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    (tmp_path / "x.yml").write_text(f"- &a0 [1]\n{levels}")
    with pytest.raises(InputError, match="more than 1000000 entries"):
        read_yaml(tmp_path / "x.yml")
    (tmp_path / "x.yml").write_text("a: &a [1, 2]\nb: *a\n")
    assert read_yaml(tmp_path / "x.yml") == {"a": [1, 2], "b": [1, 2]}
    (tmp_path / "x.yml").write_text("&a [*a]\n")
    with pytest.raises(InputError, match="more than"):
        read_yaml(tmp_path / "x.yml")
