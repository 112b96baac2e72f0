"""The photos in files and folders, and the names of their results."""

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import is_leftover

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".jpf", ".mpo", ".apng", ".tga", ".ppm", ".pgm", ".pnm"),
)
"""Suffixes of the files in a folder that are read as photos. A file given by name may have any."""
OVERLAY_SUFFIX = "_overlay.png"
TRACE_SUFFIX = "_trace.png"
PAGE_SUFFIX = "_page.html"
OVERLAY_MARK = "genhmr_jax overlay"
"""Text in the header of every picture that is written (PNG, "Software"); a photo lacks it."""
# Results of this package and of related tools: no photos, and skipped without a note.
_RESULTS = (".npz", ".json", ".obj", ".glb", ".ply")
_CONVERT = "convert photos among them to JPEG or PNG, or give their names"
_LONGEST_STEM = 200  # bytes; file systems allow 255, and outputs add to it
_LISTED = 8  # names in a line about files that are passed over


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A photo to read and the stem of its outputs, unique in its batch."""

    path: Path
    stem: str


@dataclasses.dataclass(frozen=True)
class Found:
    """The photos of the given paths.

    Attributes:
      files: in the order given, folders sorted by name, each file once.
      errors: one for each path that does not exist, and each folder without any photo.
      passed_over: files in the folders that are not read, by folder.
    """

    files: list[Path]
    errors: list[InputError]
    passed_over: dict[Path, list[Path]]

    def notes(self) -> list[str]:
        """One line for each folder in which files are passed over."""
        return [
            f"{folder}: passed over {_names(inside)}; {_CONVERT}"
            for folder, inside in self.passed_over.items()
        ]


def find_images(paths: Iterable[str | os.PathLike]) -> Found:
    """Find the photos in the given files and folders (not in subfolders).

    In a folder these are the files with one of SUFFIXES, without overlays that `genhmr recover`
    wrote and without other files of such a name.
    """
    found: dict[Path, Path] = {}
    errors, passed_over = [], {}
    for path in map(Path, paths):
        if _is_folder(path):
            inside, others = _in_folder(path)
            if not inside:
                there = f" (there are {_names(others)})" if others else ""
                remedy = _CONVERT if others else f"put images there ({' '.join(SUFFIXES)})"
                errors.append(InputError(path, f"no image in this directory{there}", remedy))
            elif others:
                passed_over[path] = others
        elif _exists(path):
            inside = [path]
        else:
            inside = []
            errors.append(InputError(path, "no such file or directory", "check the path"))
        for image in inside:
            found.setdefault(image.resolve(), image)
    return Found(list(found.values()), errors, passed_over)


def list_images(paths: Iterable[str | os.PathLike]) -> tuple[list[ImageFile], list[InputError]]:
    """The photos of `find_images` with the stems of `name_outputs`, and its errors."""
    found = find_images(paths)
    return name_outputs(found.files), found.errors


def name_outputs(
    files: Sequence[Path], refused: Callable[[str], bool] = lambda stem: False
) -> list[ImageFile]:
    """Give each photo a unique output stem.

    `x.jpg` and `x.png` become `x_jpg` and `x_png`; `a/x.jpg` and `b/x.jpg` become `a_x` and `b_x`.
    Upper and lower case are treated as equal (macOS, Windows). Stems are shortened where the names
    of outputs would be too long for a file system.

    Args:
      refused: whether outputs of a stem must not be written, because they would overwrite files
        that must stay.
    """
    schemes = (
        lambda path: "_".join(_split(path)).rstrip("_"),
        lambda path: f"{path.resolve().parent.name}_{_split(path)[0]}",
        lambda path: f"{path.resolve().parent.name}_{'_'.join(_split(path))}".rstrip("_"),
    )
    stems = [_cut(_split(path)[0]) for path in files]
    for scheme in schemes:
        counts = Counter(stem.lower() for stem in stems)
        kept = [counts[stem.lower()] == 1 and not refused(stem) for stem in stems]
        stems = [
            stem if keep else _cut(scheme(path))
            for path, stem, keep in zip(files, stems, kept, strict=True)
        ]
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        while stem.lower() in taken or refused(stem):
            stem += f"_{index}"
        taken.add(stem.lower())
        stems[index] = stem
    return [ImageFile(path, stem) for path, stem in zip(files, stems, strict=True)]


def _split(path: Path) -> tuple[str, str]:
    """The stem and the suffix of a file; the whole name of a folder, `.` and `..` too."""
    if _is_folder(path):
        return path.resolve().name or "clip", ""
    return path.stem, path.suffix[1:].lower()


def _cut(stem: str) -> str:
    """The stem, shortened to its first _LONGEST_STEM bytes."""
    data = os.fsencode(stem)
    return stem if len(data) <= _LONGEST_STEM else data[:_LONGEST_STEM].decode(errors="ignore")


def is_overlay(path: Path) -> bool:
    """Whether a file is an overlay that `genhmr recover` wrote."""
    try:
        with path.open("rb") as file:
            return OVERLAY_MARK.encode() in file.read(512)
    except OSError:
        return False


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The photos of a folder, and the other files that a user may expect to be read; sorted."""
    images, others = [], []
    for path in sorted(folder.iterdir()):
        if is_leftover(path.name):
            continue
        if not _is_file(path) and _exists(path):
            others.append(path)  # a folder, a pipe
        elif path.name.endswith((OVERLAY_SUFFIX, TRACE_SUFFIX)):
            others += [] if is_overlay(path) else [path]
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)  # a dangling link too: reading it gives its own error
        elif path.suffix.lower() not in _RESULTS:
            others.append(path)
    return images, others


def _names(paths: Sequence[Path]) -> str:
    """The first file names, and how many more there are."""
    names = [f"{path.name}/" if _is_folder(path) else path.name for path in paths[:_LISTED]]
    return ", ".join(names) + (f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else "")


def _exists(path: Path) -> bool:
    return _mode(path) is not None


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path) or 0)


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path) or 0)


def _mode(path: Path) -> int | None:
    """The mode of a path; None if it does not exist or cannot exist (too long, a NUL in it)."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None
