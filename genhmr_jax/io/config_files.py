"""Config files (configs/X.py:arg) for programs that are not absl apps, with the overrides that `--config.a.b=v` would make.

It imports no JAX: commands read configs before they know whether there is anything to compute.
"""

import ast
import difflib
import importlib.util
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import ml_collections

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand

Overrides = Mapping[str, Any] | Sequence[str]


def load_config(name: str, overrides: Overrides = ()) -> ml_collections.ConfigDict:
    """The config that `--config=NAME` with overrides gives to a training.

    Args:
      name: "path/to/file.py" or "path/to/file.py:arg".
      overrides: {"a.b": value}, or texts "a.b=value" or "--config.a.b=value", read as the type that the field has.

    Returns:
      the config, locked.

    Raises:
      InputError: no such file, argument or field (the nearest names are given), or a value of another type.
    """
    config = call(name, "get_config")
    config.lock()
    apply_overrides(config, overrides, name)
    return config


def call(name: str, function: str) -> Any:
    """What `function` of "path/to/file.py:arg" returns for the argument. It may refuse one by ValueError("... choose a, b or c").

    Raises:
      InputError: no such file or argument (the nearest names are given), or a file without the function.
    """
    file, _, arg = str(name).partition(":")
    module = load_module(file, function)
    try:
        return getattr(module, function)(arg) if arg else getattr(module, function)()
    except ValueError as error:
        known = _choices(str(error))
        raise InputError(file, f"has no argument {arg!r}", nearest(arg, known) if known else f"it says: {error}") from error


def load_module(file: str | pathlib.Path, function: str) -> ModuleType:
    """The Python file of a config or a sweep; it must define `function`.

    Raises:
      InputError: no such file, one that cannot be run, or that lacks the function.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        others = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise InputError(file, "no such config file", nearest(str(path), others) if others else f"there is no folder {path.parent}")
    spec = importlib.util.spec_from_file_location(f"genhmr_config_{path.stem}", path)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # anything may be wrong with a file that a person wrote
        raise InputError(file, f"cannot be run as Python ({type(error).__name__}: {error})", "correct the file") from error
    if not hasattr(module, function):
        raise InputError(file, f"defines no {function}()", f"see {path.parent} for files that do")
    return module


def apply_overrides(config: ml_collections.ConfigDict, overrides: Overrides, where: object = "config") -> None:
    """Sets fields of a config in place, checked as ml_collections does: an int may stand for a float, nothing else for another type.

    Raises:
      InputError: an unknown field (with the nearest ones), or a value of another type.
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
        except (TypeError, ValueError) as error:
            raise InputError(where, f"{field} cannot be {value!r}", f"give it as {type(old).__name__}, like {old!r}") from error


def field_value(config: ml_collections.ConfigDict, field: str, where: object = "config") -> Any:
    """The value of "a.b". Raises InputError when there is no such field, or it is a group of fields."""
    known = field_names(config)
    if field not in known:
        inside = [name for name in known if name.startswith(field + ".")]
        remedy = f"it is a group: give one of {', '.join(inside[:6])}" if inside else nearest(field, known)
        raise InputError(where, f"has no field {field!r}", remedy)
    *path, last = field.split(".")
    return _inner(config, path)[last]


def field_names(config: ml_collections.ConfigDict) -> list[str]:
    """All fields, as "a.b"."""
    names = []
    for key, value in config.items():
        names += [f"{key}.{name}" for name in field_names(value)] if isinstance(value, ml_collections.ConfigDict) else [key]
    return names


def parse_value(text: str, old: Any, field: str, where: object) -> Any:
    """A text that a person typed, as the type of the value `old` that it replaces.

    A `~` is expanded at the start of a text and after its commas: fields of text are paths, lists of
    paths, or names.

    Raises:
      InputError: it cannot be of that type, or there is no home directory.
    """
    if isinstance(old, str):
        return ",".join(expand(part) for part in text.split(","))
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, KeyError) as error:
        raise InputError(where, f"{field} cannot be {text!r}", f"give it as {type(old).__name__}, like {old!r}") from error
    return (value,) if isinstance(old, tuple) and not isinstance(value, list | tuple) else value


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """{"a.b": v} -> ["--config.a.b=v"], as genhmr_jax.main (absl, ml_collections) reads them. No shell quoting."""
    return [f"--config.{field}={value if isinstance(value, str) else repr(value)}" for field, value in overrides.items()]


def nearest(wanted: str, known: Iterable[str]) -> str:
    """The remedy for a name that is unknown: the nearest known names, or the first dozen when none is near."""
    known = list(dict.fromkeys(known))
    by_end = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(wanted, known, 3, 0.5) or [by_end[n] for n in difflib.get_close_matches(wanted, by_end, 3, 0.6)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"choose among {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"


class _Text(str):
    """A value as a person typed it."""


def _pairs(overrides: Overrides, where: object) -> list[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    pairs = []
    for text in overrides:
        field, equals, value = text.removeprefix("--config.").partition("=")
        if not equals:
            raise InputError(where, f"what is {text!r}?", "give FIELD=VALUE")
        pairs.append((field, _Text(value)))
    return pairs


def _inner(config: ml_collections.ConfigDict, path: list[str]) -> ml_collections.ConfigDict:
    for name in path:
        config = config[name]
    return config


def _choices(message: str) -> list[str]:
    """The names in a config's own complaint, "...: choose a, b or c"."""
    found = re.search(r"choose (?:among )?(.+)$", message)
    return re.split(r", (?:or )?| or ", found.group(1)) if found else []
