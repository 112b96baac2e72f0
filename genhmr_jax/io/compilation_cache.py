"""A cache of compiled XLA programs on disk, so that the second call of a command starts at once.

Where programs cannot be stored, or are damaged, a command is as slow as without a cache. Nothing
else changes.
"""

import re
import warnings
from pathlib import Path

from genhmr_jax.io import program_store
from genhmr_jax.io.cache_folder import cache_directory as cache_directory
from genhmr_jax.io.cache_folder import usable as usable
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.terminal import complain

_CACHE_WARNING = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)", re.DOTALL
)
"""A warning of jax's cache (`_cache_read` and `_cache_write` in jax/_src/compiler.py).

It has the program's name, or its name and key, and the error.
"""


def enable() -> Path | None:
    """Make jax store its compiled programs in `cache_directory()`.

    An entry is for one version of jaxlib and one kind of processor: both are parts of the hash in
    its name. Damaged entries are deleted when they are found, and written again. A full disk
    causes one line on stderr.

    Returns:
      The directory, or None where it cannot be written to: that is no error.
    """
    directory = cache_directory()
    if directory is None or not usable(directory / "xla"):
        program_store.use(None)
        return None
    import jax

    programs = directory / "xla"
    jax.config.update("jax_compilation_cache_dir", str(programs))
    # Every program: even a small one takes longer to compile than to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # XLA's own files of GPU measurements: a file that cannot be read or written would stop a
    # compilation (TryToFindInFileBasedCacheIfEnabled in XLA's autotuner_util.cc).
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    _repair_on_warnings(programs)
    program_store.use(directory / "traced")
    return programs


def _repair_on_warnings(directory: Path) -> None:
    """Delete the damaged entries of which jax warns.

    jax repeats such a warning on every call, because it never replaces an existing entry. After
    the file is deleted, jax compiles the program and writes the entry again. If another process
    writes the same file at this moment, that process loses its entry, and nothing else.
    """
    show_others, reported = warnings.showwarning, []

    def show(message: Warning | str, *details: object, **more: object) -> None:
        found = _CACHE_WARNING.match(str(message))
        if found is None:
            show_others(message, *details, **more)
            return
        kind, program, error = found.groups()
        _delete_entries(directory, program)
        if kind == "writing" and not reported:
            reported.append(error)
            reason = " ".join(re.sub(r"^\w+: (\[Errno \d+\] )?", "", error).split())
            problem = f"compiled programs cannot be stored ({reason})"
            remedy = "every call compiles again; free space, or set GENHMR_CACHE to another folder"
            complain(InputError(directory, problem, remedy))

    warnings.showwarning = show
    warnings.filterwarnings(
        "always", message="Error (reading|writing) persistent compilation cache entry"
    )


def _delete_entries(directory: Path, program: str) -> None:
    """Delete all entries of a program.

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
        pass  # an entry that stays costs a compilation on each call, as without a cache
