"""XLA programs kept on disk, so that the second call of the command starts at once.

Where the programs cannot be kept, or are damaged, a command is as slow as without a cache, and
otherwise the same.
"""

import os
import re
import warnings
from pathlib import Path

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand
from genhmr_jax.io.terminal import complain

_TROUBLE = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)", re.DOTALL
)
"""What jax warns of (`_cache_read` and `_cache_write` in jax/_src/compiler.py): the program's name,
or its name and key, and the error."""


def cache_directory() -> Path | None:
    """$GENHMR_CACHE, or genhmr_jax in the user's cache directory ($XDG_CACHE_HOME, ~/.cache).

    None where there is no home directory. A relative $XDG_CACHE_HOME is ignored, as the XDG base
    directory specification asks.
    """
    try:
        if given := os.environ.get("GENHMR_CACHE"):
            return Path(expand(given)).absolute()
        general = Path(expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
        return (
            general if general.is_absolute() else Path(expand("~/.cache"))
        ) / "genhmr_jax"  # the standard has relative ones ignored
    except InputError:
        return None


def usable(directory: Path) -> bool:
    """Whether the directory is there, or can be made, and can be written to."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


def enable() -> Path | None:
    """Makes jax keep its compiled programs in `cache_directory()`.

    Entries are for one version of jaxlib and one kind of processor, which are parts of the hash in
    their names. Damaged ones are deleted when they are met, and written anew. A disk that is full
    costs one line on stderr.

    Returns:
      The directory, or None where it cannot be written to: no error.
    """
    place = cache_directory()
    if place is None or not usable(place / "xla"):
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(place / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    # XLA's own files of what it measured on a GPU: one that cannot be read or written stops a
    # compilation (TryToFindInFileBasedCacheIfEnabled in XLA's autotuner_util.cc).
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    _watch(place / "xla")
    return place / "xla"


def _watch(directory: Path) -> None:
    """Deals with what jax warns of on every call, and never mends.

    jax never writes an entry whose file is there already. So the file of a program that could not
    be read, or was written by half, is deleted: after an error of reading jax compiles the program
    and writes it. Another process that writes the same file at this moment loses its entry, no more.
    """
    show_others, told = warnings.showwarning, []

    def show(message: Warning | str, *details: object, **more: object) -> None:
        trouble = _TROUBLE.match(str(message))
        if trouble is None:
            show_others(message, *details, **more)
            return
        kind, program, error = trouble.groups()
        _forget(directory, program)
        if kind == "writing" and not told:
            told.append(error)
            reason = " ".join(re.sub(r"^\w+: (\[Errno \d+\] )?", "", error).split())
            problem = f"compiled programs cannot be kept ({reason})"
            remedy = "every call compiles anew; make room, or set GENHMR_CACHE to another folder"
            complain(InputError(directory, problem, remedy))

    warnings.showwarning = show
    warnings.filterwarnings(
        "always", message="Error (reading|writing) persistent compilation cache entry"
    )


def _forget(directory: Path, program: str) -> None:
    """Deletes the entries of a program, which may be several.

    Args:
      directory: of the entries.
      program: jax's name of it, such as "jit_f", or name and key, "jit_f-0123...".
    """
    entry = re.compile(re.escape(program) + r"(-[0-9a-f]+)?-(cache|atime)")
    try:
        for file in directory.iterdir():
            if entry.fullmatch(file.name):
                file.unlink(missing_ok=True)
    except OSError:
        pass  # what cannot be deleted costs a compilation on each call, as without a cache
