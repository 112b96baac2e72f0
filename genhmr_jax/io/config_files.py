"""Config files (configs/SYSTEM/RECIPE.py), and overrides of their fields (`--config.a.b=v`).

A config file is read by its path, from any working directory; configs/ is not a package. A recipe
takes the fields of another file with `start_from`.

This module does not import JAX: commands read configs before they compute anything.
"""

import ast
import difflib
import importlib.util
import inspect
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import ml_collections

from genhmr_jax.io.errors import InputError, shortened
from genhmr_jax.io.paths import expand

Overrides = Mapping[str, Any] | Sequence[str]


def load_config(name: str, overrides: Overrides = ()) -> ml_collections.ConfigDict:
    """Load the config that a training with `--config=NAME` and overrides uses.

    Args:
      name: "path/to/file.py" or "path/to/file.py:arg".
      overrides: {"a.b": value}, or texts "a.b=value" or "--config.a.b=value", parsed as the type
        of the field.

    Returns:
      the config, locked.

    Raises:
      InputError: no such file, argument or field (the message has the nearest names), or a value
        of another type.
    """
    config = call(name, "get_config")
    config.lock()
    apply_overrides(config, overrides, name)
    return config


def start_from(here: str, name: str) -> ml_collections.ConfigDict:
    """The config of another file, for a recipe to change: `c = start_from(__file__, "base.py")`.

    Args:
      here: `__file__` of the recipe.
      name: "file.py" or "file.py:arg"; its path is relative to the folder of the recipe.

    Raises:
      InputError: no such file, or it cannot be run.
      ValueError: the file does not have this argument.
    """
    file, _, arg = name.partition(":")
    get_config = load_module(pathlib.Path(here).parent / file, "get_config").get_config
    return get_config(arg) if arg else get_config()


def call(name: str, function: str) -> Any:
    """Call `function` of the file in "path/to/file.py:arg" with the argument.

    For an unknown argument the function must raise ValueError("... choose a, b or c").

    Raises:
      InputError: no such file or argument (the nearest names are given), or a file without the
        function.
    """
    file, _, arg = str(name).partition(":")
    found = getattr(load_module(file, function), function)
    if arg and not inspect.signature(found).parameters:
        remedy = _other_files(pathlib.Path(file).with_name(f"{arg}.py"))
        raise InputError(file, f"takes no argument, but {arg!r} was given", remedy)
    try:
        return found(arg) if arg else found()
    except InputError:
        raise
    except ValueError as error:
        known = _choices(str(error))
        remedy = nearest(arg, known) if known else f"the file reports: {error}"
        raise InputError(file, f"has no argument {arg!r}", remedy) from error


def load_module(file: str | pathlib.Path, function: str) -> ModuleType:
    """Import the Python file of a config or a sweep, which must define `function`.

    Raises:
      InputError: the file does not exist, cannot be run, or lacks the function.
    """
    path = pathlib.Path(file)
    if not os.path.isfile(path):  # False too for a name that is too long
        raise InputError(shortened(file, 400), "no such config file", _other_files(path))
    spec = importlib.util.spec_from_file_location(f"genhmr_config_{path.stem}", path)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # code that a user wrote can raise anything
        problem = f"cannot be run as Python ({type(error).__name__}: {error})"
        raise InputError(file, problem, "correct the file") from error
    if not hasattr(module, function):
        raise InputError(file, f"defines no {function}()", f"see {path.parent} for files that do")
    return module


def apply_overrides(
    config: ml_collections.ConfigDict, overrides: Overrides, where: object = "config"
) -> None:
    """Set fields of a config in place.

    Types are checked as ml_collections does: an int is accepted for a float, and no other type for
    another one.

    Raises:
      InputError: an unknown field (the message has the nearest ones), or a value of another type.
    """
    for field, value in _pairs(overrides, where):
        old = field_value(config, field, where)
        if isinstance(value, _Text):
            value = parse_value(value, old, field, where)
        *path, last = field.split(".")
        try:
            if isinstance(old, tuple):
                value = tuple(value) if isinstance(value, list | tuple) else value
            _inner(config, path)[last] = value
        except (TypeError, ValueError, OverflowError) as error:
            remedy = f"give it as {type(old).__name__}, like {old!r}"
            raise InputError(where, f"{field} cannot be {_shown(value)}", remedy) from error


def field_value(config: ml_collections.ConfigDict, field: str, where: object = "config") -> Any:
    """The value of the field "a.b".

    Raises:
      InputError: there is no such field, or it is a group of fields.
    """
    known = field_names(config)
    if field not in known:
        inside = [name for name in known if name.startswith(field + ".")]
        group = f"it is a group: give one of {', '.join(inside[:6])}"
        raise InputError(
            where, f"has no field {field!r}", group if inside else nearest(field, known)
        )
    *path, last = field.split(".")
    return _inner(config, path)[last]


def field_values(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The values of all fields: {"a.b": value}."""
    values = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            values |= {f"{key}.{name}": inner for name, inner in field_values(value).items()}
        else:
            values[key] = value
    return values


def field_names(config: ml_collections.ConfigDict) -> list[str]:
    """All fields, as "a.b"."""
    return list(field_values(config))


def parse_value(text: str, old: Any, field: str, where: object) -> Any:
    """Parse a text that the user typed as the type of the value `old` that it replaces.

    A `~` is expanded at the start of a text and after its commas: text fields are paths, lists of
    paths, or names.

    Raises:
      InputError: the text cannot be of that type, or there is no home directory.
    """
    if isinstance(old, str):
        return ",".join(expand(part) for part in text.split(","))
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = ast.literal_eval(text)
    # literal_eval: SyntaxError, a TypeError for {[]: 1}, a MemoryError for deep nesting, ...
    except Exception as error:
        remedy = f"give it as {type(old).__name__}, like {old!r}"
        raise InputError(where, f"{field} cannot be {shortened(repr(text))}", remedy) from error
    return (value,) if isinstance(old, tuple) and not isinstance(value, list | tuple) else value


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """{"a.b": v} -> ["--config.a.b=v"], as genhmr_jax.main reads them. No shell quoting."""
    return [
        f"--config.{field}={value if isinstance(value, str) else repr(value)}"
        for field, value in overrides.items()
    ]


def nearest(wanted: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: similar known names, or the first twelve of all."""
    known = list(dict.fromkeys(known))
    by_end = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(wanted, known, 3, 0.5) or [
        by_end[n] for n in difflib.get_close_matches(wanted, by_end, 3, 0.6)
    ]
    return _named(near, known)


def _other_files(path: pathlib.Path) -> str:
    """The remedy for a file that does not exist: existing files with similar names.

    They are in its folder, in the folder of its name (configs/NAME.py), or in a folder of a
    similar name.
    """
    folder = path.parent
    if os.path.isdir(path.with_suffix("")):
        folder = path.with_suffix("")
    elif not os.path.isdir(folder) and os.path.isdir(folder.parent):
        known = [p.name for p in folder.parent.iterdir() if p.is_dir()]
        for name in difflib.get_close_matches(folder.name, known, 1):
            folder = folder.parent / name
    if not os.path.isdir(folder):
        return f"there is no folder {shortened(folder, 400)}"
    files = {p.stem: str(p) for p in sorted(folder.glob("*.py"))}
    near = difflib.get_close_matches(path.stem, files, 3, 0.5)
    return _named([files[name] for name in near], list(files.values()))


def _named(near: list[str], known: list[str]) -> str:
    """A remedy that lists the similar names, or the first twelve of `known` if there are none."""
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"choose among {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"


def _shown(value: Any) -> str:
    """The repr of a value for a message. Python refuses to print a number of 4300 digits."""
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):
        return f"such a large {type(value).__name__}"


class _Text(str):
    """A value as the user typed it."""


def _pairs(overrides: Overrides, where: object) -> list[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    pairs = []
    for text in overrides:
        field, equals, value = text.removeprefix("--config.").partition("=")
        if not equals:
            raise InputError(where, f"{text!r} is not an override", "give FIELD=VALUE")
        pairs.append((field, _Text(value)))
    return pairs


def _inner(config: ml_collections.ConfigDict, path: list[str]) -> ml_collections.ConfigDict:
    for name in path:
        config = config[name]
    return config


def _choices(message: str) -> list[str]:
    """The names in the error message of a config, "...: choose a, b or c"."""
    found = re.search(r"choose (?:among )?(.+)$", message)
    return re.split(r", (?:or )?| or ", found.group(1)) if found else []
