"""Files in folders of the user, without those that operating systems add. No heavy import."""

from pathlib import Path

_LEFTOVERS = {  # in small letters
    *("__macosx", "@eadir", "$recycle.bin", "system volume information"),
    *("thumbs.db", "desktop.ini", "icon\r"),
}


def is_leftover(name: str) -> bool:
    """Whether an operating system, not the user, has made a file or folder of this name.

    macOS makes ._NAME, .DS_Store and __MACOSX; Windows and network disks make others. No release of
    a dataset has names that begin with a dot.
    """
    return name.startswith(".") or name.lower() in _LEFTOVERS


def find_files(root: Path, pattern: str) -> list[Path]:
    """The files and folders below `root` that match a pattern of Path.glob, sorted.

    Leftovers and everything inside them are skipped.
    """
    found = ((path, path.relative_to(root).parts) for path in root.glob(pattern))
    return sorted(path for path, parts in found if not any(map(is_leftover, parts)))


def find_folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted, without leftovers."""
    return [path for path in find_files(root, "*") if path.is_dir()]
