"""`python -m benchmarks`: its flags, its groups, its table, and the document that it writes.
Nothing is measured."""

import ast
import importlib
import importlib.util
import runpy
import sys

import pytest
import setuptools

from support.paths import ROOT

sys.path.append(str(ROOT))  # the benchmarks are not installed

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import document, groups, settings, table, timing  # noqa: E402

OWN = ("genhmr_jax", "smpl_jax")
ROWS = {
    "smpl": [
        table.Row("forward", 0.002, "s", "plain", 0.005, 0.001, "by hand"),
        table.not_available("backward", "no such thing"),
    ],
    "folder": [table.Row("rate | all", 4.0, "people/s", "other", 2.0, 16.0)],
}


def test_it_is_not_installed(monkeypatch):
    found = {}
    monkeypatch.setattr(setuptools, "setup", found.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    assert "genhmr_jax.core" in found["packages"] and "smpl_jax" in found["packages"]
    assert [name for name in found["packages"] if name.split(".")[0] == "benchmarks"] == []


def test_the_flags_parse(capsys):
    parse = command.build_parser().parse_args
    args = parse(["--quick", "--only", "smpl", "photo", "--out", "a.json", "--doc", "a.md"])
    assert args.quick and args.only == ["smpl", "photo"] and args.out.name == "a.json"
    with pytest.raises(SystemExit):
        parse(["--only", "nothing"])
    assert command.main(["--list"]) == 0
    listed = [
        line.split()[0] for line in capsys.readouterr().out.splitlines()[-len(groups.GROUPS) :]
    ]
    assert listed == list(groups.GROUPS)


@pytest.mark.parametrize("name", groups.GROUPS)
def test_every_group_offers_rows(name):
    """By its source: some modules import what is not installed here."""
    tree = ast.parse((ROOT / "benchmarks" / f"{groups.GROUPS[name].module}.py").read_text())
    (rows,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "rows"]
    assert [a.arg for a in rows.args.args][:1] in ([], ["settings"])


def own_names(path):
    """The (module, name) pairs of our packages that a file uses, by its source."""
    tree, modules, used = ast.parse(path.read_text()), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(node.module).submodule_search_locations and (
                    importlib.util.find_spec(inner)
                ):
                    modules[alias.asname or alias.name] = inner
                else:
                    used.add((node.module, alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules:
                used.add((modules[node.value.id], node.attr))
    return used


@pytest.mark.parametrize("folder", ["benchmarks", "tools"])
def test_the_names_that_they_use_exist(folder):
    """They run for minutes, or need what is not installed here. So their sources are read."""
    used = {name: path for path in (ROOT / folder).rglob("*.py") for name in own_names(path)}
    missing = [
        f"{path.relative_to(ROOT)}: {module}.{name}"
        for (module, name), path in used.items()
        if not hasattr(importlib.import_module(module), name)
    ]
    assert len(used) > 50 and missing == []


def test_a_group_that_fails_is_a_row(monkeypatch, tmp_path):
    given = settings.Settings(tmp_path, tmp_path)
    monkeypatch.setitem(groups.GROUPS, "new", groups.Group("New", "no_such_module"))
    (row,) = groups.collect("new", given)
    assert row.ours is None and "no_such_module" in row.note
    module = type(sys)("benchmarks.made_up")
    timing = {"name": "a", "ours_s": 1.0, "peer": "b", "peer_s": 3.0}
    module.rows = lambda: [timing, tuple(timing.values())]
    monkeypatch.setitem(sys.modules, "benchmarks.made_up", module)
    monkeypatch.setitem(groups.GROUPS, "new", groups.Group("New", "made_up"))
    assert [row.ratio for row in groups.collect("new", given)] == [3.0, 3.0]
    module.rows = lambda settings: 1 / 0
    (row,) = groups.collect("new", given)
    assert row.note.startswith(groups.FAILED) and "ZeroDivisionError" in row.note


def test_the_table_and_its_json(tmp_path, capsys):
    first, second = ROWS["smpl"][0], ROWS["folder"][0]
    assert (first.ratio, first.share) == (2.5, 0.5)  # seconds: less is better
    assert (second.ratio, second.share) == (2.0, 0.25)  # a rate: more is better
    assert ROWS["smpl"][1].ratio is None
    table.save(tmp_path / "rows.json", {"cores": 2}, ROWS)
    assert table.load(tmp_path / "rows.json") == ({"cores": 2}, ROWS)
    text = table.text(ROWS)
    assert "2.00 ms" in text and "2.50x" in text and "no such thing" in text
    assert "| rate / all | 4.00 people/s | 2.00 people/s |" in table.markdown(ROWS)
    assert [table.value_text(v, "s") for v in (5e-6, 0.5, 90.0)] == ["5.00 us", "500 ms", "90.0 s"]


def test_the_document_is_that_of_its_results(tmp_path):
    page = ROOT / "docs" / "performance.md"
    copy = tmp_path / page.name
    copy.write_text(page.read_text())
    found, rows = table.load(ROOT / "docs" / "performance.json")
    document.write(copy, found, command.named(rows))
    again = "python -m benchmarks --from docs/performance.json --doc docs/performance.md"
    assert copy.read_text() == page.read_text(), again
    copy.write_text("no markers")
    with pytest.raises(ValueError, match="no lines"):
        document.write(copy, found, command.named(rows))


def test_a_process_is_measured():
    burn = "import sys, time; x = bytearray(2**26)\nwhile time.process_time() < 0.3: pass\n"
    found = timing.run_process([sys.executable, "-S", "-c", burn + "print(1, file=sys.stderr)"])
    assert found.code == 0 and found.stderr == "1\n"
    assert 0.25 < found.user + found.system < 2 and found.wall > 0.2
    assert 64 < found.peak < 160  # not the memory of this process, which has JAX
    with pytest.raises(RuntimeError, match="exits with 3"):
        timing.run_process([sys.executable, "-c", "raise SystemExit(3)"])
