"""Lines for the user, on stdout and stderr. A failure to print never stops the work."""

import contextlib
import os
import sys
import unicodedata
from typing import TextIO

from genhmr_jax.io.errors import InputError


def say(text: str, stream: TextIO | None = None) -> None:
    """Print one line on a stream (default: stdout), also under a progress bar.

    Characters that the stream cannot encode, and those that control a terminal, are escaped. Where
    the stream cannot be written (a closed pipe, a closed terminal, a full disk), the line is lost
    and the work continues.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None:  # pythonw, or started with a closed stdout
        return
    from tqdm import tqdm

    line = printable(text, stream.encoding or "utf-8")
    try:
        tqdm.write(line, file=stream)
        stream.flush()
    except (OSError, ValueError):
        silence(stream)


def complain(text: str | InputError) -> None:
    """Print one line on stderr, after the name of the command."""
    if sys.stderr is not None:
        say("genhmr: " + " ".join(str(text).split()), sys.stderr)


def printable(text: str, encoding: str = "utf-8") -> str:
    """The text with unprintable characters escaped.

    These are control characters, characters that change the direction of writing, bytes of file
    names that are no text, and characters that `encoding` lacks.
    """
    escaped = "".join(_escaped(character) for character in text)
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text, as Python keeps it in file names
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def prepare() -> None:
    """Make both standard streams escape the characters that they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Redirect a broken stream to the null device, so that Python does not fail at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
