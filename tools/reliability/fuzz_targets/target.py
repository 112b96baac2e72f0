"""A target of the fuzzer, and what all targets share."""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from genhmr_jax.io.errors import InputError

LONGEST_MESSAGE = 5000
"""Characters: an error message must not repeat a whole file."""

REFUSALS: list[Exception] = []
"""The refusals since this list was emptied: what is new in them guides mutations."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader of untrusted bytes.

    Attributes:
      name: of the target and of its folder of the corpus.
      reader: the function that is tested, for people.
      run: gives bytes to the reader; lets out no exception but those that are findings.
      seconds: CPU seconds that one input may take.
      memory: MiB by which one input may raise the peak of the process.
      longest: bytes of an input.
      tokens: parts of the format, which mutations insert.
    """

    name: str
    reader: str
    run: Callable[[bytes], None]
    seconds: float = 5.0
    memory: int = 512
    longest: int = 1 << 16
    tokens: tuple[bytes, ...] = ()


@contextlib.contextmanager
def refusing(*documented: type[Exception]) -> Iterator[None]:
    """Let an InputError, and the other documented errors of a reader, pass as a refusal.

    Raises:
      AssertionError: the message of the refusal is empty, or repeats a whole file.
    """
    try:
        yield
    except (InputError, *documented) as error:
        REFUSALS.append(error)
        del REFUSALS[:-8]
        assert 0 < len(str(error)) <= LONGEST_MESSAGE, f"a message of {len(str(error))} characters"


@functools.cache
def folder() -> Path:
    """A folder for the files of this process; it is deleted at the end of the process."""
    made = tempfile.TemporaryDirectory(prefix="genhmr-fuzz-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[tempfile.TemporaryDirectory] = []


def file(name: str, data: bytes) -> Path:
    """Write the bytes to a file of this name in `folder`."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
