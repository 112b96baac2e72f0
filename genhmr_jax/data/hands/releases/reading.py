"""Readers of the untrusted files of hand releases: JSON, also larger than memory, YAML, images."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.data.sources.reading import numbers
from genhmr_jax.data.sources.source import Report
from genhmr_jax.io.errors import InputError, shortened

_AGAIN = "download it again"
_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 20  # characters
MOST_NODES = 1_000_000
"""Entries of a YAML file with its aliases written out; files of DexYCB have 100."""
_LONGEST = 1 << 24  # characters of one entry; the longest of a release has 10^5


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      InputError: it cannot be read, or is not whole JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not whole JSON ({error})", _AGAIN) from error


def json_entries(path: Path) -> Iterator[Any]:
    """The entries of a JSON list, one after another; only one of them is in memory at a time.

    The vertices of FreiHAND are 1.5 GB of text, which `json.loads` would turn into 4 GB.

    Raises:
      InputError: it cannot be read, is no list, or is cut short. The entries before the fault have
        been yielded then.
    """
    decoder, text, place = json.JSONDecoder(), "", 0
    opening, done = True, False
    skip = lambda start: _SPACE.match(text, start).end()
    try:
        with path.open(encoding="utf-8") as file:
            while True:
                # 1. What is in the text already. `place` moves on, as slices would copy megabytes.
                place = skip(place)
                if opening and place < len(text):
                    if text[place] != "[":
                        raise InputError(path, "does not hold a list", _AGAIN)
                    place, opening = place + 1, False
                    continue
                if text[place : place + 1] == "]":
                    return
                try:
                    entry, end = decoder.raw_decode(text, place)
                    end = skip(end)
                except ValueError:
                    end = len(text)  # perhaps the entry continues in the next chunk
                # A number at the end of the text could have more digits in the next chunk.
                if end < len(text):
                    if text[end] not in ",]":
                        raise InputError(path, "is not a JSON list", _AGAIN)
                    yield entry
                    place = end + (text[end] == ",")
                    continue
                # 2. The next chunk.
                if done or len(text) - place > _LONGEST:
                    raise InputError(path, "is not a whole JSON list", _AGAIN)
                chunk = file.read(_CHUNK)
                text, place, done = text[place:] + chunk, 0, not chunk
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(path, f"is not a whole JSON list ({error})", _AGAIN) from error


def together(paths: Sequence[Path]) -> Iterator[tuple[Any, ...]]:
    """The entries of several JSON lists side by side.

    Raises:
      InputError: as `json_entries`, or the lists have different lengths.
    """
    end = object()
    lists, count = [json_entries(path) for path in paths], 0
    while True:
        entries = tuple(next(entries, end) for entries in lists)
        ended = [path for path, entry in zip(paths, entries, strict=True) if entry is end]
        if len(ended) == len(paths):
            return
        if ended:
            longer = next(path for path in paths if path not in ended)
            problem = f"ends after {count} samples, but {longer.name} has more"
            raise InputError(ended[0], problem, "download both again")
        yield entries
        count += 1


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: only plain data.

    Raises:
      InputError: PyYAML is not installed, or the file cannot be read.
    """
    try:
        import yaml
    except ImportError as error:
        remedy = "install PyYAML: pip install pyyaml"
        raise InputError(path, "needs PyYAML to be read", remedy) from error
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        node = loader.get_single_node()
        _check_aliases(node, {})
        return None if node is None else loader.construct_document(node)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except Exception as error:  # its constructors of dates and numbers raise many types
        raise InputError(path, f"is not YAML ({shortened(error, 200)})", _AGAIN) from error


def _check_aliases(node: Any, sizes: dict[int, float]) -> float:
    """The number of nodes below a node of YAML, with each alias counted as a copy.

    Nine lines of aliases can stand for 10^9 entries, which NumPy would write out.

    Raises:
      ValueError: there are more than MOST_NODES, or a node contains itself.
    """
    if node is None:
        return 0
    if id(node) not in sizes:
        sizes[id(node)] = float("inf")  # while it is counted
        inside = node.value if isinstance(node.value, list) else []
        parts = (part for entry in inside for part in (entry if type(entry) is tuple else (entry,)))
        sizes[id(node)] = 1 + sum(_check_aliases(part, sizes) for part in parts)
    if sizes[id(node)] > MOST_NODES:
        raise ValueError(f"more than {MOST_NODES} entries")
    return sizes[id(node)]


def finite(value: Any, shape: tuple[int | None, ...], name: str, where: object) -> np.ndarray:
    """The value as float64 of a checked shape, without NaN or Inf.

    Raises:
      InputError: not numbers, another shape, or not finite.
    """
    array = numbers(value, shape, name, where)
    if not np.isfinite(array).all():
        problem = f"{name} has numbers that are not finite"
        raise InputError(where, problem, "leave it out, or download the labels again")
    return array


def present(path: Path, where: object) -> Path:
    """The path of an image, if there is such a file.

    Raises:
      InputError: there is none.
    """
    if not path.is_file():
        remedy = "unpack the images again, or skip bad records"
        raise InputError(where, f"its image {path} is absent", remedy)
    return path


def next_or_none(entries: Iterator[Any], report: Report) -> Any:
    """The next entry; None at the end, and after a fault that `report` has listed."""
    with report.skipping():
        return next(entries, None)
    return None


def inside(name: str, where: object) -> str:
    """The name of a file in a release, if it stays inside the release.

    Raises:
      InputError: it is not text, is absolute, or leads out of the folder.
    """
    parts = Path(name).parts if isinstance(name, str) else ()
    if not parts or ".." in parts or Path(name).is_absolute() or "\0" in name:
        problem = f"names the file {name!r}, which is not inside the release"
        raise InputError(where, problem, "do not trust this file; download it again")
    return name
