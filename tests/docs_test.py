"""Every command of docs/ and launch/ names files, flags and config fields that exist."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "launch" / "README.md"]


def commands() -> list[str]:
    found = []
    for file in FILES:
        for text in re.findall(r"^```sh\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL):
            found += [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return found


@pytest.mark.parametrize("command", commands())
def test_command_is_real(command, get_config):
    words = shlex.split(command)
    assert words[0] == "python"
    module = words[1] == "-m"
    file = ROOT / (words[2].replace(".", "/") + ".py") if module else ROOT / words[1]
    source = file.read_text()
    for flag in (w.split("=")[0] for w in words[2 + module :] if w.startswith("--")):
        if not flag.startswith("--config."):
            assert f'"{flag}"' in source or f'"{flag[2:]}"' in source, flag
    configs = re.findall(r"--config=configs/(\w+)\.py(?::(\w+))?", command)
    for name, arg in configs:
        for field in re.findall(r"--config\.([\w.]+)=", command):
            node = get_config(f"{name}:{arg}" if arg else name)
            for part in field.split("."):
                assert part in node, field
                node = node[part]


def test_there_are_commands():
    assert len(commands()) >= 8
