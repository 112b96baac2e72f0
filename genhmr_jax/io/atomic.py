"""Atomic writing of files: a reader finds the old file or the whole new one."""

import contextlib
import errno
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.io.errors import InputError

_LONGEST_SUFFIX = 16  # bytes; every format that is written here has a shorter one
_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another output directory",
    errno.EDQUOT: "free some space, or choose another output directory",
    errno.ENAMETOOLONG: "give it, or the photo that it is named after, a shorter name",
    errno.ENOENT: "make the folder first, or choose another",
}

_READING_UMASK = threading.Lock()
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of file systems without fsync, such as some FUSE ones


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block succeeds.

    The content is on the disk before the file has its name, so that also a loss of power leaves
    the old file or the whole new one. When the block fails, the temporary file is removed. Its name
    keeps the suffix, because image and mesh writers choose the format by the suffix.

    Raises:
      InputError: `path` cannot be written: its directory, its name, or the space on the disk is
        the reason. The same holds for such an error inside the block. Other errors of the block,
        including those of other files, are raised unchanged.
    """
    path = Path(path)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    try:
        handle, name = tempfile.mkstemp(prefix=".genhmr-", suffix=suffix, dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, name, temporary):
            raise
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: str | os.PathLike) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk.

    A file or folder that is renamed without this may be empty or cut after a loss of power.

    Raises:
      OSError: an error of the disk.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            sync(inner)
    elif not path.is_file():
        return  # a link to nothing, a pipe
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def check_writable(path: str | os.PathLike) -> Path:
    """Check before long work that a file can be written after it, and return its path.

    Raises:
      InputError: no such directory, no permission, no space at all, a name that is too long, or a
        folder of this name.
    """
    path = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(path).st_mode):  # a name that is too long fails here
                raise InputError(path, "is a folder", "give the name of a file")
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def cannot_write(path: str | os.PathLike, error: OSError) -> InputError:
    """The InputError for a file that could not be written."""
    reason = error.strerror or str(error)
    if error.errno == errno.ENAMETOOLONG:
        length = len(os.fsencode(Path(path).name))
        name = f"its name of {length} bytes" if length > 100 else "the path"
        reason = f"{name} is too long"
    return InputError(
        path,
        f"cannot be written ({reason})",
        _REMEDIES.get(error.errno, "choose another output directory"),
    )


def disk_error(error: BaseException, where: object) -> InputError | None:
    """The InputError for an error of the file system: a full disk, a missing path, a permission.

    Libraries that write files themselves raise a ValueError or a RuntimeError that quotes the
    message of the operating system.

    Args:
      error: the exception.
      where: what the program was writing, for an error that names no file.

    Returns:
      None for any other error.
    """
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
            return cannot_write(
                getattr(error, "filename", None) or where, OSError(code, os.strerror(code))
            )
    if isinstance(error, OSError) and error.strerror:
        return InputError(
            error.filename or where, error.strerror, "check the path and its permissions"
        )
    return None


def _umask() -> int:
    """The umask of this process.

    The only portable way to read it is to set it. Two threads that do so at once can leave 0
    behind, and the files of other libraries open to everybody; Linux tells it without that.
    """
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    with _READING_UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask
