"""Selects the people of one photo from the user's boxes and keypoints.

Annotations of another photo, or in other units than px, are refused. People of low scores, and
those of whom too little is known, are left out.
"""

import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from genhmr_jax.data.annotations.user import Annotations, as_image_file
from genhmr_jax.detect.detector import detect
from genhmr_jax.detect.given_masks import GivenMasks
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS, keypoint_bounds
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile

MIN_SCORE = 0.2
"""The least score of a record, as for our own detector."""
SMALLEST_BOX = 8.0
"""px: the longer side of the smallest box of a person."""
# px: a person this small cannot be recovered. Coordinates as fractions of the photo are smaller.
_FEW_PIXELS = 2.0
_FEW = "{} keypoints are known inside the photo, {} are needed"
_PERCENT = 100.5  # the largest coordinate in percent, with rounding


@dataclasses.dataclass(frozen=True)
class UserAnnotations:
    """The user's annotations of the P people of a photo of whom enough is known.

    Attributes:
      boxes: (P, 4) xyxy px inside the photo, or None.
      keypoints: (P, 23, 3) px and confidence, 0 outside the photo; or None.
      index: (P,) index of each person among all people of this photo, in the order of the file.
      total: number of people in the file.
      low_scores: number of people left out because of their scores.
      left_out: the reason for each other person left out.
      masks: of the people, instead of boxes and keypoints; or None.
    """

    boxes: Float[np.ndarray, "P 4"] | None
    keypoints: Float[np.ndarray, "P 23 3"] | None
    index: Int[np.ndarray, "P"]
    total: int
    low_scores: int
    left_out: tuple[str, ...]
    masks: GivenMasks | None = None


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
) -> UserAnnotations:
    """The people that the user's files hold for one photo.

    These people are left out: those below the least score; those beyond `max_people` (the people
    with the largest score times box side stay); those whose box lies outside the photo or is
    smaller than 8 px; and, without boxes, those with fewer than `min_keypoints` keypoints inside
    the photo.

    Args:
      boxes, keypoints: at least one; if both are given, people have the same order in both.
      image: the photo.
      size: its width and height in px, upright.
      photos: the whole batch, see `Annotations.of`.
      min_score: of the records' own detector; records without a score are kept.
      max_people: None for everybody.
      min_keypoints: a body needs 4, a box 2.

    Raises:
      InputError: a file has nothing for this photo, is for a photo of another size, is not in px,
        or boxes and keypoints differ in number.
    """
    # 1. Find what each file has for this photo. Boxes come first.
    image = as_image_file(image)
    files = {"boxes": boxes, "keypoints": keypoints}
    entries = {name: file.of(image, photos) for name, file in files.items() if file is not None}
    for name, entry in entries.items():
        _check_size(image, name, entry.size, size)
    counts = {name: len(entry.values) for name, entry in entries.items()}
    if len(set(counts.values())) > 1:
        remedy = "give one box a person, in the same order, or leave out --boxes"
        of_people = f"keypoints of {counts['keypoints']} people"
        problem = f"{counts['boxes']} boxes but {of_people} were given"
        raise InputError(image.path, problem, remedy)
    total = next(iter(counts.values()))

    # 2. Restrict boxes and keypoints to the photo.
    whole = clipped = points = None
    if boxes is not None:
        whole = np.array(entries["boxes"].values, np.float32).reshape(-1, 4)
        _check_pixels(image, "boxes", whole, size)
        clipped = np.clip(whole, 0, np.tile(size, 2)).astype(np.float32)
    if keypoints is not None:
        points = np.array(entries["keypoints"].values, np.float32).reshape(-1, len(DETECTED), 3)
        unmarked = ~points[..., 2].any(-1)
        _check_pixels(image, "keypoints", points, size)
        points[..., 2] *= ((points[..., :2] >= 0) & (points[..., :2] <= size)).all(-1)

    # 3. Leave out people of low scores, and those of whom too little is known. A person may have
    # two scores; the box's counts.
    by_person = zip(*(entry.scores for entry in entries.values()), strict=True)
    score = np.array([next((s for s in both if not math.isnan(s)), math.nan) for both in by_person])
    low = score < min_score
    left_out, kept = [], []
    # COCO has many people of whom only the box is known: one text for all of them.
    blank = unmarked if boxes is None else np.zeros(total, bool)
    if blank.any():
        numbers = ", ".join(map(str, np.flatnonzero(blank) + 1))
        who = f"{'people' if blank.sum() > 1 else 'person'} {numbers} of {total} given"
        left_out.append(f"{who}: {_FEW.format(0, min_keypoints)}")
    for i in np.flatnonzero(~low & ~blank):
        box = None if boxes is None else (whole[i], clipped[i])
        problem = _unusable(None if points is None else points[i], box, size, min_keypoints)
        if problem:
            left_out.append(f"person {i + 1} of {total} given: {problem}")
        else:
            kept.append(i)

    # 4. Keep at most `max_people`.
    index = np.array(kept, int)
    if max_people is not None and len(index) > max_people:
        beyond = f"{len(index) - max_people} of {total} given people"
        left_out.append(f"{beyond} beyond --max-people {max_people}")
        extent = _extents(points, clipped)[index] * np.nan_to_num(score[index], nan=1.0)
        index = np.sort(index[np.argsort(-extent, kind="stable")[:max_people]])
    return UserAnnotations(
        boxes=None if clipped is None else clipped[index],
        keypoints=None if points is None else points[index],
        index=index,
        total=total,
        low_scores=int(low.sum()),
        left_out=tuple(left_out),
    )


def refuse_percent(given: UserAnnotations, image: ImageFile, pixels: np.ndarray) -> None:
    """Refuses coordinates in percent of the photo.

    Only the picture can decide: where all coordinates lie within 0..100 and the photo is larger,
    the detector runs on the boxes as px and as percent. If it finds people only in the latter, the
    file is not in px.

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
    boxes = boxes[:4]  # a few people are enough
    limits = np.tile(size, 2)
    as_px = np.clip(boxes, 0, limits)
    as_percent = np.clip(boxes * limits / 100.0, 0, limits)
    scores = detect(pixels, np.concatenate([as_px, as_percent])).scores
    if scores[len(boxes) :].mean() >= 0.5 > scores[: len(boxes)].mean():
        name = "keypoints" if given.boxes is None else "boxes"
        _not_pixels(image, name, "they look like percent of the photo", tuple(size))


def _check_size(
    image: ImageFile, name: str, given: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    """Refuses annotations of a photo of another size."""
    if given is None or tuple(given) == tuple(size):
        return
    turned = ", as its EXIF orientation turns it" if tuple(given) == tuple(size)[::-1] else ""
    remedy = "give the photo that was annotated, or scale the annotations"
    if turned:
        remedy = "annotate the upright photo"
    theirs, ours = (f"{width} x {height} px" for width, height in (given, size))
    problem = f"the file of {name} is for a photo of {theirs}, this one has {ours}{turned}"
    raise InputError(image.path, problem, remedy)


def _check_pixels(
    image: ImageFile, name: str, points: Float[np.ndarray, "P *n"], size: tuple[int, int]
) -> None:
    """Refuses coordinates as fractions of the photo, in 0..1 or -1..1."""
    known = points[..., :2][points[..., 2] > 0] if points.ndim == 3 else points
    if known.size and np.abs(known).max() <= _FEW_PIXELS:
        _not_pixels(image, name, f"all numbers lie within {known.min():g} .. {known.max():g}", size)


def _not_pixels(image: ImageFile, name: str, why: str, size: tuple[int, int]) -> None:
    problem = f"the {name} are not in px: {why}"
    raise InputError(image.path, problem, f"give px of this photo of {size[0]} x {size[1]} px")


def _unusable(
    points: np.ndarray | None,
    box: tuple[np.ndarray, np.ndarray] | None,
    size: tuple[int, int],
    min_keypoints: int,
) -> str | None:
    """Why a person cannot be recovered, or None.

    Args:
      points: (23, 3), or None.
      box: as given and as clipped, or None.
    """
    if box is not None:
        given, clipped = box
        text = "the box " + ", ".join(f"{x:g}" for x in given)
        sides = clipped[2:] - clipped[:2]
        if not (sides >= 1).all():
            return f"{text} lies outside this photo of {size[0]} x {size[1]} px"
        if sides.max() < SMALLEST_BOX:
            return f"{text} is only {sides[0]:.3g} x {sides[1]:.3g} px, too small for a person"
    elif (known := (points[:, 2] >= MIN_CONFIDENCE)).sum() < min_keypoints:
        return _FEW.format(known.sum(), min_keypoints)
    elif np.ptp(points[known, :2], axis=0).max() < _FEW_PIXELS:
        return f"all keypoints lie within {_FEW_PIXELS:g} px"
    return None


def _extents(points: np.ndarray | None, boxes: np.ndarray | None) -> Float[np.ndarray, "P"]:
    """The root of each person's area, px; the detector ranks people by it too."""
    boxes = keypoint_bounds(points) if boxes is None else boxes
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1))
