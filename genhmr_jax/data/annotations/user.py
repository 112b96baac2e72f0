"""Boxes, keypoints and cameras that the user gives for photos, in place of the detector's and the default camera.

docs/annotations.md lists the forms of JSON that are understood. user_forms.py takes a file apart into records, values.py reads their
numbers, user_match.py finds the photo of each record.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genhmr_jax.data.annotations import forms as forms
from genhmr_jax.data.annotations import values
from genhmr_jax.data.annotations.matching import Matcher, PhotoName
from genhmr_jax.data.annotations.values import PhotoCamera
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS, keypoint_bounds
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.image_files import ImageFile

FILE_SUFFIXES = ("_keypoints", "_bbox", "_openpose")
"""After the photo's name in the name of a file of one photo."""
MIN_SCORE = 0.2
"""Records below this score of their detector are left out; the least score of our own detector is the same."""
_FEW_PIXELS = 2.0  # px, of a person of which nothing can be recovered; coordinates as fractions of the photo stay below it
_SMALLEST_BOX = 8.0  # px, of the longer side: below it there is nothing to see
_PERCENT = 100.5


@dataclasses.dataclass
class Entry:
    """What a file gives for one photo: values of P people, their scores (NaN: none), and the size of the photo if given."""

    values: list[Any] = dataclasses.field(default_factory=list)
    scores: list[float] = dataclasses.field(default_factory=list)
    size: tuple[int, int] | None = None
    error: InputError | None = None


class Annotations:
    """The content of a file, or of a folder of files, for any photos."""

    def __init__(self, source: str, what: str, named: dict[PhotoName, Entry], nameless: Entry | None = None) -> None:
        """`nameless`: what belongs to the only photo that is done, whatever its name."""
        self.source, self.what, self._named, self._nameless = source, what, named, nameless
        self._matcher: tuple[tuple[Path, ...], Matcher[Entry]] | None = None

    def names(self) -> list[str]:
        """How the photos are named, sorted."""
        return sorted(map(str, self._named))

    def of(self, image: ImageFile, photos: Sequence[ImageFile] = ()) -> Entry:
        """The entry of a photo.

        Args:
          image: the photo.
          photos: all photos that are to be done, this one among them; default: no other.

        Raises:
          InputError: there is none, it is ambiguous, or its own file is bad.
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
            raise InputError(image.path, problem, f"name records after photos (the file has {known})")
        if entry.error is not None:
            raise entry.error
        return entry


@dataclasses.dataclass(frozen=True)
class GivenPeople:
    """The P people of a photo whom the user gives and of whom enough is known.

    Attributes:
      boxes: (P, 4) xyxy px inside the photo, or None.
      keypoints: (P, 23, 3) px and confidence, 0 outside the photo; or None.
      index: (P,) which of the people given for this photo they are, in the order of the file.
      total: how many were given.
      low_scores: how many are left out for their scores.
      left_out: why others are left out, a text each.
    """

    boxes: Float[np.ndarray, "P 4"] | None
    keypoints: Float[np.ndarray, "P 23 3"] | None
    index: Int[np.ndarray, "P"]
    total: int
    low_scores: int
    left_out: tuple[str, ...]


def read_boxes(source: str | os.PathLike) -> Annotations:
    """Boxes of photos: xyxy px.

    Args:
      source: a JSON file, a folder of such files, or the JSON text of the boxes of one photo.

    Raises:
      InputError: the file is missing, no JSON, of no known form, or a box has a wrong length, is not finite or has no area.
    """
    return _read(source, "box", values.boxes_of, forms.records)


def read_keypoints(source: str | os.PathLike) -> Annotations:
    """Keypoints of photos: (23, 3) px and confidence 0..1 a person, in the order of DETECTED; 0 where the file has no such keypoint.

    Args:
      source: a JSON file, or a folder of such files (OpenPose's output).

    Raises:
      InputError: the file is missing, no JSON, of no known form, or keypoints have a wrong length or are not finite.
    """
    return _read(source, "keypoints", values.keypoints_of, forms.records)


def read_cameras(source: str | os.PathLike) -> Annotations:
    """The cameras of photos (`PhotoCamera`).

    Raises:
      InputError: the file is missing or no JSON; a focal length that is not positive, pixels that are not square, no finite numbers.
    """
    return _read(source, "camera", lambda *record: [values.camera_of(*record)], forms.cameras)


def camera_of_image(cameras: Annotations, image: ImageFile | str | os.PathLike, photos: Sequence[ImageFile] = ()) -> PhotoCamera:
    """The camera of one photo. Raises InputError when none was given for it."""
    return cameras.of(_image(image), photos).values[-1]


def boxes_of_image(boxes: Annotations, image: str | os.PathLike, size: tuple[int, int]) -> Float[np.ndarray, "P 4"]:
    """The boxes (P, 4) px of `people_of_image` for one photo. Raises InputError, also when somebody is left out."""
    return _all_of(people_of_image(boxes, None, image, size), image).boxes


def keypoints_of_image(keypoints: Annotations, image: str | os.PathLike, size: tuple[int, int]) -> Float[np.ndarray, "P 23 3"]:
    """The keypoints (P, 23, 3) of `people_of_image` for one photo. Raises InputError, also when somebody is left out."""
    return _all_of(people_of_image(None, keypoints, image, size), image).keypoints


def people_of_image(
    boxes: Annotations | None,
    keypoints: Annotations | None,
    image: ImageFile | str | os.PathLike,
    size: tuple[int, int],
    *,
    photos: Sequence[ImageFile] = (),
    min_score: float = MIN_SCORE,
    max_people: int | None = None,
    min_keypoints: int = MIN_KEYPOINTS,
) -> GivenPeople:
    """The people that files give for one photo.

    Left out are people below the least score, beyond the most people (those of the largest score times box side stay), in boxes that
    lie outside the photo or are smaller than 8 px, and, where there is no box, those with fewer than `min_keypoints` keypoints inside
    the photo.

    Args:
      boxes, keypoints: at least one; of two the people come in the same order.
      image: the photo.
      size: its width and height in px, upright.
      photos: all photos that are to be done, see `Annotations.of`.
      min_score: of the records' own detector; records without a score are kept.
      max_people: None for everybody.
      min_keypoints: 4 are needed to recover a body, 2 have a box.

    Raises:
      InputError: a file has nothing for this photo, is for a photo of another size, is not in px, or the two differ in number.
    """
    image = _image(image)
    entries = {"boxes": boxes and boxes.of(image, photos), "keypoints": keypoints and keypoints.of(image, photos)}
    entries = {name: entry for name, entry in entries.items() if entry is not None}
    for name, entry in entries.items():
        _check_size(image, name, entry.size, size)
    counts = {name: len(entry.values) for name, entry in entries.items()}
    if len(set(counts.values())) > 1:
        problem = f"{counts['boxes']} boxes but keypoints of {counts['keypoints']} people were given"
        raise InputError(image.path, problem, "give one box a person, in the same order, or leave out --boxes")
    total = next(iter(counts.values()))
    whole = np.array(entries["boxes"].values, np.float32).reshape(-1, 4) if boxes else None
    points = np.array(entries["keypoints"].values, np.float32).reshape(-1, len(DETECTED), 3) if keypoints else None
    for name, corners in (("boxes", whole), ("keypoints", points)):
        if corners is not None:
            _check_pixels(image, name, corners, size)
    if points is not None:
        points[..., 2] *= ((points[..., :2] >= 0) & (points[..., :2] <= size)).all(-1)
    clipped = None if whole is None else np.clip(whole, 0, np.tile(size, 2)).astype(np.float32)
    # Of two scores of one person that of the box counts: boxes come first in `entries`.
    by_person = zip(*(entry.scores for entry in entries.values()), strict=True)
    score = np.array([next((s for s in of_one if not math.isnan(s)), math.nan) for of_one in by_person], float)

    left_out, kept = [], []
    low = score < min_score
    for i in np.flatnonzero(~low):
        box = None if clipped is None else (whole[i], clipped[i])
        problem = _unusable(None if points is None else points[i], box, size, min_keypoints)
        if problem:
            left_out.append(f"person {i + 1} of {total} given: {problem}")
        else:
            kept.append(i)
    index = np.array(kept, int)
    if max_people is not None and len(index) > max_people:
        extent = _extents(points, clipped)[index] * np.nan_to_num(score[index], nan=1.0)
        left_out.append(f"{len(index) - max_people} of {total} given people beyond --max-people {max_people}")
        index = np.sort(index[np.argsort(-extent, kind="stable")[:max_people]])
    chosen = [None if rows is None else rows[index] for rows in (clipped, points)]
    return GivenPeople(*chosen, index, total, int(low.sum()), tuple(left_out))


def refuse_percent(given: GivenPeople, image: ImageFile, pixels: np.ndarray) -> None:
    """Refuses coordinates in percent of the photo, which can be told from px only by looking at the picture.

    Where all coordinates lie within 0..100 and the photo is larger, the detector looks at the given places, and at the same ones in
    percent: if it sees people there alone, the file is not in px.

    Args:
      given: of `people_of_image`.
      pixels: uint8 (H, W, 3), RGB.

    Raises:
      InputError: the coordinates are in percent.
    """
    boxes = keypoint_bounds(given.keypoints) if given.boxes is None else given.boxes
    size = np.array(pixels.shape[1::-1])
    if not len(boxes) or boxes.max() > _PERCENT or size.max() < 1.2 * _PERCENT:
        return
    from genhmr_jax import detect

    boxes = boxes[:4]  # a few people decide
    scaled = np.clip(boxes * np.tile(size, 2) / 100.0, 0, np.tile(size, 2))
    scores = detect.keypoints_in_boxes(pixels, np.concatenate([np.clip(boxes, 0, np.tile(size, 2)), scaled])).scores
    here, there = scores[: len(boxes)], scores[len(boxes) :]
    if there.mean() >= 0.5 > here.mean():
        _not_pixels(image, "keypoints" if given.boxes is None else "boxes", "they look like percent of the photo", tuple(size))


ValuesOf = Callable[[object, str, dict[str, Any]], Iterable[Any]]
"""File, what to call a record, its fields -> its values, one a person."""
RecordsOf = Callable[[object, Any], Iterator[forms.Record]]
"""File and its content -> its records."""


def _read(source: str | os.PathLike, what: str, values_of: ValuesOf, records_of: RecordsOf) -> Annotations:
    """Reads a file, each file of a folder, or the text itself; what is wrong in one file of a folder concerns its photo alone."""
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
            raise InputError(path, "is a folder without JSON files", "give a folder of files that are named after the photos")
        return Annotations(str(path), what, named)
    found, nameless = _entries(path, forms.read_json(path), values_of, records_of)
    if nameless and _named_after(path).parts != (path.stem,):  # a_keypoints.json names its photo
        return Annotations(str(path), what, found | {_named_after(path): nameless}, None)
    return Annotations(str(path), what, found | ({_named_after(path): nameless} if nameless else {}), nameless)


def _entries(
    source: object, content: Any, values_of: ValuesOf, records_of: RecordsOf
) -> tuple[dict[PhotoName, Entry], Entry | None]:
    """The entries of the photos that a file names, and of the one that it does not name."""
    entries: dict[PhotoName | None, Entry] = {}
    for record in records_of(source, content):
        entry = entries.setdefault(record.name, Entry())
        entry.size = entry.size or record.size
        if record.fields is not None:
            values = list(values_of(source, record.where, record.fields))
            entry.values += values
            entry.scores += [values.score_of(source, record.where, record.fields)] * len(values)
    nameless = entries.pop(None, None)
    return entries, nameless


def _inline(source: str | os.PathLike) -> Any:
    """The content of a text that is JSON itself (`[0, 0, 640, 427]`, `0,0,640,427`), or None where it is a path."""
    text = os.fspath(source).strip()
    if os.path.exists(text) or not text or text[0] not in "[{-.0123456789":
        return None
    try:
        content = json.loads(text if text[0] in "[{" else f"[{text}]")
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, list | dict) and len(content) > 0 and (text[0] in "[{" or len(content) == 4) else None


def _named_after(path: Path) -> PhotoName:
    """The photo after which a file of one photo is named."""
    stem = path.stem
    for suffix in FILE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return PhotoName.of(stem)


def _image(image: ImageFile | str | os.PathLike) -> ImageFile:
    return image if isinstance(image, ImageFile) else ImageFile(Path(image), Path(image).stem)


def _all_of(given: GivenPeople, image: str | os.PathLike) -> GivenPeople:
    if given.left_out:
        raise InputError(image, given.left_out[0], "leave the person out, or correct the file")
    return given


def _check_size(image: ImageFile, name: str, given: tuple[int, int] | None, size: tuple[int, int]) -> None:
    """Refuses annotations that were made on a photo of another size."""
    if given is None or tuple(given) == tuple(size):
        return
    turned = ", as its EXIF orientation turns it" if tuple(given) == tuple(size)[::-1] else ""
    problem = f"the file of {name} is for a photo of {given[0]} x {given[1]} px, this one has {size[0]} x {size[1]} px{turned}"
    remedy = "annotate the upright photo" if turned else "give the photo that was annotated, or scale the annotations"
    raise InputError(image.path, problem, remedy)


def _check_pixels(image: ImageFile, name: str, points: Float[np.ndarray, "P *n"], size: tuple[int, int]) -> None:
    """Refuses coordinates in 0..1 or -1..1 of the photo."""
    known = points[..., :2][points[..., 2] > 0] if points.ndim == 3 else points
    if known.size and np.abs(known).max() <= _FEW_PIXELS:
        _not_pixels(image, name, f"all numbers lie within {known.min():g} .. {known.max():g}", size)


def _not_pixels(image: ImageFile, name: str, why: str, size: tuple[int, int]) -> None:
    problem = f"the {name} are not in px: {why}"
    raise InputError(image.path, problem, f"give px of this photo of {size[0]} x {size[1]} px")


def _unusable(
    points: np.ndarray | None, box: tuple[np.ndarray, np.ndarray] | None, size: tuple[int, int], min_keypoints: int
) -> str | None:
    """Why nothing can be recovered of a person, by keypoints (23, 3) and (given, clipped) box; None where something can."""
    if box is not None:
        text, sides = "the box " + ", ".join(f"{x:g}" for x in box[0]), box[1][2:] - box[1][:2]
        if not (sides >= 1).all():
            return f"{text} lies outside this photo of {size[0]} x {size[1]} px"
        if sides.max() < _SMALLEST_BOX:
            return f"{text} is only {sides[0]:.3g} x {sides[1]:.3g} px, too small for a person"
    elif (seen := (points[:, 2] >= MIN_CONFIDENCE)).sum() < min_keypoints:
        return f"{seen.sum()} keypoints are known inside the photo, {min_keypoints} are needed"
    elif np.ptp(points[seen, :2], axis=0).max() < _FEW_PIXELS:
        return f"all keypoints lie within {_FEW_PIXELS:g} px"
    return None


def _extents(points: np.ndarray | None, boxes: np.ndarray | None) -> Float[np.ndarray, "P"]:
    """The root of each person's area in px, by which the detector ranks people too."""
    boxes = keypoint_bounds(points) if boxes is None else boxes
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1))
