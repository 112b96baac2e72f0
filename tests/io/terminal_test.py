"""What is printed never decides whether a photo is done: names that cannot be shown, names that
control a terminal, closed pipes."""

import io
import os
import subprocess
import sys

import pytest

from genhmr_jax.cli import main
from genhmr_jax.io import terminal
from support.fakes import install_fake_recover, save_photo


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café.jpg", "café.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        ("a\x1b[2Jb\nc\td", r"a\x1b[2Jb\x0ac\x09d"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("\U000e0001x", r"\U000e0001x"),
    ],
)
def test_what_a_terminal_would_obey_or_cannot_show_is_escaped(text, shown):
    assert terminal.printable(text) == shown
    assert terminal.printable("日本", "ascii") == r"\u65e5\u672c"


def test_a_strict_stream_gets_escapes():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", "strict", write_through=True)
    terminal.say("café: 1 person", stream)
    assert raw.getvalue() == b"caf\\xe9: 1 person" + os.linesep.encode()


def test_a_closed_stream_loses_the_line_alone():
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream.close()
    terminal.say("lost", stream)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are closed otherwise there")
@pytest.mark.parametrize("line", ["say", "complain"])
def test_a_pipe_that_nobody_reads_changes_neither_work_nor_exit_code(tmp_path, line):
    code = f"""
import sys
from genhmr_jax.io import terminal
for i in range(5):
    terminal.{line}(f"line {{i}} " + "x" * 100000)
open({str(tmp_path / "done")!r}, "w").close()
"""
    read, write = os.pipe()
    os.close(read)
    streams = (
        {"stdout": write, "stderr": subprocess.PIPE}
        if line == "say"
        else {"stderr": write, "stdout": subprocess.PIPE}
    )
    done = subprocess.run([sys.executable, "-c", code], **streams)
    os.close(write)
    assert done.returncode == 0 and (tmp_path / "done").exists()
    assert not done.stdout and not done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_photo_whose_name_is_no_text_is_done(tmp_path, monkeypatch, capfd):
    install_fake_recover(monkeypatch)
    photo = os.path.join(os.fsencode(tmp_path), b"caf\xe9\x1b[2J.jpg")
    with open(photo, "wb") as file:
        file.write(save_photo(tmp_path / "plain.jpg").read_bytes())
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), "utf-8", "strict")
    )
    assert (
        main.main(["recover", str(tmp_path), "--out", str(tmp_path / "out"), "--no-overlay"]) == 0
    )
    sys.stdout.flush()
    out, err = capfd.readouterr()
    assert r"caf\xe9\x1b[2J.jpg: 2 people" in out and "\x1b" not in out + err
    assert len(os.listdir(tmp_path / "out")) == 2


def test_errors_show_names_escaped(tmp_path, monkeypatch, capsys):
    install_fake_recover(monkeypatch)
    assert (
        main.main(["recover", str(tmp_path / "a\x1b]0;x\x07.jpg"), "--out", str(tmp_path / "out")])
        == 1
    )
    assert r"a\x1b]0;x\x07.jpg: no such file" in capsys.readouterr().err
