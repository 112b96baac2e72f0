"""Writing files so that nobody ever sees a half-written one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path`; renames it to `path` when the block ends well, removes it when it does not.

    The temporary name keeps the suffix, since image and mesh writers choose the format by it.

    Raises:
      InputError: the directory cannot be written to.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(path, f"cannot be written ({error.strerror})", "choose another output directory") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; results are ordinary ones
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask (the only portable way to read it is to set it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
