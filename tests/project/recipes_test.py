"""The recipes of configs/: they load from anywhere, have the fields of their base, and every text
that names one names one that exists."""

import pathlib
import re
import subprocess
import sys

import ml_collections
import pytest

from genhmr_jax.io.config_files import call, field_names, field_value, load_config
from genhmr_jax.io.errors import InputError
from support.paths import ROOT

CONFIGS = ROOT / "configs"
FILES = sorted(p for p in CONFIGS.glob("*/*.py") if p.parent.name != "sweeps")
RECIPES = [p for p in FILES if p.stem != "base"]
SIZES = {
    "genhmr/vit": "hlbs",
    "genhmr/vit_bedlam": "hlbs",
    "genhmr/finetune_vit": "hlbs",
    "maskhand/paper": "hlbs",
    "regressors/hmr2": "hb",
    "regressors/tokenhmr": "hb",
}
NAMED = re.compile(r"\bconfigs/[\w/]+\.py(?::\w+)?")


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


def variants() -> list[str]:
    """Paths of all recipes, with their arguments."""
    return [
        f"{path}:{size}" if size else str(path)
        for path in RECIPES
        for size in ("", *SIZES.get(name_of(path), ""))
    ]


def kinds_of(config: ml_collections.ConfigDict) -> dict[str, type]:
    return {name: type(field_value(config, name)) for name in field_names(config)}


def test_configs_are_a_base_and_recipes_for_each_system():
    systems = {p.parent.name for p in FILES}
    others = {"tokenizer", "genhmr", "regressors", "lifter", "hand_lifter"}
    siblings = {"mesh2d", "posturehmr", "maskhand", "hand_tokenizer", "neurik"}
    assert systems == others | siblings
    assert all((CONFIGS / system / "base.py").is_file() for system in systems)
    assert list(CONFIGS.glob("*.py")) == []
    assert set(SIZES) <= {name_of(p) for p in RECIPES}


@pytest.mark.parametrize("name", variants(), ids=lambda n: n.removeprefix(f"{CONFIGS}/"))
def test_a_recipe_has_the_fields_of_its_base(name):
    base = pathlib.Path(name).with_name("base.py")
    assert kinds_of(load_config(name)) == kinds_of(load_config(base))


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_its_docstring_has_its_command(path):
    doc = path.read_text().split('"""')[1]
    size = ":h" if name_of(path) in SIZES and path.parent.name in ("genhmr", "maskhand") else ""
    assert f"python -m genhmr_jax.main --config=configs/{name_of(path)}.py{size} " in doc
    assert "--workdir=runs/" in doc
    for field in re.findall(r"--config\.([\w.]+)=", doc):
        field_value(load_config(path), field)


@pytest.mark.parametrize("name", SIZES)
def test_an_unknown_size_is_refused_with_the_known_ones(name):
    known = ", ".join(SIZES[name])
    with pytest.raises(InputError, match=f"{name}.py: has no argument 'zz'; choose among {known}$"):
        load_config(f"{CONFIGS}/{name}.py:zz")


def test_lines_set_one_field_each():
    """No tuple assignments, and no groups of fields as a dict."""
    for path in FILES:
        for line in path.read_text().splitlines():
            assert not re.match(r"\s*\(?c\.[\w.]+,", line), (path, line)
            assert "ConfigDict({" not in line, (path, line)


def test_they_load_from_any_working_directory(tmp_path):
    """By paths alone: neither the checkout nor configs/ is on the module path."""
    code = (
        "import sys; from genhmr_jax.io.config_files import load_config\n"
        "assert 'jax' not in sys.modules\n"
        "for name in sys.argv[1:]: load_config(name)\n"
        "assert not any(name.split('.')[0] == 'configs' for name in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *variants()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def texts() -> list[pathlib.Path]:
    """Files of the checkout that may name a config."""
    folders = ("docs", "launch", "benchmarks", "tools", "configs", "genhmr_jax")
    ends = {".py", ".md", ".json", ".sh", ".sbatch", ".yaml", ".cfg", ""}
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in ends]
    return [ROOT / "README.md", *(p for p in files if p.is_file())]


def test_every_config_that_a_text_names_exists():
    found = {}
    for path in texts():
        for name in NAMED.findall(path.read_text(errors="ignore")):
            found.setdefault(name, path.relative_to(ROOT))
    assert len(found) > 35
    for name in found:
        if re.search(r"/[A-Z]+\b", name):  # configs/SYSTEM/RECIPE.py
            continue
        file = name.removesuffix(":SIZE")
        function = "get_sweep" if name.startswith("configs/sweeps/") else "get_config"
        try:
            call(f"{ROOT}/{file}", function)
        except InputError as error:
            pytest.fail(f"{found[name]} names {name}: {error}")
