"""Paths as people type them. No heavy import.

bash leaves the `~` of `--flag=~/x` alone, and a quoted `~` too: it is expanded here.
"""

import argparse
import os

from genhmr_jax.io.errors import InputError


class FlagError(Exception):
    """The InputError of a flag's value.

    argparse would turn the InputError itself, which is a ValueError, into "invalid value".
    """


def home(user: str = "") -> str | None:
    """The home directory of `user`, or of who runs this process; None if there is none.

    That is $HOME, or else the one of the user database. A container may run under a user id without
    a name, and $HOME may be unset, empty or relative.
    """
    given = os.environ.get("HOME", "")
    if not user and os.path.isabs(given):
        return given
    try:
        import pwd
    except ImportError:  # Windows: %USERPROFILE%
        found = os.path.expanduser(f"~{user}")
        return None if found.startswith("~") else found
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        return None
    return entry.pw_dir or None


def expand(path: str | os.PathLike) -> str:
    """The path with a leading `~` or `~user` replaced by the home directory.

    What exists under the name `~user` in the working directory is meant itself; a folder called
    `~` must be given as `./~`.

    Raises:
      InputError: nobody knows that home directory.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return text
    first, _, rest = text.partition("/")
    if first != "~" and os.path.lexists(first):
        return text
    folder = home(first[1:])
    if folder is None and first == "~":
        raise InputError(
            text, "there is no home directory (HOME is not set)", "give the whole path, or set HOME"
        )
    if folder is None:
        problem = f"there is neither a file {first!r} here nor a user {first[1:]!r}"
        raise InputError(text, problem, "check the path, or give the whole of it")
    rest = rest.lstrip("/")
    return os.path.join(folder, rest) if rest else folder


def photo_path(text: str) -> str:
    """An argparse type: the path of one photo of several, expanded, or as it is.

    One that is wrong must not stop the others; it is reported when the photo is looked for.
    """
    try:
        return expand(text)
    except InputError:
        return text


def path_argument(text: str) -> str:
    """An argparse type: a path, expanded, for programs that show what is wrong as a wrong usage."""
    try:
        return expand(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path_flag(text: str) -> str:
    """An argparse type: a path, expanded.

    Raises:
      FlagError: as `expand`; the program that parses shows its text as one line.
    """
    try:
        return expand(text)
    except InputError as error:
        raise FlagError(str(error)) from error
