"""Paths as users type them. No heavy import.

bash does not expand the `~` of `--flag=~/x`, nor a quoted `~`: it is expanded here.
"""

import argparse
import os

from genhmr_jax.io.errors import InputError


class FlagError(Exception):
    """The InputError of a flag's value.

    argparse would replace the InputError itself, which is a ValueError, by "invalid value".
    """


def home(user: str = "") -> str | None:
    """The home directory of `user`, or of the user of this process; None if there is none.

    It is $HOME, else the entry of the user database. A container may run under a user id without a
    name, and $HOME may be unset, empty or relative.
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
    except (KeyError, ValueError):  # no such user, or a NUL in the name
        return None
    return entry.pw_dir or None


def expand(path: str | os.PathLike) -> str:
    """Replace a leading `~` or `~user` of a path by the home directory.

    A file that is called `~user` in the working directory takes precedence. A folder called `~`
    must be given as `./~`.

    Raises:
      InputError: that home directory is unknown.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return text
    first, _, rest = text.partition("/")
    if first != "~" and os.path.lexists(first):
        return text
    folder = home(first[1:])
    if folder is None and first == "~":
        problem = "there is no home directory (HOME is not set)"
        raise InputError(text, problem, "give the whole path, or set HOME")
    if folder is None:
        problem = f"there is neither a file {first!r} here nor a user {first[1:]!r}"
        raise InputError(text, problem, "check the path, or give the whole path")
    rest = rest.lstrip("/")
    return os.path.join(folder, rest) if rest else folder


def photo_path(text: str) -> str:
    """An argparse type: the path of one photo of several, expanded if that is possible.

    A wrong path must not stop the other photos. It is reported when the photo is opened.
    """
    try:
        return expand(text)
    except InputError:
        return text


def path_argument(text: str) -> str:
    """An argparse type: a path, expanded, for programs that report a wrong path as wrong usage."""
    try:
        return expand(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path_flag(text: str) -> str:
    """An argparse type: a path, expanded.

    Raises:
      FlagError: for an error of `expand`; the program prints its text as one line.
    """
    try:
        return expand(text)
    except InputError as error:
        raise FlagError(str(error)) from error
