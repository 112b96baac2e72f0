"""People's own boxes, keypoints and cameras, read from JSON: ours; boxes and keypoints also of COCO and OpenPose.

Ours, by the stem of the photo's name (`crowd` for crowd.jpg):
  {"crowd": [x0, y0, x1, y1]}  or  {"crowd": [[x0, y0, x1, y1], ...]}                     boxes, px
  {"crowd": [[[x, y, confidence], ... K], ...]}                                           keypoints: K = 23, 17 or 25, see below
  {"crowd": {"boxes": [[...]], "keypoints": [[[...]]], "names": ["nose", ...]}}           both, with any set of names
  {"crowd": {"focal": f, "principal_point": [x, y]}}                                      a camera, px; the point is optional
  {"crowd": {"intrinsics": [[f, 0, x], [0, f, y], [0, 0, 1]]}}                            the same as a matrix
COCO: a list of results, or {"images": [...], "annotations": [...]}, with `bbox` x, y, width, height and `keypoints` 17 x 3. Records of a
category other than 1, person, and those without any keypoint marked are left out.
OpenPose: {"people": [{"pose_keypoints_2d": [...]}]}, BODY_25 or COCO-18, for the photo after which the file is named.

Keypoints without names are told apart by their number: 23 ours (`DETECTED`), 17 COCO, 25 OpenPose BODY_25, 18 OpenPose COCO.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from smpl_jax.keypoints import COCO17, OPENPOSE25

from genhmr_jax.body.keypoints import DETECTED, match
from genhmr_jax.errors import InputError

OPENPOSE_COCO18 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear"),
)
NAMES_BY_NUMBER = {len(names): names for names in (DETECTED, COCO17, OPENPOSE25, OPENPOSE_COCO18)}
OPENPOSE_SUFFIX = "_keypoints"
FORMATS = "give JSON as the documentation of genhmr_jax/detect/user.py shows"


class PhotoCamera(NamedTuple):
    """Focal length in px, and principal point (x, y) in px; None where nobody says: the middle of the photo."""

    focal: float
    principal_point: tuple[float, float] | None = None


def read_boxes(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Boxes of each photo.

    Returns:
      (P, 4) xyxy px by the photo's stem (or COCO's image id).

    Raises:
      InputError: the file is missing, no JSON, of no known format, or a box has a wrong length, is not finite or has no area.
    """
    found = defaultdict(list)
    for stem, where, record in _records(Path(path)):
        if "bbox" in record:
            x, y, width, height = _numbers(path, f"{where}, bbox", record["bbox"], (4,))
            boxes = np.array([[x, y, x + width, y + height]])
        elif record.get("boxes") is not None:
            boxes = np.atleast_2d(_numbers(path, f"{where}, boxes", record["boxes"], (4,), (-1, 4)))
        else:
            raise InputError(path, f"{where} has no box", FORMATS)
        if not (boxes[:, 2:] > boxes[:, :2]).all():
            raise InputError(path, f"{where}: a box has no area", "give x0, y0, x1, y1 with x0 < x1 and y0 < y1, in px")
        found[stem].extend(boxes)
    return {stem: np.array(boxes, np.float32) for stem, boxes in found.items()}


def read_keypoints(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Keypoints of each photo.

    Returns:
      (P, 23, 3) x px, y px and confidence 0..1 in the order of `DETECTED`, by the photo's stem (or COCO's image id); confidence 0
      where the file has no such keypoint.

    Raises:
      InputError: the file is missing, no JSON, of no known format, or keypoints have a wrong length or are not finite.
    """
    found = defaultdict(list)
    for stem, where, record in _records(Path(path)):
        if record.get("keypoints") is None:
            raise InputError(path, f"{where} has no keypoints", FORMATS)
        people = _people(_numbers(path, f"{where}, keypoints", record["keypoints"], (-1,), (-1, -1), (-1, -1, 3)))
        names = record["names"] if record.get("names") else NAMES_BY_NUMBER.get(people.shape[1])
        if people.shape[2] != 3 or names is None or len(names) != people.shape[1]:
            given = f"{people.shape[1]} keypoints" if people.shape[2] == 3 else f"{people.shape[2]} numbers"
            wanted = f"{len(names)} x 3, one per name," if record.get("names") else "23, 17, 25 or 18 times x, y, confidence"
            raise InputError(path, f"{where} has {given}", f"give {wanted} a person")
        found[stem].extend(_to_detected(people, names))
    return {stem: np.array(keypoints, np.float32) for stem, keypoints in found.items()}


def read_cameras(path: str | os.PathLike) -> dict[str, PhotoCamera]:
    """The camera of each photo, by the photo's stem.

    Raises:
      InputError: the file is missing or no JSON; a focal length that is not positive, pixels that are not square, no finite numbers.
    """
    content = _read_json(Path(path))
    if not isinstance(content, dict) or not content:
        raise InputError(path, "holds no cameras", FORMATS)
    return {stem: _camera(path, f"record {stem!r}", record) for stem, record in content.items()}


def _camera(path: str | os.PathLike, where: str, value: Any) -> PhotoCamera:
    record = _fields(Path(path), where, value)
    if "intrinsics" in record:
        matrix = _numbers(path, f"{where}, intrinsics", record["intrinsics"], (3, 3))
        lengths, principal = matrix[[0, 1], [0, 1]], tuple(matrix[:2, 2].tolist())
        if np.abs(matrix[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - [0, 0, 0, 0, 1]).max() > 1e-6 * max(np.abs(lengths).max(), 1.0):
            raise InputError(path, f"{where}, intrinsics is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]", FORMATS)
    elif "focal" in record:
        lengths = np.repeat(_numbers(path, f"{where}, focal", [record["focal"]], (1,)), 2)
        given = record.get("principal_point")
        principal = None if given is None else tuple(_numbers(path, f"{where}, principal_point", given, (2,)).tolist())
    else:
        raise InputError(path, f"{where} has neither intrinsics nor focal", FORMATS)
    if not (lengths > 0).all():
        raise InputError(path, f"{where} has the focal length {lengths.min():g}", "give it in px, above 0")
    if abs(lengths[0] - lengths[1]) > 0.01 * lengths.max():
        problem = f"{where} has pixels that are not square (focal lengths {lengths[0]:g} and {lengths[1]:g})"
        raise InputError(path, problem, "stretch the photo so that they are equal")
    return PhotoCamera(float(np.sqrt(lengths[0] * lengths[1])), principal)


def camera_of_image(cameras: dict[str, PhotoCamera], image: str | os.PathLike) -> PhotoCamera:
    """The camera of one photo. Raises InputError when none was given for it."""
    return _of_image(cameras, image, "camera")


def boxes_of_image(boxes: dict[str, np.ndarray], image: str | os.PathLike, size: tuple[int, int]) -> np.ndarray:
    """The boxes (P, 4) px for one photo, clipped to it.

    Args:
      boxes: of `read_boxes`.
      image: the photo's path.
      size: its width and height in px.

    Raises:
      InputError: no boxes for this photo, or a box that lies outside it.
    """
    chosen = _of_image(boxes, image, "box")
    clipped = np.clip(chosen, 0, np.tile(size, 2)).astype(np.float32)
    for box, inside in zip(chosen, clipped, strict=True):
        if not (inside[2:] - inside[:2] >= 1).all():
            text = ", ".join(f"{x:g}" for x in box)
            raise InputError(image, f"the box {text} lies outside this photo of {size[0]} x {size[1]} px", "give x0, y0, x1, y1 in px")
    return clipped


def keypoints_of_image(keypoints: dict[str, np.ndarray], image: str | os.PathLike, size: tuple[int, int]) -> np.ndarray:
    """The keypoints (P, 23, 3) for one photo; those outside it get confidence 0.

    Raises:
      InputError: no keypoints for this photo, or a person of whom none is in it.
    """
    chosen = _of_image(keypoints, image, "keypoints").copy()
    inside = ((chosen[..., :2] >= 0) & (chosen[..., :2] <= size)).all(-1)
    chosen[..., 2] *= inside
    if not (chosen[..., 2] > 0).any(-1).all():
        raise InputError(image, f"a person has no keypoint inside this photo of {size[0]} x {size[1]} px", "give x and y in px")
    return chosen


def _of_image(given: dict[str, Any], image: str | os.PathLike, what: str) -> Any:
    """What was given for a photo; COCO numbers its photos, with zeros before the number in the file's name only."""
    stem = Path(image).stem
    for key in (stem, stem.lstrip("0")):
        if len(given.get(key, ())):
            return given[key]
    known = ", ".join(sorted(given)[:5]) or "nobody"
    raise InputError(image, f"no {what} given for {stem!r}", f"name records after photos (the file has {known})")


def _records(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each record of a file: the photo's stem, what to call the record in an error, and its fields."""
    content = _read_json(path)
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        stem = path.stem.removesuffix(OPENPOSE_SUFFIX)
        for i, person in enumerate(content["people"]):
            yield stem, f"person {i}", {"keypoints": _fields(path, f"person {i}", person).get("pose_keypoints_2d")}
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        stems = dict(_coco_images(path, content.get("images", [])))
        yield from _coco(path, content["annotations"], stems)
    elif isinstance(content, list):
        yield from _coco(path, content, {})
    elif isinstance(content, dict):
        for stem, record in content.items():
            yield stem, f"record {stem!r}", record if isinstance(record, dict) else {"boxes": record, "keypoints": record}
    else:
        raise InputError(path, "holds neither a list nor an object", FORMATS)


def _coco_images(path: Path, images: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """COCO's image ids and the stems of their files."""
    for i, image in enumerate(images):
        fields = _fields(path, f"image {i}", image)
        if "id" not in fields or "file_name" not in fields:
            raise InputError(path, f"image {i} has no id or no file_name", FORMATS)
        yield fields["id"], Path(str(fields["file_name"])).stem


def _coco(path: Path, annotations: list[Any], stems: dict[Any, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for i, annotation in enumerate(annotations):
        where = f"record {i}"
        fields = _fields(path, where, annotation)
        if "file_name" in fields:
            stem = Path(str(fields["file_name"])).stem
        elif "image_id" in fields:
            stem = stems.get(fields["image_id"]) or Path(str(fields["image_id"])).stem
        else:
            raise InputError(path, f"{where} has neither image_id nor file_name", FORMATS)
        if fields.get("category_id", 1) == 1 and fields.get("num_keypoints") != 0:
            yield stem, where, fields


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is no JSON ({error})", FORMATS) from error


def _fields(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(path, f"{where} is no object", FORMATS)
    return value


def _numbers(path: str | os.PathLike, where: str, value: Any, *shapes: tuple[int, ...]) -> np.ndarray:
    """A finite array of one of the shapes, where -1 stands for any length."""
    try:
        array = np.array(value, np.float64)
    except (ValueError, TypeError):
        array = np.zeros(())
    fits = any(array.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True)) for shape in shapes)
    if not fits or not array.size:
        wanted = " or ".join(" x ".join("N" if n < 0 else str(n) for n in shape) for shape in shapes)
        raise InputError(path, f"{where} is not {wanted} numbers", FORMATS)
    if not np.isfinite(array).all():
        raise InputError(path, f"{where} holds NaN or infinite numbers", "leave out what is unknown, or give it confidence 0")
    return array


def _people(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints of one person or several, flat or not -> (P, K, 3), or (P, 1, numbers) where these are no triples."""
    if keypoints.ndim == 3:
        return keypoints
    if keypoints.ndim == 1 or keypoints.shape[1] == 3:
        keypoints = keypoints.reshape(1, -1)
    return keypoints.reshape(len(keypoints), -1, 3) if keypoints.shape[1] % 3 == 0 else keypoints[:, None]


def _to_detected(people: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(P, K, 3) by any names -> (P, 23, 3); what is missing becomes 0. COCO's visibilities 1 and 2 both mean that it was marked."""
    index = np.array(match(names, DETECTED))
    keypoints = np.where(index[:, None] >= 0, people[:, index], 0.0)
    keypoints[..., 2] = np.clip(keypoints[..., 2], 0, 1)
    return keypoints
