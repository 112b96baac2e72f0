"""A `~` that no shell expanded: in every flag that is a path, with and without a home directory."""

import argparse
import os
import pwd

import pytest

from genhmr_jax import main as training
from genhmr_jax.cli import main
from genhmr_jax.io.config_files import load_config
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import FlagError, expand, path_flag, photo_path
from support.fakes import install_fake_recover, save_photo

ELSEWHERE = {"--remote-out", "--image"}  # a path on other machines, a container's name
PLACES = ("DIR", "FILE", "JSON", "NPZ")


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A home directory beside the working directory."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture(params=["unset", "empty", "relative"])
def nobody(request, tmp_path, monkeypatch):
    """A user id without a name, and no HOME, as in `docker run --user 12345`."""

    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    if request.param != "unset":
        monkeypatch.setenv("HOME", {"empty": "", "relative": "~"}[request.param])
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def flags(parser: argparse.ArgumentParser):
    """All actions of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags(command)
        else:
            yield action


def test_every_flag_that_is_a_path_expands_it():
    parsers = [main.build_parser(), training.build_parser()]
    actions = [action for parser in parsers for action in flags(parser)]
    paths = [
        a
        for a in actions
        if str(a.metavar).startswith((*PLACES, "IMAGE_OR_DIR"))
        and not ELSEWHERE & set(a.option_strings)
    ]
    paths += [a for a in actions if a.dest == "body"]
    assert len(paths) > 25
    assert [a.dest for a in paths if a.type not in (path_flag, photo_path)] == []


def test_a_home_directory_stands_for_its_sign(at_home):
    assert expand("~") == str(at_home) and expand("~/x/y.jpg") == expand("~//x/y.jpg") == str(
        at_home / "x/y.jpg"
    )
    for text in ("x", "./~", "a/~/b", "", "gs://bucket/~", "x~"):
        assert expand(text) == text
    user = pwd.getpwuid(os.getuid())
    assert expand(f"~{user.pw_name}/x") == os.path.join(user.pw_dir, "x")


def test_names_that_begin_with_the_sign(at_home):
    with pytest.raises(
        InputError,
        match=r"~nobody_is_called_so/x: .*neither a file '~nobody_is_called_so' here nor a user",
    ):
        expand("~nobody_is_called_so/x")
    (at_home.parent / "here" / "~photo.jpg").touch()
    (at_home.parent / "here" / "~").mkdir()
    assert expand("~photo.jpg") == "~photo.jpg"
    assert expand("~/x") == str(at_home / "x"), "a folder called ~ is ./~"


def test_without_a_home_directory_there_is_one_error(nobody, capsys):
    with pytest.raises(InputError, match="~/x: there is no home directory"):
        expand("~/x")
    with pytest.raises(FlagError, match="~/x: there is no home directory"):
        path_flag("~/x")
    assert photo_path("~/x.jpg") == "~/x.jpg"
    assert main.main(["recover", "x.jpg", "--out=~/x"]) == 1
    with pytest.raises(SystemExit) as stop:
        training.main(["--config=configs/tokenizer/tiny.py", "--workdir=~/x"])
    assert str(stop.value.code).startswith("genhmr_jax.main: ~/x: there is no home directory")
    lines = capsys.readouterr().err.splitlines()
    assert (
        len(lines) == 1
        and lines[0].startswith("genhmr: ~/x: there is no home directory")
        and not os.listdir()
    )


def test_recover_reads_and_writes_at_home(at_home, monkeypatch):
    calls = install_fake_recover(monkeypatch)
    save_photo(at_home / "a.jpg")
    (at_home / "boxes.json").write_text('{"a": [[1, 2, 30, 39]]}')
    assert (
        main.main(
            [
                "recover",
                "~/a.jpg",
                "--out=~/results",
                "--boxes=~/boxes.json",
                "--checkpoint=~/model",
                "--body=~/my.npz",
            ]
        )
        == 0
    )
    assert sorted(os.listdir(at_home / "results")) == ["a.npz", "a_overlay.png"]
    assert calls.loaded == [(str(at_home / "model"), str(at_home / "my.npz"))]
    assert os.listdir() == []


def test_a_photo_that_is_not_there_does_not_stop_the_others(at_home, monkeypatch, capsys):
    install_fake_recover(monkeypatch)
    save_photo(at_home / "a.jpg")
    assert main.main(["recover", "~nobody_is_called_so.jpg", "~/a.jpg", "--out=~/results"]) == 1
    assert "~nobody_is_called_so.jpg: no such file" in capsys.readouterr().err
    assert (at_home / "results/a.npz").exists()


def test_fields_of_configs(at_home):
    (at_home / "mine.py").write_text(
        "import ml_collections\n"
        "fields = {'poses': 'x.npz', 'init': '', 'mixture': 'a=1', 'steps': 3}\n"
        "def get_config(): return ml_collections.ConfigDict(fields)\n"
    )
    given = [
        "--config.poses=~/p.npz",
        "--config.init=~/a/model,runs/b,~/c",
        "--config.mixture=a=0.3,b=0.7",
        "--config.steps=4",
    ]
    config = load_config(expand("~/mine.py"), given)
    assert (
        config.poses == str(at_home / "p.npz")
        and config.steps == 4
        and config.mixture == "a=0.3,b=0.7"
    )
    assert config.init == f"{at_home}/a/model,runs/b,{at_home}/c"
