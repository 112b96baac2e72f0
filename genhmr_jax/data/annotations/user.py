"""The user's boxes, keypoints and cameras of photos, read from JSON.

They replace those of the detector and the default camera. docs/annotations.md lists the JSON forms.
forms.py splits a file into records, values.py reads their numbers, matching.py finds the photo of
each record, and selection.py selects the people of a photo.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genhmr_jax.data.annotations import forms, hands, values
from genhmr_jax.data.annotations.matching import Matcher, PhotoName
from genhmr_jax.data.annotations.values import UserCamera
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.image_files import ImageFile

FILE_SUFFIXES = ("_keypoints", "_bbox", "_openpose")
"""Ends of the name of a file for one photo, after the photo's name."""


@dataclasses.dataclass
class Entry:
    """The content of a file for one photo.

    Attributes:
      values: of P people.
      scores: of P people; NaN: no score.
      size: (width, height) px of the photo, or None.
      error: why the photo's own file cannot be read, or None.
    """

    values: list[Any] = dataclasses.field(default_factory=list)
    scores: list[float] = dataclasses.field(default_factory=list)
    size: tuple[int, int] | None = None
    error: InputError | None = None


class Annotations:
    """The content of a file, or of a folder of files, for any photos."""

    def __init__(
        self, source: str, what: str, named: dict[PhotoName, Entry], nameless: Entry | None = None
    ) -> None:
        """Entries by photo; `nameless` belongs to the only photo of a batch, whatever its name."""
        self.source, self.what, self._named, self._nameless = source, what, named, nameless
        self._matcher: tuple[tuple[Path, ...], Matcher[Entry]] | None = None

    def names(self) -> list[str]:
        """The names of the photos, sorted."""
        return sorted(map(str, self._named))

    def of(self, image: ImageFile, photos: Sequence[ImageFile] = ()) -> Entry:
        """The entry of a photo.

        Args:
          image: the photo.
          photos: the whole batch, this photo included; default: this photo alone.

        Raises:
          InputError: there is no entry, it is ambiguous, or its own file is bad.
        """
        photos = photos or [image]
        paths = tuple(photo.path for photo in photos)
        if self._matcher is None or self._matcher[0] != paths:
            self._matcher = paths, Matcher(self._named.items(), photos)
        entry = self._matcher[1].find(image)
        if entry is None and len(photos) == 1:
            entry = self._nameless
        if entry is None and self._nameless is not None:
            problem = f"{self.source} does not say which of {len(photos)} photos it is for"
            raise InputError(image.path, problem, "give one photo, or name records after photos")
        if entry is None:
            known = ", ".join(self.names()[:5]) or "nobody"
            problem = f"no {self.what} given for {image.path.stem!r}"
            remedy = f"name records after photos (the file has {known})"
            raise InputError(image.path, problem, remedy)
        if entry.error is not None:
            raise entry.error
        return entry


def read_boxes(source: str | os.PathLike) -> Annotations:
    """Boxes of photos: xyxy px.

    Args:
      source: a JSON file, a folder of such files, or the JSON text of the boxes of one photo.

    Raises:
      InputError: the file is missing, is not JSON, has an unknown form, or a box has a wrong
        length, is not finite or has no area.
    """
    return _read(source, "box", values.boxes_of, forms.records)


def read_keypoints(source: str | os.PathLike) -> Annotations:
    """Keypoints of photos: (23, 3) px and confidence 0..1 a person, in the order of DETECTED.

    All three are 0 for a keypoint that the file lacks.

    Args:
      source: a JSON file, or a folder of such files (OpenPose's output).

    Raises:
      InputError: the file is missing, is not JSON, has an unknown form, or keypoints have a wrong
        length or are not finite.
    """
    return _read(source, "keypoints", values.keypoints_of, forms.records)


def read_hands(source: str | os.PathLike) -> Annotations:
    """Hands of photos (`hands.GivenHand`).

    Args:
      source: a JSON file, or a folder of such files (OpenPose's output).

    Raises:
      InputError: the file is missing, is not JSON, has an unknown form, or keypoints or boxes have
        a wrong length or are not finite.
    """
    return _read(source, "hand", hands.hands_of, hands.records)


def read_cameras(source: str | os.PathLike) -> Annotations:
    """The cameras of photos (`UserCamera`).

    Raises:
      InputError: the file is missing or is not JSON; a focal length is not positive, pixels are
        not square, or a number is not finite.
    """
    return _read(source, "camera", lambda *record: [values.camera_of(*record)], forms.cameras)


def camera_of_image(
    cameras: Annotations, image: ImageFile | str | os.PathLike, photos: Sequence[ImageFile] = ()
) -> UserCamera:
    """The camera of one photo. Raises InputError if the file has no camera for it."""
    return cameras.of(as_image_file(image), photos).values[-1]


def as_image_file(image: ImageFile | str | os.PathLike) -> ImageFile:
    """The photo as an ImageFile; a path is named by its stem."""
    return image if isinstance(image, ImageFile) else ImageFile(Path(image), Path(image).stem)


ValuesOf = Callable[[object, str, dict[str, Any]], Iterable[Any]]
"""File, name of a record in errors, its fields -> its values, one a person."""
RecordsOf = Callable[[object, Any], Iterator[forms.Record]]
"""File and its content -> its records."""


def _read(
    source: str | os.PathLike, what: str, values_of: ValuesOf, records_of: RecordsOf
) -> Annotations:
    """Reads a file, each file of a folder, or JSON text.

    A bad file of a folder is an error for its photo alone.
    """
    inline = _inline(source)
    if inline is not None:
        _, nameless = _entries("the JSON on the command line", inline, values_of, records_of)
        return Annotations("the JSON on the command line", what, {}, nameless)
    path = Path(source)
    if path.is_dir():
        named: dict[PhotoName, Entry] = {}
        files = find_files(path, "*.json")
        for file in files:
            try:
                found, nameless = _entries(file, forms.read_json(file), values_of, records_of)
            except InputError as error:
                found, nameless = {}, Entry(error=error)
            named |= found | ({_named_after(file): nameless} if nameless else {})
        if not files:
            remedy = "give a folder of files that are named after the photos"
            raise InputError(path, "is a folder without JSON files", remedy)
        return Annotations(str(path), what, named)
    found, nameless = _entries(path, forms.read_json(path), values_of, records_of)
    if nameless:
        found |= {_named_after(path): nameless}
        if _named_after(path).parts != (path.stem,):  # a_keypoints.json is for the photo a alone
            nameless = None
    return Annotations(str(path), what, found, nameless)


def _entries(
    source: object, content: Any, values_of: ValuesOf, records_of: RecordsOf
) -> tuple[dict[PhotoName, Entry], Entry | None]:
    """The entries of a file by photo, and the entry that names no photo, or None."""
    entries: dict[PhotoName | None, Entry] = {}
    for record in records_of(source, content):
        entry = entries.setdefault(record.name, Entry())
        entry.size = entry.size or record.size
        if record.fields is not None:
            of_people = list(values_of(source, record.where, record.fields))
            score = values.score_of(source, record.where, record.fields)
            entry.values += of_people
            entry.scores += [score] * len(of_people)
    nameless = entries.pop(None, None)
    return entries, nameless


def _inline(source: str | os.PathLike) -> Any:
    """The content of JSON text (`[0, 0, 640, 427]`, `0,0,640,427`), or None for a path."""
    text = os.fspath(source).strip()
    if os.path.exists(text) or not text or text[0] not in "[{-.0123456789":
        return None
    try:
        content = json.loads(text if text[0] in "[{" else f"[{text}]")
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, list | dict) or not content:
        return None
    return content if text[0] in "[{" or len(content) == 4 else None


def _named_after(path: Path) -> PhotoName:
    """The photo after which a file is named."""
    stem = path.stem
    for suffix in FILE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return PhotoName.of(stem)
