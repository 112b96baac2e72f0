"""Every command of docs/ and launch/ names files, flags and config fields that exist."""

import re
import shlex

import pytest

from genhmr_jax.cli import main
from support.paths import ROOT

FILES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "launch" / "README.md"]


def commands() -> list[str]:
    """Every line of a ```sh block; a launcher's line as two: what stands before and after its
    --."""
    found = []
    for file in FILES:
        for text in re.findall(r"^```sh\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL):
            for line in text.replace("\\\n", " ").splitlines():
                found += [part for part in line.split(" -- ") if part.strip()]
    return found


@pytest.mark.parametrize("command", commands())
def test_command_is_real(command, get_config):
    words = shlex.split(command)
    if words[0] == "genhmr":
        _, rest = main.build_parser().parse_known_args(words[1:])
        assert all(flag.startswith("--config.") for flag in rest), rest
    else:
        assert words[0] == "python"
        module = words[1] == "-m"
        file = ROOT / (words[2].replace(".", "/") if module else words[1])
        if module:  # a package runs its __main__
            file = file / "__main__.py" if file.is_dir() else file.with_suffix(".py")
        source = file.read_text()
        for flag in (w.split("=")[0] for w in words[2 + module :] if w.startswith("--")):
            if not flag.startswith("--config."):
                assert f'"{flag}"' in source or f'"{flag[2:]}"' in source, flag
    configs = re.findall(r"--config=configs/([\w/]+)\.py(:\w+)?", command)
    for name, arg in configs:
        for field in re.findall(r"--config\.([\w.]+)=", command):
            node = get_config(name + arg)
            for part in field.split("."):
                assert part in node, field
                node = node[part]


def test_there_are_commands():
    assert len(commands()) >= 8
