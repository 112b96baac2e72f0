"""Which photos files and folders stand for, and what their results are called."""

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
"""Of the files in a folder that are read as photos. A file that is named itself may be called anything."""
OVERLAY_SUFFIX = "_overlay.png"
OVERLAY_MARK = "genhmr_jax overlay"
"""Text in the head of every overlay (PNG, "Software"), by which it is told from a photo of the user with such a name."""
_RESULTS = (".npz", ".json", ".obj", ".glb", ".ply")  # of our own, or of tools around: no photos, not worth a word
_CONVERT = "convert what is a photo to JPEG or PNG, or give its name"
_LONGEST_STEM = 200  # bytes; file systems allow 255, and outputs add to it
_LISTED = 8  # names in a line about files that are passed over


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A photo to read and the stem of its outputs, unique in its batch."""

    path: Path
    stem: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What paths stand for.

    Attributes:
      files: in the order given, folders sorted by name, each file once.
      errors: one for each path that does not exist, and each folder without any photo.
      passed_over: what is in the folders and is not read, by folder.
    """

    files: list[Path]
    errors: list[InputError]
    passed_over: dict[Path, list[Path]]

    def notes(self) -> list[str]:
        """One line for each folder in which something is passed over."""
        return [
            f"{folder}: passed over {_names(inside)}; {_CONVERT}"
            for folder, inside in self.passed_over.items()
        ]


def find_images(paths: Iterable[str | os.PathLike]) -> Found:
    """Finds the photos that files and folders (not their subfolders) stand for.

    In a folder these are the files with one of SUFFIXES, but no overlays that `genhmr recover` wrote, nor files of that name.
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


def name_outputs(files: Sequence[Path], refused: Callable[[str], bool] = lambda stem: False) -> list[ImageFile]:
    """Each photo with an output stem that no other one has.

    `x.jpg` and `x.png` become `x_jpg` and `x_png`; `a/x.jpg` and `b/x.jpg` become `a_x` and `b_x`. Upper and lower case count as
    alike (macOS, Windows). Stems are cut where the names of outputs would be too long for a file system.

    Args:
      refused: whether outputs of a stem must not be written, because they would overwrite what they must not.
    """
    schemes = (
        lambda path: f"{path.stem}_{path.suffix[1:].lower()}",
        lambda path: f"{path.resolve().parent.name}_{path.stem}",
        lambda path: f"{path.resolve().parent.name}_{path.stem}_{path.suffix[1:].lower()}",
    )
    stems = [_cut(path.stem) for path in files]
    for scheme in schemes:
        counts = Counter(stem.lower() for stem in stems)
        kept = [counts[stem.lower()] == 1 and not refused(stem) for stem in stems]
        stems = [stem if keep else _cut(scheme(path)) for path, stem, keep in zip(files, stems, kept, strict=True)]
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        while stem.lower() in taken or refused(stem):
            stem += f"_{index}"
        taken.add(stem.lower())
        stems[index] = stem
    return [ImageFile(path, stem) for path, stem in zip(files, stems, strict=True)]


def _cut(stem: str) -> str:
    """The stem, or as much of its beginning as the names of outputs have room for."""
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
    """The photos of a folder and what else is there that somebody might miss, both sorted."""
    images, others = [], []
    for path in sorted(folder.iterdir()):
        if is_leftover(path.name):
            continue
        if not _is_file(path):
            others.append(path)
        elif path.name.endswith(OVERLAY_SUFFIX):
            others += [] if is_overlay(path) else [path]
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)
        elif path.suffix.lower() not in _RESULTS:
            others.append(path)
    return images, others


def _names(paths: Sequence[Path]) -> str:
    """Some file names and how many more there are."""
    names = [path.name if _is_file(path) else f"{path.name}/" for path in paths[:_LISTED]]
    return ", ".join(names) + (f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else "")


def _exists(path: Path) -> bool:
    return _mode(path) is not None


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path) or 0)


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path) or 0)


def _mode(path: Path) -> int | None:
    """A path's kind; None where there is no such path, or none that can be asked for (too long a name, a NUL in it)."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None
