"""Records of people and cameras in the JSON forms that other programs write.

docs/annotations.md lists the forms. A form decides which photo a record belongs to; values.py reads
the fields of the record.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genhmr_jax.data.annotations.matching import PhotoName
from genhmr_jax.data.annotations.values import BOX_FIELDS, FORMATS, POINT_FIELDS, empty, numbers
from genhmr_jax.io.errors import InputError

PERSON_NAMES = ("person", "human", "pedestrian", "people")
_CAMERA_FIELDS = ("focal", "principal_point", "intrinsics")
_RECORD_FIELDS = {
    *BOX_FIELDS, *POINT_FIELDS, *_CAMERA_FIELDS, "names", "score", "bbox_score",
    "keypoint_scores", "category_id", "iscrowd", "area", "id",
}  # fmt: skip


class Record(NamedTuple):
    """One record of a file.

    Attributes:
      name: the photo it belongs to; None if it names no photo (then the file is named after the
        photo, or there is one photo).
      size: (width, height) px that the file gives for that photo, or None.
      where: the record's name in an error.
      fields: None where the file declares that nobody is in the photo.
    """

    name: PhotoName | None
    size: tuple[int, int] | None
    where: str
    fields: dict[str, Any] | None


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
      InputError: it cannot be read or is not JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(path, "is text in UTF-16, not UTF-8", "save it as UTF-8")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(path, "is not text in UTF-8", "save it as JSON in UTF-8") from error
    except (ValueError, RecursionError) as error:
        problem = "is empty" if not data.strip() else f"is not JSON ({error})"
        raise InputError(path, problem, FORMATS) from error


def records(source: object, content: Any) -> Iterator[Record]:
    """Each record of people in the content of a JSON file.

    Args:
      source: the file, for errors.
      content: of `read_json`.

    Raises:
      InputError: the content has no known form; the error names the record.
    """
    if isinstance(content, list):
        yield from _list(source, content)
    elif not isinstance(content, dict):
        raise InputError(source, "holds neither a list nor an object", FORMATS)
    elif "people" in content:
        yield from _openpose(source, content["people"])
    elif "annotations" in content:
        yield from _coco(source, content)
    elif "instance_info" in content:
        yield from _mmpose(source, content["instance_info"])
    elif content and set(content) <= _RECORD_FIELDS:
        yield Record(None, None, "the record", content)
    else:
        yield from by_photo(content)


def cameras(source: object, content: Any) -> Iterator[Record]:
    """Each record of a camera in the content of a JSON file. Raises InputError."""
    if not isinstance(content, dict) or not content:
        raise InputError(source, "holds no cameras", FORMATS)
    if set(content) <= set(_CAMERA_FIELDS):
        yield Record(None, None, "the record", content)
        return
    for key, value in content.items():
        where = f"record {key!r}"
        yield Record(PhotoName.of(key), None, where, _object(source, where, value))


def by_photo(content: dict[str, Any]) -> Iterator[Record]:
    """Our own form: records by the photo's name."""
    for key, value in content.items():
        where = f"record {key!r}"
        name = PhotoName.of(key)
        if empty(value):
            yield Record(name, None, where, None)
        elif isinstance(value, list) and all(isinstance(part, dict) for part in value):
            for i, part in enumerate(value):
                yield Record(name, None, f"{where}, {i}", part)
        elif isinstance(value, dict):
            yield Record(name, None, where, value)
        else:
            yield Record(name, None, where, {"boxes": value, "keypoints": value})


def _openpose(source: object, people: Any) -> Iterator[Record]:
    """OpenPose's {"people": [{"pose_keypoints_2d": [...]}]}.

    The inner list is empty where a face or a hand was found but no body.
    """
    if not isinstance(people, list):
        raise InputError(source, "people is not a list", FORMATS)
    yield Record(None, None, "people", None)
    for i, person in enumerate(people):
        fields = _object(source, f"person {i}", person)
        if fields.get("pose_keypoints_2d") != []:
            yield Record(None, None, f"person {i}", fields)


def _list(source: object, content: list[Any]) -> Iterator[Record]:
    """Results of COCO, AlphaPose or MMPose, or bare boxes or keypoints of one photo."""
    if not content:
        yield Record(None, None, "the list", None)
    elif not any(isinstance(part, dict) for part in content):
        if not all(isinstance(part, list | int | float) for part in content):
            raise InputError(source, "record 0 is not an object", FORMATS)
        yield Record(None, None, "the list", {"boxes": content, "keypoints": content})
    else:
        yield from _annotations(source, content, {}, {1})


def _coco(source: object, content: dict[str, Any]) -> Iterator[Record]:
    """COCO's {"images": [...], "annotations": [...], "categories": [...]}.

    A photo without annotations has nobody in it.
    """
    images = _objects(source, "images", content.get("images") or [], "image")
    photos: dict[PhotoName, Record] = {}
    for i, image in enumerate(images):
        if "id" not in image or "file_name" not in image:
            raise InputError(source, f"image {i} has no id or no file_name", FORMATS)
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise InputError(source, f"image {i}, file_name is not text", FORMATS)
        size = _size(source, f"image {i}", image)
        photo = Record(PhotoName.of(image["file_name"]), size, f"image {i}", None)
        photos[_photo_id(source, f"image {i}, id", image["id"])] = photo
        yield photo
    annotations = _objects(source, "annotations", content["annotations"], "record")
    yield from _annotations(
        source, annotations, photos, _person_ids(source, content.get("categories"))
    )


def _annotations(
    source: object, content: list[Any], photos: dict[PhotoName, Record], persons: set[Any]
) -> Iterator[Record]:
    """Records of people, each with the photo that it names by file_name or image_id.

    Crowds and other categories are left out.
    """
    for i, annotation in enumerate(content):
        where, size = f"record {i}", None
        fields = _object(source, where, annotation)
        if "file_name" in fields:
            name = _photo_id(source, f"{where}, file_name", fields["file_name"])
        elif "image_id" in fields:
            name = _photo_id(source, f"{where}, image_id", fields["image_id"])
            if name in photos:
                name, size = photos[name].name, photos[name].size
        elif any(fields.get(key) is not None for key in (*BOX_FIELDS, *POINT_FIELDS)):
            name = None  # MMPose: the file is named after the photo
        else:
            raise InputError(source, f"{where} has neither image_id nor file_name", FORMATS)
        category = fields.get("category_id", next(iter(persons), 1))
        is_person = not isinstance(category, list | dict) and category in persons
        if is_person and not fields.get("iscrowd"):
            yield Record(name, size, where, fields)
        else:
            yield Record(name, size, where, None)


def _mmpose(source: object, content: Any) -> Iterator[Record]:
    """Results of MMPose's demos.

    They are {"instance_info": [instance, ...]} of a photo, or
    {"instance_info": [{"frame_id": n, "instances": [...]}, ...]} of frames.
    """
    parts = _objects(source, "instance_info", content, "record")
    if not any("instances" in part for part in parts):
        yield Record(None, None, "instance_info", None)
    for i, part in enumerate(parts):
        if "instances" not in part:
            yield Record(None, None, f"record {i}", part)
            continue
        name = _photo_id(source, f"record {i}, frame_id", part.get("frame_id"))
        yield Record(name, None, f"record {i}", None)
        for j, instance in enumerate(
            _objects(source, f"record {i}, instances", part["instances"], "instance")
        ):
            yield Record(name, None, f"record {i}, instance {j}", instance)


def _person_ids(source: object, categories: Any) -> set[Any]:
    """Ids of COCO's category "person": 1 in COCO itself, another in many exports."""
    known = _objects(source, "categories", categories or [], "category")
    ids = [category["id"] for category in known if isinstance(category.get("id"), int | str)]
    persons = {
        c["id"] for c in known if str(c.get("name")).lower() in PERSON_NAMES and c.get("id") in ids
    }
    return persons or ({ids[0]} if len(ids) == 1 else {1})


def _photo_id(source: object, where: str, value: Any) -> PhotoName:
    """An image id or file name as the name of a photo.

    Raises:
      InputError: it is neither text nor an integer.
    """
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not (whole or (isinstance(value, str) and value)):
        raise InputError(source, f"{where} is neither text nor an integer", FORMATS)
    return PhotoName.of(value if isinstance(value, str) else int(value))


def _size(source: object, where: str, fields: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height, px, that COCO gives for a photo; None where they are missing or 0."""
    if not fields.get("width") or not fields.get("height"):
        return None
    width, height = numbers(
        source, f"{where}, width and height", [fields["width"], fields["height"]], (2,)
    )
    return round(width), round(height)


def _object(source: object, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(source, f"{where} is not an object", FORMATS)
    return value


def _objects(source: object, name: str, value: Any, each: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise InputError(source, f"{name} is not a list", FORMATS)
    return [_object(source, f"{each} {i}", part) for i, part in enumerate(value)]
