"""The layout of the package: the order of rooms, the late imports by name, and file sizes."""

import ast
import importlib.util
import subprocess
import sys

import pytest

from support.paths import ROOT

PACKAGE = ROOT / "genhmr_jax"
MOST_LINES, MOST_ENTRIES = 400, 15

LATE = {
    # `genhmr --help` and cheap checks of arguments must not wait for JAX.
    "cli.angles": "io recover",
    "cli.aot": "io.atomic io.config_files systems train",
    "cli.convert": "io.model_folder systems",
    "cli.data": "data systems",
    "cli.doctor": "io",
    "cli.evaluate": "data evaluate geometry io recover systems",
    "cli.evaluate_angles": "evaluate recover systems",
    "cli.evaluate_hands": "data evaluate recover",
    "cli.flag_types": "systems",
    "cli.fit": "core geometry io recover render",
    "cli.hands": "recover",
    "cli.recover": "recover",
    "cli.serve": "recover",
    "cli.sweep": "evaluate",
    "cli.view": "recover",
    "evaluate.sweep.command": "evaluate",
    "evaluate.sweep.images": "data",
    "main": "io systems train",
    "recover.command": "detect io recover render",
    "recover.hands_command": "data detect io recover render",
    "recover.report": "render",
    "recover.server.command": "recover",
    "recover.steps": "recover",
    "recover.user_files": "data",
    # With stored programs a photo needs no network: the import of flax takes a third of a second.
    "core.encoders": "nets",
    "detect.hand_lifter": "detect",
    "detect.lifter": "detect",
    "systems.genhmr.system": "systems",
    "systems.maskhand.system": "geometry.hand_pixels systems",
    # The renderer imports data.sources.records, and so all sources: a circle.
    "data.sources.synthetic": "data.synthetic",
}
"""Modules with imports below the top of the file, and the rooms that they import there."""


@pytest.fixture(scope="module")
def drawing():
    """tools/draw_rooms.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "tools" / "draw_rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def room_of(name: str) -> str:
    return name.split(".")[0]


def test_the_root_has_the_rooms_and_little_else(drawing):
    entries = {p.name for p in PACKAGE.iterdir() if p.name != "__pycache__"}
    assert entries == {*drawing.ROOMS, "assets", "__init__.py", "main.py"}
    assert len(entries) <= MOST_ENTRIES


def test_no_import_points_upwards(drawing):
    order = list(drawing.ROOMS)
    upwards = [
        f"{name} imports {target}"
        for name, tree in drawing.modules()
        for target, _ in drawing.imports(tree)
        if room_of(target) in order and order.index(room_of(target)) > order.index(room_of(name))
    ]
    assert upwards == []


def test_no_circle(drawing):
    """Top-level imports among modules have an order; room by room they have one already."""
    trees = dict(drawing.modules())

    def module_of(target: str) -> str | None:
        return next((t for t in (target, target.rpartition(".")[0]) if t in trees), None)

    needs = {
        name: {
            module_of(target) for target, node in drawing.imports(tree) if node in tree.body
        } - {None, name}
        for name, tree in trees.items()
    }  # fmt: skip
    while ready := [name for name, others in needs.items() if not others]:
        for name in ready:
            del needs[name]
        for others in needs.values():
            others.difference_update(ready)
    assert needs == {}


def test_late_imports_are_those_listed(drawing):
    trees = dict(drawing.modules())
    trees["main"] = ast.parse((PACKAGE / "main.py").read_text())
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        for target, node in drawing.imports(tree):
            if node not in tree.body and not _for_types(tree, node):
                found.setdefault(name, set()).add(target)
    listed = {name: rooms.split() for name, rooms in LATE.items()}
    wrong = [
        f"{name}: {target}"
        for name, targets in found.items()
        for target in sorted(targets)
        if not any(f"{target}.".startswith(f"{known}.") for known in listed.get(name, ()))
    ]
    assert wrong == [], "import at the top of the file, or add it to LATE with a reason"
    assert listed.keys() == found.keys(), "LATE names a module without late imports"


def _for_types(tree: ast.Module, node: ast.AST) -> bool:
    """Whether an import stands under `if TYPE_CHECKING:`."""
    blocks = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    return any(node in block.body for block in blocks)


def test_no_file_is_long():
    long = {
        str(file.relative_to(ROOT)): lines
        for file in PACKAGE.rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_importing_starts_no_backend():
    """A module that makes a JAX array at its import would keep several processes from joining."""
    code = (
        "import importlib, pkgutil, genhmr_jax\n"
        "for module in pkgutil.walk_packages(genhmr_jax.__path__, 'genhmr_jax.'):\n"
        "    importlib.import_module(module.name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_photo_with_stored_programs_imports_no_network():
    """flax, orbax and scipy take longer to import than a photo takes to be recovered."""
    code = (
        "import sys\n"
        "import genhmr_jax.recover.steps, genhmr_jax.recover.photo\n"
        "import genhmr_jax.systems.genhmr.system\n"
        "assert not {'flax', 'optax', 'orbax', 'scipy', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_picture_is_of_these_imports(drawing):
    assert drawing.PICTURE.read_text() == drawing.draw(), "run python tools/draw_rooms.py"


def test_the_check_itself_sees_an_import_upwards(drawing, tmp_path, monkeypatch):
    for room in drawing.ROOMS:
        (tmp_path / room).mkdir()
    (tmp_path / "io" / "late.py").write_text("def f():\n    from genhmr_jax.cli import main\n")
    monkeypatch.setattr(drawing, "PACKAGE", tmp_path)
    with pytest.raises(AssertionError, match="io.late imports cli.main"):
        test_no_import_points_upwards(drawing)
