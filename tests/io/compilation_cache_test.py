"""The caches of compiled programs, jax's and numba's.

Damaged, without room or without a place they cost no more than their absence.
"""

import importlib.util
import os
import pwd
import resource
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest

from genhmr_jax.io import compilation_cache, program_store

NOISE = np.random.default_rng(0).bytes(4000)
DAMAGES = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "noise": lambda whole: NOISE,
    "zeros": lambda whole: bytes(len(whole)),
    "half, then compressed": lambda whole: zlib.compress(zlib.decompress(whole)[:2000]),
    "of something else": lambda whole: zlib.compress(NOISE),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own: its folder, and a function that compiles as a fresh process would."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.compilation_cache import compilation_cache as jax_cache

    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_enable_xla_caches",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "cache"))

    def run() -> float:
        jax_cache.reset_cache()
        jax.clear_caches()
        program = jax.jit(lambda x: jnp.linalg.inv(jnp.sin(x) @ x.T + jnp.eye(4)).sum())
        return float(program(jnp.ones((4, 4))))

    with warnings.catch_warnings():
        assert compilation_cache.enable() == tmp_path / "cache/xla"
        yield tmp_path / "cache/xla", run
    program_store.use(None)
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def entries(folder):
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith("-cache")
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_are_written_anew_without_a_word(cache, capfd, damage):
    folder, run = cache
    right = run()
    whole = entries(folder)
    assert whole
    damaged = {name: DAMAGES[damage](content) for name, content in whole.items()}
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
    assert run() == right
    mended = entries(folder)
    assert mended.keys() == whole.keys() and not any(
        mended[name] == damaged[name] for name in mended
    )
    assert all(zlib.decompress(content) for content in mended.values())
    assert run() == right and entries(folder) == mended
    assert capfd.readouterr().err == ""


def test_a_disk_without_room_costs_one_line(cache, capfd):
    """A limit on the size of files cuts them short, as a full disk does, and needs no root."""
    folder, run = cache
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
    try:
        right = run(), run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(
        f"genhmr: {folder}: compiled programs cannot be stored (File too large); "
    )
    assert all(zlib.decompress(content) for content in entries(folder).values()), (
        "nothing cut short is left"
    )
    assert run() == right[0] == right[1] and len(entries(folder)) > 0


def test_other_warnings_are_shown_as_before(cache):
    with pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", UserWarning, stacklevel=1)


def test_two_processes_may_share_an_empty_cache(tmp_path):
    program = (
        "from genhmr_jax.io import compilation_cache; compilation_cache.enable()\n"
        "import jax, jax.numpy as jnp\n"
        "print(float(jax.jit(lambda x: jnp.linalg.inv(x + jnp.eye(4)).sum())(jnp.ones((4, 4)))))"
    )
    environment = os.environ | {"GENHMR_CACHE": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    found = [process.communicate() for process in both]
    assert found[0] == found[1] and found[0][1] == "" and float(found[0][0]) > 0
    assert all(zlib.decompress(content) for content in entries(tmp_path / "xla").values())


def without_a_home(monkeypatch) -> None:
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "GENHMR_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_directory_there_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_a_home(monkeypatch)
    assert compilation_cache.cache_directory() is None and compilation_cache.enable() is None
    for name in ("GENHMR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "~/x")
        assert compilation_cache.enable() is None
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compilation_cache.cache_directory() == tmp_path / "xdg/genhmr_jax"
    assert os.listdir() == []


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GENHMR_CACHE", raising=False)
    for given, expected in ((None, ".cache"), ("~/c", "c"), ("relative", ".cache"), ("", ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", given) if given is not None else monkeypatch.delenv(
            "XDG_CACHE_HOME", raising=False
        )
        assert compilation_cache.cache_directory() == tmp_path / expected / "genhmr_jax"
    monkeypatch.setenv("GENHMR_CACHE", "~/mine")
    assert compilation_cache.cache_directory() == tmp_path / "mine"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A function that loads a kernel of tmp_path/source as a fresh process would."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    (tmp_path / "source").mkdir()
    source = tmp_path / "source" / "kernels.py"
    source.write_text(
        "from genhmr_jax.io.compiled import compiled\n\n\n"
        "@compiled\ndef double(x):\n    return 2 * x\n"
    )

    def load():
        spec = importlib.util.spec_from_file_location("kernels", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double

    return load


def kept(folder) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*.nb?"))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["empty", "half", "noise", "zeros"])
def test_numbas_damaged_files_are_written_anew(tmp_path, kernel, suffix, damage):
    folder = tmp_path / "source/__pycache__"
    assert kernel()(2) == 4 and kept(folder) == [".nbc", ".nbi"]
    for path in folder.glob(f"*{suffix}"):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert kernel()(2) == 4
    third = kernel()
    assert third(2) == 4 and sum(third.stats.cache_hits.values()) == 1


def test_numba_without_room(tmp_path, kernel):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
    try:
        assert kernel()(2) == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_numba_beside_a_source_that_is_read_only(tmp_path, monkeypatch, kernel):
    (tmp_path / "source/__pycache__").write_text(
        "a file: no folder can be made here, not even by root"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "cache"))
    assert kernel()(2) == 4 and kept(tmp_path / "cache/numba") == [".nbc", ".nbi"]
    without_a_home(monkeypatch)
    assert kernel()(2) == 4
    assert sorted(os.listdir()) == ["cache", "source"], "no folder called ~"


def test_a_cache_that_others_can_write_is_not_used(tmp_path, monkeypatch):
    """Its files are run: another user could plant a program."""
    folder = tmp_path / "cache" / "xla"
    assert compilation_cache.usable(folder)
    folder.chmod(0o777)
    assert not compilation_cache.usable(folder)
    folder.chmod(0o755)
    folder.parent.chmod(0o777)
    assert not compilation_cache.usable(folder)
    folder.parent.chmod(0o1777)  # as /tmp: only the owner replaces a folder
    assert compilation_cache.usable(folder)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert compilation_cache.usable(folder) == (user == 0), "root may own it"
