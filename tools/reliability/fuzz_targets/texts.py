"""Targets: annotations in JSON, releases in JSON and YAML, fields of configs, command lines."""

import contextlib
import io
import os
import sys

import ml_collections

from fuzz_targets.target import Target, file, folder, refusing
from genhmr_jax.cli import main
from genhmr_jax.data.annotations import selection, user
from genhmr_jax.data.hands.releases import reading
from genhmr_jax.data.sources.reading import numbers
from genhmr_jax.io import config_files
from genhmr_jax.io.image_files import ImageFile

_FORMS = (
    b'"people"', b'"annotations"', b'"images"', b'"instance_info"', b'"bbox"', b'"boxes"',
    b'"keypoints"', b'"pose_keypoints_2d"', b'"hand_left_keypoints_2d"', b'"image_id"', b'"a.jpg"',
    b'"file_name"', b'"focal"', b'"principal_point"', b'"intrinsics"', b'"score"', b'"names"',
    b"[1,2,30,40]", b"1e999", b"NaN", b"null", b"[[[[",
)  # fmt: skip
_WORDS = tuple(
    f"{word}\n".encode()
    for word in (
        *main.COMMANDS, "--help", "--out", "--version", "--save", "obj,glb", "--fov", "60", "nan",
        "x.jpg", "--boxes", "[1,2,3,4]", "list", "build", "amass", "--config=x.py", "x.py:arg",
        "--config.a=1", "--body", "~nobody", "--seed", "-1", "--checkpoint", "--masks", "1e999",
    )
)  # fmt: skip
_FIELDS = (b"--config.", b"optim.rate=", b"steps=", b"sizes=", b"name=", b"use=", b"{[]:1}", b"0x")
_RUN = ({"convert"}, {"view"}, {"data", "list"})
"""Commands that do their work here. The others load a network, or write where a flag tells them."""


def _annotations(data: bytes) -> None:
    path, photo = file("a.json", data), ImageFile(folder() / "a.jpg", "a")
    with refusing():
        selection.people_of_image(user.read_boxes(path), None, photo, (64, 48), max_people=3)
    with refusing():
        selection.people_of_image(None, user.read_keypoints(path), photo, (64, 48))
    with refusing():
        user.camera_of_image(user.read_cameras(path), photo)
    with refusing():
        user.read_hands(path).of(photo)


def _release_json(data: bytes) -> None:
    path = file("r.json", data)
    with refusing():
        numbers(reading.read_json(path), (None, 3), "x", path)
    with refusing():
        for entry in reading.json_entries(path):
            numbers(entry, (None,), "x", path)


def _release_yaml(data: bytes) -> None:
    path = file("r.yml", data)
    with refusing():
        numbers(reading.read_yaml(path), (None,), "x", path)


def _config(data: bytes) -> None:
    """Overrides of a config's fields, a line each."""
    text = data.decode("utf-8", "surrogateescape")
    config = ml_collections.ConfigDict(
        {
            "steps": 5, "use": False, "name": "a", "sizes": (1, 2), "empty": None,
            "optim": {"rate": 0.1, "betas": [0.9, 0.99]},
        }
    )  # fmt: skip
    config.lock()
    with refusing():
        config_files.apply_overrides(config, text.split("\n"))
    with refusing():
        config_files.load_config(f"{folder()}/{text.partition(chr(10))[0]}")


def _cli(data: bytes) -> None:
    """A command line, a word a line: exit code 0, 1 or 2, and never a traceback."""
    words = [word for word in data.decode("utf-8", "surrogateescape").split("\n") if word]
    if any("\0" in word for word in words):  # no system passes such an argument
        return
    if not any(names <= set(words[:2]) for names in _RUN):
        words.append("--no-such-flag")
    before = os.getcwd()
    os.chdir(folder())
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = main.main(words)
            except SystemExit as stop:
                code = stop.code
    finally:
        os.chdir(before)
    assert code in (0, 1, 2), code
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith(" ")]
    assert code != 1 or lines, "exit code 1 without a line"
    assert code != 1 or all(line.startswith("genhmr: ") for line in lines), lines
    assert "Traceback" not in errors.getvalue()
    assert sys.stdout is not output


TARGETS = (
    Target("annotations", "data.annotations.user (JSON)", _annotations, tokens=_FORMS),
    Target("release_json", "data.hands.releases.reading, JSON", _release_json, tokens=_FORMS),
    Target("release_yaml", "data.hands.releases.reading.read_yaml", _release_yaml, longest=4096),
    Target("config", "io.config_files (--config.FIELD=VALUE)", _config, tokens=_FIELDS),
    Target("cli", "cli.main.main", _cli, longest=2000, tokens=_WORDS),
)
