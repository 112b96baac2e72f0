"""`genhmr doctor`: a sound installation is called well, and everything that breaks is named."""

import configparser
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.io import diagnosis, probes
from support.paths import ROOT

DEVELOPERS = {"test", "bench", "parity", "tools"}
"""Extras that users do not need."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with one compiled program of 1000 bytes."""
    (tmp_path / "cache" / "xla").mkdir(parents=True)
    (tmp_path / "cache" / "xla" / "entry").write_bytes(bytes(1000))
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def package(folder, name: str, code: str, version: str = "99.1") -> None:
    """An installed package of one module."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_this_installation(cache, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert main.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["well"] and found["problems"] == []
    versions = found["versions"]
    assert versions["jax"] == jax.__version__ and versions["numpy"] == np.__version__
    assert versions["Python"] == platform.python_version()
    assert found["backend"] == "cpu" and found["devices"][0].startswith("cpu:0")
    assert found["assets"]["size"] > 20e6
    assert [(one["path"], one["size"], one["writable"]) for one in found["caches"]] == [
        (str(cache), 1000, True),
        (str(cache / "xla"), 1000, True),
    ]
    assert sorted(os.listdir(cache / "xla")) == ["entry"], "nothing is changed"


def test_broken_packages_are_lines_of_the_report(tmp_path, cache, monkeypatch, capsys):
    """One that raises, one that ends the process, one that is missing, and a jax that is old."""
    package(tmp_path, "av", "raise ImportError('libavcodec.so.61: cannot open\\nshared object')")
    package(tmp_path, "matplotlib", "import os\nos.abort()")
    package(tmp_path, "jax", "print('noise')\nraise RuntimeError('no jaxlib')", "0.4.1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(diagnosis.EXTRAS, "log", ({"no-such-package": "no_such"}, "logs"))
    monkeypatch.setattr(diagnosis, "REQUIRED", {"jax": "jax", "jaxlib": "jaxlib", "tqdm": "tqdm"})
    monkeypatch.setattr(diagnosis, "_least_versions", lambda: {"jax": "0.10.2"})
    assert main.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "\n4 problems:\n" in text and "noise" not in text
    again = "pip install --force-reinstall"
    for line in (
        "  jax: has the version 0.4.1, 0.10.2 is needed; pip install --upgrade jax",
        f"  jax: jax cannot be imported (RuntimeError: no jaxlib); {again} jax",
        "  av: cannot be imported (ImportError: libavcodec.so.61: cannot open shared object); ",
        "  matplotlib: cannot be imported (ends the process (SIGABRT)); ",
        "  video: broken av; clips",
        '  log: missing no-such-package; logs; pip install "genhmr_jax[log]"',
    ):
        assert f"\n{line}" in text
    assert "all is well" not in text


def test_imports_that_end_or_stop_the_process(tmp_path, monkeypatch):
    for name, code in (
        ("ends", "import os\nos._exit(7)"),
        ("stops", "import time\ntime.sleep(60)"),
        ("leaves", "raise SystemExit(0)"),
        ("talks", "print('[\"talks\", 3]')"),
    ):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    names = ["json", "ends", "talks", "stops", "leaves", "no_such_module"]
    assert probes.import_errors(names, timeout=2) == {
        "json": None,
        "ends": "ends the process (exit code 7)",
        "talks": None,
        "stops": "takes longer than 2 s",
        "leaves": "SystemExit: 0",
        "no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    }


def test_modules_of_the_working_directory_do_not_count(tmp_path, monkeypatch):
    (tmp_path / "tqdm.py").write_text("raise ValueError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert probes.import_errors(["tqdm"]) == {"tqdm": None}


def test_a_device_that_fails(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    found = probes.devices()
    assert "nonsense" in found["error"] and "devices" not in found


def test_damaged_files_are_found(tmp_path):
    for name in ("a.npz", "sub/b.txt", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 100)
    names = ("a.npz", "c", "sub/b.txt")
    hashes = [hashlib.sha256(name.encode() * 100).hexdigest() for name in names]
    lines = [f"{digest}  {name}\n" for digest, name in zip(hashes, names, strict=True)]
    (tmp_path / diagnosis.SUMS).write_text("".join(lines))
    assert diagnosis.check_assets(tmp_path) == ({"files": 3, "size": 1500}, [])
    (tmp_path / "a.npz").write_bytes(b"a.npz" * 99 + b"a.npy")
    (tmp_path / "c").unlink()
    counts, problems = diagnosis.check_assets(tmp_path)
    assert counts == {"files": 3, "size": 1400}
    assert [one.where for one in problems] == [str(tmp_path / "a.npz"), str(tmp_path / "c")]
    assert problems[0].problem == "differs from the shipped file"
    assert "cannot be read" in problems[1].problem and "force-reinstall" in problems[1].remedy
    (tmp_path / diagnosis.SUMS).write_text("nonsense")
    (problem,) = diagnosis.check_assets(tmp_path)[1]
    assert "'nonsense' is no hash and name" in problem.problem


def test_the_list_of_shipped_files_is_that_of_the_tool():
    spec = importlib.util.spec_from_file_location("hash_assets", ROOT / "tools" / "hash_assets.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    listed = (diagnosis.ASSETS / diagnosis.SUMS).read_text()
    assert listed == tool.sums(diagnosis.ASSETS), "run python tools/hash_assets.py"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_list_is_read_by_sha256sum():
    command = ["sha256sum", "--check", "--strict", "--quiet", diagnosis.SUMS]
    subprocess.run(command, cwd=diagnosis.ASSETS, check=True)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "file" / "cache"))
    (cache,), (problem,) = diagnosis._caches()
    assert not cache.writable and problem.problem == "cannot be written to"
    assert "GENHMR_CACHE" in problem.remedy
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "new" / "cache"))
    (cache,), problems = diagnosis._caches()
    assert cache.writable and problems == [] and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("version", "least", "old"),
    [("2.10.0", "2.9", False), ("0.9.9", "0.10.2", True), ("1.0rc1", "1.0", False)],
)
def test_versions_are_compared_as_numbers(version, least, old):
    assert (diagnosis._numbers(version) < diagnosis._numbers(least)) == old


def test_packages_and_extras_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    names = lambda text: {line.split(">=")[0].split("[")[0] for line in text.split()}
    assert names(setup["options"]["install_requires"]) <= diagnosis.REQUIRED.keys()
    extras = setup["options.extras_require"]
    assert set(extras) - DEVELOPERS <= diagnosis.EXTRAS.keys()
    for name in set(extras) - DEVELOPERS - {"aot"}:  # jax[tpu], which brings libtpu
        assert names(extras[name]) == diagnosis.EXTRAS[name][0].keys()
