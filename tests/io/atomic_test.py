"""Files that cannot be written: one line that names the output, and nothing half-written."""

import contextlib
import errno
import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.io import atomic
from genhmr_jax.io.atomic import atomic_path, check_writable, disk_error, sync
from genhmr_jax.io.errors import InputError
from genhmr_jax.render.export.mesh import save_mesh
from support.fakes import fake_people, install_fake_recover, save_photo


@contextlib.contextmanager
def room(size: int):
    """No file may grow beyond `size` bytes: the system cuts writes short, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_text(path):
    with atomic_path(path) as temporary:
        temporary.write_text("x" * 9000)


def write_arrays(path):
    with atomic_path(path) as temporary:
        np.savez(temporary, x=np.zeros(9000))


def write_mesh(path):
    save_mesh(path, np.random.default_rng(0).random((900, 3)), np.zeros((1, 3), np.int32))


FULL = os.strerror(errno.ENOSPC)
WRITERS = {
    "x.json": write_text,
    "x.npz": write_arrays,
    "x.obj": write_mesh,
    "people.npz": lambda path: fake_people(2).save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_does_not_fit_names_the_output_and_leaves_the_old_file(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with room(1000), pytest.raises(InputError) as error:
        WRITERS[name](path)
    assert str(error.value).startswith(f"{path}: cannot be written (File too large); ")
    assert path.read_text() == "old" and os.listdir(tmp_path) == [name]


def test_a_full_disk_asks_for_space(tmp_path):
    line = r"x.txt: cannot be written \(No space left on device\); free some space"
    with pytest.raises(InputError, match=line), atomic_path(tmp_path / "x.txt"):
        raise OSError(errno.ENOSPC, FULL)
    assert not os.listdir(tmp_path)


def test_errors_of_other_files_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as error, atomic_path(tmp_path / "x.txt"):
        open(tmp_path / "another.txt")
    assert error.value.filename == str(tmp_path / "another.txt") and not os.listdir(tmp_path)
    with pytest.raises(OSError, match="encoder error"), atomic_path(tmp_path / "x.jpg"):
        raise OSError("encoder error -2")  # Pillow's, without a number


@pytest.mark.parametrize("stem", ["n" * 251, "é" * 125 + "n", "日" * 83 + "nn"])
def test_the_longest_names_can_be_written(tmp_path, stem):
    """251 bytes and .npz are 255, what file systems take; a temporary name must not be longer."""
    assert len(os.fsencode(stem)) == 251
    fake_people(1).save(tmp_path / f"{stem}.npz")
    assert os.listdir(tmp_path) == [f"{stem}.npz"]


@pytest.mark.parametrize("name", ["n" * 256, "n" * 10 + "." + "s" * 250])
def test_names_that_are_too_long(tmp_path, name):
    for write in (lambda path: write_text(path), check_writable):
        with pytest.raises(
            InputError, match=rf"its name of {len(name)} bytes is too long\); .*shorter name"
        ):
            write(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(InputError, match=r"x.npz: cannot be written \(Is a directory\)"):
        write_arrays(tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"x.npz: is a folder"):
        check_writable(tmp_path / "x.npz")
    assert os.listdir(tmp_path) == ["x.npz"]


def test_a_try_before_long_work_changes_nothing(tmp_path):
    (tmp_path / "old.json").write_text("old")
    assert check_writable(tmp_path / "old.json").read_text() == "old"
    check_writable(tmp_path / "new.json")
    with pytest.raises(
        InputError,
        match=r"gone/x.json: cannot be written \(No such file or directory\); make the folder",
    ):
        check_writable(tmp_path / "gone/x.json")
    with room(1000), pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path / "new.json")
    assert os.listdir(tmp_path) == ["old.json"]


def test_a_photo_whose_results_do_not_fit(tmp_path, monkeypatch, capsys):
    install_fake_recover(monkeypatch)
    photo = save_photo(tmp_path / "a.jpg")
    with room(500):
        assert main.main(["recover", str(photo), "--out", str(tmp_path / "small")]) == 1
    assert "small: cannot be written to (File too large)" in capsys.readouterr().err
    monkeypatch.setattr(
        "genhmr_jax.io.atomic.os.replace",
        lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, FULL)),
    )
    assert main.main(["recover", str(photo), "--out", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err
    assert line.startswith(
        f"genhmr: {tmp_path / 'out' / 'a.npz'}: cannot be written (No space left on device)"
    )
    assert line.count("\n") == 1 and not os.listdir(tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError(f'Failed to write split "train": write() failed: {FULL}; writing x'),
            f"data: cannot be written ({FULL})",
        ),
        (
            ValueError(f"RESOURCE_EXHAUSTED: [os_error_code='28'] {FULL}"),
            f"data: cannot be written ({FULL})",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "x/y"),
            "x/y: cannot be written (Read-only file system)",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x/y"),
            "x/y: No such file or directory; check the path",
        ),
        (ValueError("shapes do not match"), None),
        (OSError("no number"), None),
    ],
)
def test_errors_of_libraries_that_write_themselves(monkeypatch, capsys, error, line):
    found = disk_error(error, "data")
    assert found is None if line is None else str(found).startswith(line)

    def build(*_, **__):
        raise error

    monkeypatch.setattr("genhmr_jax.data.builders.build", build)
    arguments = ["data", "build", "amass", "--manual-dir", "m", "--data-dir", "data"]
    if line is None:
        with pytest.raises(type(error)):
            main.main(arguments)
        return
    assert main.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"genhmr: {line}")
    monkeypatch.setenv("GENHMR_DEBUG", "1")
    with pytest.raises(type(error)):
        main.main(arguments)


def test_aot_tries_its_file_before_it_compiles(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("genhmr_jax.cli.aot.measure", lambda *_, **__: pytest.fail("compiled"))
    arguments = [
        "aot",
        "--config=configs/genhmr/tiny.py",
        "--topology=v5e:2x2",
        f"--json={tmp_path}/gone/x.json",
    ]
    assert main.main(arguments) == 1
    assert "gone/x.json: cannot be written" in capsys.readouterr().err


def test_threads_that_read_the_umask_leave_it():
    before, interval = atomic._umask(), sys.getswitchinterval()
    read = lambda _: [atomic._umask() for _ in range(3000)]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            seen = set().union(*pool.map(read, range(4)))
    finally:
        sys.setswitchinterval(interval)
    after = os.umask(before)
    os.umask(before)
    assert seen == {before} and after == before


def test_the_umask_holds(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x.json")
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640 and atomic._umask() == before


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a loss of power leaves an empty file under the name of the whole one."""
    order, path = [], tmp_path / "a.json"
    fsync, replace = os.fsync, os.replace
    synced = lambda handle: (order.append(("sync", os.fstat(handle).st_ino)), fsync(handle))
    renamed = lambda a, b: (order.append(("name", os.stat(a).st_ino)), replace(a, b))
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    with atomic_path(path) as temporary:
        temporary.write_text("{}")
    inode = path.stat().st_ino
    assert order == [("sync", inode), ("name", inode)]


def test_a_folder_is_synced_with_all_that_is_in_it(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_text("a")
    (tmp_path / "link").symlink_to("nothing")
    found = []
    monkeypatch.setattr(os, "fsync", lambda handle: found.append(os.fstat(handle).st_ino))
    sync(tmp_path)
    places = (tmp_path / "inner" / "a", tmp_path / "inner", tmp_path)
    assert found == [place.stat().st_ino for place in places]


def test_a_file_system_without_sync(tmp_path, monkeypatch):
    def fails(code):
        def fsync(handle):
            raise OSError(code, os.strerror(code))

        return fsync

    (tmp_path / "a").write_text("a")
    monkeypatch.setattr(os, "fsync", fails(errno.EINVAL))
    sync(tmp_path / "a")
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync(tmp_path / "a")
