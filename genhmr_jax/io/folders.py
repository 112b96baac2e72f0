"""The files in folders of the user, without what systems leave there. No heavy import."""

from pathlib import Path

_LEFTOVERS = {  # in small letters
    *("__macosx", "@eadir", "$recycle.bin", "system volume information"),
    *("thumbs.db", "desktop.ini", "icon\r"),
}


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is no part of a release, but was left there by a system.

    macOS leaves ._NAME, .DS_Store and __MACOSX; Windows and network disks have others. No release has
    names that begin with a dot.
    """
    return name.startswith(".") or name.lower() in _LEFTOVERS


def find_files(root: Path, pattern: str) -> list[Path]:
    """The files and folders below `root` that match a pattern of Path.glob, sorted.

    Leftovers of systems and what lies in them are passed over.
    """
    found = ((path, path.relative_to(root).parts) for path in root.glob(pattern))
    return sorted(path for path, parts in found if not any(map(is_leftover, parts)))


def find_folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted, without leftovers."""
    return [path for path in find_files(root, "*") if path.is_dir()]
