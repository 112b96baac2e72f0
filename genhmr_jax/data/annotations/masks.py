"""The user's masks of the people in photos, read from a folder of PNG files.

For a photo NAME.jpg the folder has one of these (docs/annotations.md):

* NAME.png, an instance map: a number or a colour for each person; 0 or black is the background;
* NAME_1.png, NAME_2.png, ...: one mask for each person, which is not 0 on the person;
* NAME/, a folder with such a file for each person.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from genhmr_jax.data.annotations.selection import SMALLEST_BOX, UserAnnotations
from genhmr_jax.detect.given_masks import GivenMasks, bounds
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.image_files import ImageFile
from genhmr_jax.io.images import read_labels

MOST_LABELS = 64
"""People of an instance map. Soft edges have a label for each shade and would be people too."""
_NUMBERED = re.compile(r"(.+)_(\d+)")
_FORMS = "docs/annotations.md shows the names of masks"


class MaskFolder:
    """The masks in a folder, for any photos."""

    def __init__(self, source: str | os.PathLike) -> None:
        """List the folder.

        Raises:
          InputError: it is no folder, or has neither PNG files nor folders.
        """
        self.source = Path(source)
        if not self.source.is_dir():
            problem = "is a file, not a folder" if self.source.exists() else "no such folder"
            raise InputError(self.source, problem, f"give a folder of masks; {_FORMS}")
        inside = find_files(self.source, "*")
        self._folders = {_nfc(path.name): path for path in inside if path.is_dir()}
        self._files = {_nfc(path.stem): path for path in inside if _is_png(path)}
        if not inside:
            raise InputError(self.source, "is an empty folder", f"put masks there; {_FORMS}")

    def files_of(
        self, image: ImageFile, photos: Sequence[ImageFile] = ()
    ) -> tuple[bool, list[Path]]:
        """The files of one photo, and whether they are an instance map.

        A name is that of the photo's file without its suffix, or that of its outputs, which is
        unique. NAME_1.png belongs to the photo NAME_1 if that is one of `photos`.

        Args:
          image: the photo.
          photos: the whole batch.

        Raises:
          InputError: there is nothing for this photo, two forms, or the name fits two photos.
        """
        others = [photo for photo in photos if photo.path != image.path]
        names = {_nfc(name) for photo in others for name in (photo.path.stem, photo.stem)}
        own = [_nfc(image.stem), _nfc(image.path.stem)]
        for name in dict.fromkeys(own):
            found = self._named(name, image, names)
            if len(found) > 1:
                problem = f"{self.source} has masks for it in two forms ({', '.join(found)})"
                raise InputError(image.path, problem, "leave one of them")
            if found and name in {_nfc(photo.path.stem) for photo in others}:
                problem = f"the masks {name!r} in {self.source} fit several photos"
                raise InputError(image.path, problem, f"name them {image.stem}")
            if found:
                ((form, files),) = found.items()
                return form == f"{name}.png", files
        problem = f"no mask given for {image.path.stem!r} in {self.source}"
        raise InputError(image.path, problem, f"name PNG files after photos; {_FORMS}")

    def _named(self, name: str, image: ImageFile, others: set[str]) -> dict[str, list[Path]]:
        """The files for a name of a photo, by form."""
        found: dict[str, list[Path]] = {}
        file = self._files.get(name)
        if file is not None and file.resolve() != image.path.resolve():
            found[f"{name}.png"] = [file]
        numbered = [
            (int(match[2]), path)
            for stem, path in self._files.items()
            if (match := _NUMBERED.fullmatch(stem)) and match[1] == name and stem not in others
        ]
        if numbered:
            found[f"{name}_{numbered[0][0]}.png"] = [path for _, path in sorted(numbered)]
        if name in self._folders:
            inside = filter(_is_png, find_files(self._folders[name], "*"))
            found[f"{name}/"] = sorted(inside, key=_in_order)
        return found


def people_of_masks(
    folder: MaskFolder,
    image: ImageFile,
    size: tuple[int, int],
    *,
    photos: Sequence[ImageFile] = (),
    max_people: int | None = None,
) -> UserAnnotations:
    """The people whose masks a folder has for one photo.

    People whose mask is empty, is a thin line, or is smaller than SMALLEST_BOX px are left out, and
    those beyond `max_people`: the people with the largest boxes stay.

    Args:
      folder: of masks.
      image: the photo.
      size: its width and height in px, upright.
      photos: the whole batch.
      max_people: None for everybody.

    Raises:
      InputError: the folder has nothing for this photo, or a file is no mask of its size.
    """
    is_map, files = folder.files_of(image, photos)
    masks = _labelled(files[0], size) if is_map else _separate(files, size)
    parts, kept, left_out, total = [], [], [], 0
    for name, mask in masks:
        if problem := unusable(mask):
            left_out.append(f"{name}: the mask {problem}")
        else:
            parts.append(GivenMasks.of([mask]))
            kept.append(total)
        total += 1
    index, given = np.array(kept, int), GivenMasks.joined(parts)
    if max_people is not None and len(index) > max_people:
        beyond = f"{len(index) - max_people} of {total} given people"
        left_out.append(f"{beyond} beyond --max-people {max_people}")
        chosen = given.largest(max_people)
        index, given = index[chosen], given.only(chosen)
    return UserAnnotations(None, None, index, total, 0, tuple(left_out), given)


def _labelled(file: Path, size: tuple[int, int]) -> Iterator[tuple[str, Bool[np.ndarray, "H W"]]]:
    """Name and mask of each person of an instance map, in the order of the labels."""
    labels = read_mask(file, size)
    people = [label for label in np.unique(labels).tolist() if label]
    if len(people) > MOST_LABELS:
        problem = f"has {len(people)} labels, which is no instance map"
        remedy = f"save it without soft edges, or one person as {file.stem}_1.png"
        raise InputError(file, problem, remedy)
    for i, label in enumerate(people):
        yield f"{file.name}, label {i + 1} of {len(people)}", labels == label


def _separate(
    files: Sequence[Path], size: tuple[int, int]
) -> Iterator[tuple[str, Bool[np.ndarray, "H W"]]]:
    """Name and mask of each person with a file of their own."""
    for file in files:
        yield file.name, read_mask(file, size) != 0


def read_mask(file: Path, size: tuple[int, int]) -> Int[np.ndarray, "H W"]:
    """The labels of a file. Raises InputError: it cannot be read, or has another size."""
    labels = read_labels(file)
    if labels.shape[::-1] != tuple(size):
        theirs, ours = (f"{width} x {height} px" for width, height in (labels.shape[::-1], size))
        problem = f"the mask has {theirs}, its photo {ours}"
        raise InputError(file, problem, "give masks of the upright photo in its own size")
    return labels


def unusable(mask: Bool[np.ndarray, "H W"]) -> str | None:
    """Why a mask is not that of a person who can be recovered, or None."""
    if (found := bounds(mask)) is None:
        return "is empty"
    x0, y0, x1, y1 = found
    if max(x1 - x0, y1 - y0) < SMALLEST_BOX:
        return f"is only {x1 - x0} x {y1 - y0} px, too small for a person"
    part = mask[y0:y1, x0:x1]
    for _ in range(2):  # three neighbours in a column, then in a row
        part = (part[:-2] & part[1:-1] & part[2:]).T
    return None if part.any() else "is a line of less than 3 px, as soft edges have it"


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.is_file()


def _in_order(path: Path) -> tuple[int, str]:
    """Sorts files by the number at the end of their names, as 2 before 10."""
    number = re.search(r"(\d+)$", path.stem)
    return int(number[1]) if number else 0, path.name


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
