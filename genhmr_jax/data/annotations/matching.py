"""Matches the records of a file to photos.

A record names its photo by a file name, a part of a path, an output name or a number. The longest
common end of the two paths wins. An ambiguous record is refused, because an error is better than
boxes on the wrong photo.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import SUFFIXES, ImageFile

# How well the last part of a record's name fits a photo; the largest is the best.
_FULL_NAME, _STEM, _OTHER_SUFFIX, _NUMBER, _TRAILING_NUMBER = 5, 4, 3, 2, 1
# The number of frame_0012, COCO_val2014_000000000139; zero-padded counters have 4 digits or more.
_TRAILING = re.compile(r"(?:^|[_\-. ])(\d{4,})$")


class PhotoName(NamedTuple):
    """A photo's name in a record: the parts of a path (Unicode NFC), and its number, or None."""

    parts: tuple[str, ...]
    number: int | None

    @staticmethod
    def of(value: str | int) -> "PhotoName":
        """The name in a text (path, file name, stem, output name) or an image id.

        Text of digits alone is a number too.
        """
        text = unicodedata.normalize("NFC", str(value))
        parts = tuple(part for part in re.split(r"[/\\]", text) if part not in ("", "."))
        return PhotoName(parts, _as_number(text))

    def __str__(self) -> str:
        return "/".join(self.parts)


T = TypeVar("T")


class Matcher(Generic[T]):
    """Records by the names of their photos, for a batch of photos."""

    def __init__(self, records: Iterable[tuple[PhotoName, T]], photos: Sequence[ImageFile]) -> None:
        """`photos`: the whole batch. A name that fits two of them equally well fits neither."""
        self.records, self.photos = list(records), [_Photo(photo) for photo in photos]
        self._records_by_key: dict[str, list[int]] = defaultdict(list)
        self._photos_by_key: dict[str, list[_Photo]] = defaultdict(list)
        for i, (name, _) in enumerate(self.records):
            for key in _keys(name):
                self._records_by_key[key].append(i)
        for photo in self.photos:
            for key in photo.keys:
                self._photos_by_key[key].append(photo)

    def find(self, image: ImageFile) -> T | None:
        """The record of a photo, or None if the file has none.

        Raises:
          InputError: several records fit equally well, or the record fits other photos of the
            batch equally well.
        """
        photo = _Photo(image)
        numbers = {i for key in photo.keys for i in self._records_by_key.get(key, ())}
        ranked = [
            (rank, i)
            for i in numbers
            if (rank := _rank(self.records[i][0], photo)) and not self._taken(i, rank)
        ]
        best = sorted(i for rank, i in ranked if rank == max(ranked)[0])
        if not best:
            return None
        if len(best) > 1:
            names = ", ".join(repr(str(self.records[i][0])) for i in best[:3])
            problem = f"several records fit it equally well ({names})"
            raise InputError(image.path, problem, _remedy(image))
        name, found = self.records[best[0]]
        rivals = [
            other
            for other in self._rivals(best[0])
            if _rank(name, other) == max(ranked)[0] and other.path != photo.path
        ]
        if rivals:
            other = rivals[0].path
            problem = f"the record {str(name)!r} fits this photo and {other}: it is ambiguous"
            raise InputError(image.path, problem, _remedy(image))
        return found

    def _rivals(self, number: int) -> list["_Photo"]:
        """Photos that a record may belong to."""
        return [
            photo
            for key in _keys(self.records[number][0])
            for photo in self._photos_by_key.get(key, ())
        ]

    def _taken(self, number: int, rank: tuple[int, int]) -> bool:
        """Whether a record fits another photo of the batch better than this rank."""
        name = self.records[number][0]
        return any((_rank(name, other) or rank) > rank for other in self._rivals(number))


class _Photo:
    """The names and numbers of a photo that records are compared with."""

    def __init__(self, image: ImageFile) -> None:
        nfc = lambda text: unicodedata.normalize("NFC", text)
        self.path = image.path
        self.folders = tuple(nfc(part) for part in image.path.absolute().parts[:-1])
        self.name = nfc(image.path.name)
        self.stem = nfc(image.path.stem)
        self.output = nfc(image.stem)
        trailing = _TRAILING.search(self.stem)
        self.number = _as_number(self.stem)
        self.trailing = int(trailing[1]) if trailing else None
        numbers = {f"#{n}" for n in (self.number, self.trailing) if n is not None}
        self.keys = {self.name, self.stem, self.output} | numbers


def _keys(name: PhotoName) -> set[str]:
    """The keys of a name; a photo fits it only if they have one in common."""
    last = name.parts[-1:]
    keys = {*last, *(_without_suffix(part) for part in last)}
    number = name.number
    if number is None and last:
        number = _as_number(_without_suffix(*last))
    return keys if number is None else keys | {f"#{number}"}


def _rank(name: PhotoName, photo: _Photo) -> tuple[int, int] | None:
    """How well a name fits a photo, or None if it does not.

    Returns:
      the number of common parts at the end of both paths, and how well the last one fits.
    """
    if not name.parts:
        return None
    *folders, last = name.parts
    stem = _without_suffix(last)
    number = _as_number(stem)
    if last == photo.name:
        fit = _FULL_NAME
    elif last == photo.stem or name.parts == (photo.output,):
        fit = _STEM
    elif stem == photo.stem:
        fit = _OTHER_SUFFIX
    elif number is not None and number == photo.number:
        fit = _NUMBER
    elif number is not None and number == photo.trailing:
        fit = _TRAILING_NUMBER
    else:
        return None
    common = 0
    for mine, theirs in zip(reversed(folders), reversed(photo.folders), strict=False):
        if mine != theirs:
            break
        common += 1
    return 1 + common, fit


def _without_suffix(name: str) -> str:
    """The name without the suffix of an image file; other dots are part of the name."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else name


def _as_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _remedy(image: ImageFile) -> str:
    file = f"{image.path.absolute().parent.name}/{image.path.name}"
    return f"name records by folder and file ({file}) or by the output ({image.stem})"
