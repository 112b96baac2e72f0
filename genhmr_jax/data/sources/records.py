"""The two kinds of records that sources yield: a pose, and a person in an image.

Every record has every field of its schema, so that readers of built datasets need no special cases.
No label is invented: a field that the release lacks is zero with confidence 0, or with its has_* 0.
"""

import math
from typing import Annotated, Any, NamedTuple, TypedDict, get_type_hints

import numpy as np

from genhmr_jax.io.errors import InputError


class Field(NamedTuple):
    """Shape and dtype of a field; dtype is "f4", "i4", "str" or "bytes"."""

    shape: tuple[int, ...]
    dtype: str


_Number = Annotated[np.ndarray, Field((), "f4")]
_Integer = Annotated[np.ndarray, Field((), "i4")]
_Text = Annotated[str, Field((), "str")]
_Bytes = Annotated[bytes, Field((), "bytes")]


class PoseRecord(TypedDict):
    """A pose of SMPL."""

    # Axis-angle, radians, root first, y up; hands are zero where they are unknown.
    pose: Annotated[np.ndarray, Field((72,), "f4")]
    betas: Annotated[np.ndarray, Field((10,), "f4")]
    gender: _Text  # neutral, male or female
    sequence: _Text  # SUBSET/.../CLIP
    frame: _Integer  # of the release's file


class PersonRecord(TypedDict):
    """A person in an image.

    Camera orientation: x right, y down, z forward. A has_* is 1 where its fields are known, else 0.
    """

    image: _Bytes  # the original JPEG or PNG; b"" if the source has no images
    image_name: _Text
    image_size: Annotated[np.ndarray, Field((2,), "i4")]  # width, height, px
    sequence: _Text
    frame: _Integer
    person: _Integer
    box: Annotated[np.ndarray, Field((4,), "f4")]  # x0, y0, x1, y1, px
    # BODY44: x, y px of the image, confidence
    keypoints2d: Annotated[np.ndarray, Field((44, 3), "f4")]
    # BODY44: metres in camera orientation, confidence
    keypoints3d: Annotated[np.ndarray, Field((44, 4), "f4")]
    joints24_3d: Annotated[np.ndarray, Field((24, 4), "f4")]  # SMPL24: the same
    global_orient: Annotated[np.ndarray, Field((3,), "f4")]  # camera coordinates
    body_pose: Annotated[np.ndarray, Field((69,), "f4")]
    betas: Annotated[np.ndarray, Field((10,), "f4")]
    gender: _Text
    # Of the model's origin, camera coordinates, metres.
    translation: Annotated[np.ndarray, Field((3,), "f4")]
    intrinsics: Annotated[np.ndarray, Field((3, 3), "f4")]  # px
    mask: _Bytes  # PNG of (H, W), 255 inside; b"" if there is no mask
    has_pose: _Number
    has_betas: _Number
    has_translation: _Number
    has_intrinsics: _Number
    has_gender: _Number


def _fields(record: type) -> dict[str, Field]:
    hints = get_type_hints(record, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


POSE_FIELDS = _fields(PoseRecord)
PERSON_FIELDS = _fields(PersonRecord)
_HAS = {
    "has_pose": ("global_orient", "body_pose"),
    "has_betas": ("betas",),
    "has_translation": ("translation",),
    "has_intrinsics": ("intrinsics",),
    "has_gender": ("gender",),
}
_GENDERS = ("male", "female", "neutral")
_LARGEST_TURN = 4 * math.pi  # optimised axis-angle vectors may exceed a full turn, but not two
_SKIP = "leave this record out with --skip-bad"


def fields_of(kind: str) -> dict[str, Field]:
    """The schema of the records of a kind of source, "poses" or "people"."""
    return {"poses": POSE_FIELDS, "people": PERSON_FIELDS}[kind]


def pose_record(
    where: object,
    *,
    pose: np.ndarray,
    sequence: str,
    frame: int,
    betas: Any = None,
    gender: Any = "neutral",
) -> PoseRecord:
    """A checked pose record.

    Args:
      where: the file and record, for errors.
      pose: (72,) SMPL axis-angle, radians, root first, y up.
      sequence: "SUBSET/.../CLIP".
      frame: its number in the release's file.
      betas: (>= 10,) shape, or None if unknown; the first ten are kept.
      gender: in any spelling, see `gender_name`.

    Raises:
      InputError: a wrong shape, numbers that are not finite, or wrong units.
    """
    betas = np.zeros(10) if betas is None else betas
    given = {
        "pose": pose,
        "betas": ten_betas(betas, where),
        "gender": gender_name(gender),
        "sequence": sequence,
        "frame": frame,
    }
    record = {name: _cast(name, field, given[name], where) for name, field in POSE_FIELDS.items()}
    check_turns(record["pose"], where)
    return record


def person_record(where: object, **given: Any) -> PersonRecord:
    """A checked person record of the given fields; the others are zero.

    Args:
      where: the file and record, for errors.
      **given: fields of PersonRecord, any numeric dtype. `box` and `image_size` are required.
        `betas` may be longer than ten. By default each has_* is 1 if its fields are given.

    Raises:
      InputError: a wrong shape, numbers that are not finite, an empty box, or wrong units.
      TypeError: a name outside the schema.
    """
    if unknown := set(given) - set(PERSON_FIELDS):
        raise TypeError(f"not fields of a person record: {', '.join(sorted(unknown))}")
    if "betas" in given:
        given["betas"] = ten_betas(given["betas"], where)
    for flag, fields in _HAS.items():
        given.setdefault(flag, float(all(name in given for name in fields)))
    given["gender"] = gender_name(given.get("gender", "neutral"))
    record = {
        name: _cast(name, field, given.get(name), where) for name, field in PERSON_FIELDS.items()
    }
    _check_image(record, where)
    _check_units(record, where)
    return record


def ten_betas(betas: Any, where: object) -> np.ndarray:
    """The first ten shape coefficients, which are the same in all releases (10, 16 or 300).

    Raises:
      InputError: fewer than ten.
    """
    betas = np.asarray(betas).reshape(-1)
    if len(betas) < 10:
        remedy = "SMPL's shape needs at least 10: is the file complete?"
        raise InputError(where, f"betas has {len(betas)} numbers", remedy)
    return betas[:10]


def gender_name(value: Any) -> str:
    """neutral, male or female, from any spelling of the releases; neutral for anything else.

    Spellings are m, "b'female'", bytes and 0-d arrays.
    """
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    text = text.strip().lower()
    if text.startswith("b'"):  # str() of Python 2 bytes, in some AMASS files
        text = text[2:].strip("'")
    return next((name for name in _GENDERS if text in (name, name[0])), "neutral")


def _cast(name: str, field: Field, value: Any, where: object) -> Any:
    """The value in the type of its field; None is zero or empty."""
    if field.dtype == "str":
        return "" if value is None else str(value)
    if field.dtype == "bytes":
        return b"" if value is None else bytes(value)
    if value is None:
        return np.zeros(field.shape, field.dtype)
    try:
        array = np.asarray(value).astype(field.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            where, f"{name} is not made of numbers ({error})", "is this the official release?"
        ) from error
    if array.shape != field.shape:
        remedy = f"it must have shape {field.shape}"
        raise InputError(where, f"{name} has shape {array.shape}", remedy)
    if not np.isfinite(array).all():
        raise InputError(where, f"{name} has numbers that are not finite", _SKIP)
    return array


def check_turns(pose: np.ndarray, where: object) -> None:
    """Raises InputError for a pose (..., 3 n) in degrees: a joint rotates by over two turns."""
    largest = np.linalg.norm(pose.reshape(-1, 3), axis=-1).max()
    if largest > _LARGEST_TURN:
        problem = f"wrong units: a joint turns by {largest:.0f} rad"
        raise InputError(where, problem, "poses are axis-angle in radians, not degrees")


def _check_image(record: PersonRecord, where: object) -> None:
    """Raises InputError for an image or a box without area, or a negative confidence."""
    if (record["image_size"] < 1).any():
        problem = f"image_size is {record['image_size'].tolist()}"
        raise InputError(where, problem, "it is width and height in pixels")
    x0, y0, x1, y1 = record["box"]
    if not (x1 > x0 and y1 > y0):
        raise InputError(where, f"the box {record['box'].tolist()} is empty", _SKIP)
    for name in ("keypoints2d", "keypoints3d", "joints24_3d"):
        if (record[name][:, -1] < 0).any():
            raise InputError(where, f"{name} has negative confidences", "confidences are 0 or more")


def _check_units(record: PersonRecord, where: object) -> None:
    """Raises InputError for degrees, millimetres or normalised coordinates."""
    check_turns(np.concatenate([record["global_orient"], record["body_pose"]]), where)
    for name in ("keypoints3d", "joints24_3d"):
        known = record[name][record[name][:, -1] > 0, :3]
        if len(known) > 1 and (extent := np.ptp(known, axis=0).max()) > 20:
            problem = f"wrong units: {name} span {extent:.0f} metres"
            raise InputError(where, problem, "3D points are metres, not millimetres")
    if (distance := np.linalg.norm(record["translation"])) > 1000:
        problem = f"wrong units: the person is {distance:.0f} metres away"
        raise InputError(where, problem, "translations are metres, not millimetres")
    if record["has_intrinsics"] and record["intrinsics"][[0, 1], [0, 1]].min() < 10:
        problem = "wrong units: the focal length is below 10 pixels"
        raise InputError(where, problem, "intrinsics are in pixels, not normalised")
    known = record["keypoints2d"][record["keypoints2d"][:, 2] > 0, :2]
    if len(known) > 3 and record["image_size"].min() > 32 and np.abs(known).max() <= 2:
        problem = "wrong units: all 2D keypoints lie within 2 pixels of the corner"
        raise InputError(where, problem, "keypoints are pixels, not normalised")
