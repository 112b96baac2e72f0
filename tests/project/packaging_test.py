"""What the package needs, what it ships, and that it works without a network.

tools/reliability/supply_chain.py builds the wheel, and installs and uses it.
"""

import ast
import collections
import configparser
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from support.paths import ROOT
from support.reliability import reliability_tool

PACKAGES = {"genhmr_jax": ROOT / "genhmr_jax", "smpl_jax": ROOT / "third_party/smpl_jax/smpl_jax"}
MODULES = {
    "pillow": "PIL", "absl-py": "absl", "orbax-checkpoint": "orbax", "pyyaml": "yaml",
    "prometheus-client": "prometheus_client", "tensorflow-datasets": "tensorflow_datasets",
    "tensorboardx": "tensorboardX",
}  # fmt: skip
"""Packages whose module has another name."""
PART_OF = {"starlette": "fastapi", "pydantic": "fastapi", "jaxlib": "jax", "libtpu": "jax"}
"""Modules in the interface of another package, which brings them."""
NOT_IMPORTED = {"flatbuffers"}
"""Needed by jax.export, which stores programs, and which does not require it itself."""
OWN = {"server"}
"""Folders of the assets whose files are of this project, and made from nobody's data."""
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("genhmr_jax", "smpl_jax"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        importlib.import_module(module.name)
print(len(sys.modules))
"""


@pytest.fixture(scope="module")
def imported():
    """Module of another package -> (files that import it at the top, files that do so later)."""
    found = collections.defaultdict(lambda: (set(), set()))
    for folder in PACKAGES.values():
        for file in folder.rglob("*.py"):
            tree = ast.parse(file.read_text())
            top = set(map(id, tree.body))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                else:
                    continue
                for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                    found[name][id(node) not in top].add(str(file.relative_to(ROOT)))
    return {name: files for name, files in found.items() if name not in PACKAGES}


@pytest.fixture(scope="module")
def required():
    """The modules of install_requires, and of the extras by their names."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    def modules(text: str) -> set[str]:
        names = [re.split(r"[>=<\[]", line)[0].lower() for line in text.split()]
        return {MODULES.get(name, name) for name in names}

    extras = setup["options.extras_require"]
    return modules(setup["options"]["install_requires"]), {
        name: modules(text) for name, text in extras.items()
    }


def test_every_import_is_required(imported, required):
    """Without an extra, what any module imports at its top; servers have an extra of their own."""
    always, extras = required
    extras = {name: found for name, found in extras.items() if name not in ("test", "tools")}
    for module, (top, late) in imported.items():
        name = PART_OF.get(module, module)
        server = {file for file in top if file.startswith("genhmr_jax/recover/server/")}
        if top - server:
            assert name in always, f"{module}: {sorted(top - server)}"
        elif server:
            assert name in always | extras["server"], f"{module}: {sorted(server)}"
        assert name in always.union(*extras.values()), f"{module}: {sorted(late)}"


def test_every_requirement_is_imported(imported, required):
    assert required[0] - imported.keys() == NOT_IMPORTED


def test_every_folder_of_assets_has_its_source_in_the_notice():
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    folders = {path.name for path in (PACKAGES["genhmr_jax"] / "assets").iterdir() if path.is_dir()}
    assert OWN <= folders
    for folder in folders - OWN:
        assert f"genhmr_jax/assets/{folder}" in notice, folder
    words = {"palmdetection": "palm detector", "handlandmark": "hand landmark network"}
    for network in (PACKAGES["genhmr_jax"] / "assets" / "eyes").glob("*.npz"):
        name = network.stem.split("-")[0]
        assert words.get(name, name).lower() in notice.lower(), network.name


def test_licences_that_need_a_decision():
    licences = {
        "free": "Apache-2.0 AND MIT", "choice": "MIT OR GPL-2.0", "tqdm": "MPL-2.0 AND MIT",
        "word": "in compliance with the License", "bad": "GNU Affero (AGPLv3)", "other": "MPL-2.0",
        "silent": "", "unsaid": "UNKNOWN",
    }  # fmt: skip
    found = reliability_tool("supply_chain").doubtful(licences)
    assert set(found) == {"bad", "other", "silent", "unsaid"}


@pytest.fixture
def offline(tmp_path):
    """Settings of a process whose sockets reach nothing."""
    folder = tmp_path / "offline"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(reliability_tool("supply_chain").OFFLINE)
    paths = [str(folder), str(ROOT), str(ROOT / "third_party" / "smpl_jax")]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "GENHMR_CACHE": str(tmp_path / "cache")}
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | settings


def test_the_block_works(offline):
    script = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True)
    assert done.returncode and b"the network is blocked" in done.stderr


def test_no_module_needs_the_network_when_it_is_imported(offline, tmp_path):
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, env=offline, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 500


@pytest.mark.slow
def test_the_demo_needs_no_network(offline, tmp_path):
    command = [sys.executable, "-m", "genhmr_jax.cli.main", "demo", "--out", "demo"]
    done = subprocess.run(command, env=offline, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(np.load(pathlib.Path(tmp_path, "demo", "person.npz"))["vertices"]) == 1
