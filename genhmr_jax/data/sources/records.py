"""The two kinds of records that sources give: a pose, and a person in an image. What is unknown is zero, and says so.

Every record has every field of its schema, so that readers of built datasets need no cases. Nothing is invented: a field that the release
lacks is zero with confidence 0, or with its has_* 0.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from genhmr_jax.io.errors import InputError


class Field(NamedTuple):
    """Shape and dtype of a field; dtype is "f4", "i4", "str" or "bytes"."""

    shape: tuple[int, ...]
    dtype: str


NUMBER, INTEGER, TEXT, BYTES = Field((), "f4"), Field((), "i4"), Field((), "str"), Field((), "bytes")

POSE_FIELDS: dict[str, Field] = {
    "pose": Field((72,), "f4"),  # SMPL axis-angle, radians, root first, y up; hands zero where unknown
    "betas": Field((10,), "f4"),
    "gender": TEXT,  # neutral, male or female
    "sequence": TEXT,  # SUBSET/.../CLIP
    "frame": INTEGER,  # of the release's file
}

PERSON_FIELDS: dict[str, Field] = {
    "image": BYTES,  # the original JPEG or PNG; b"" if the source has none
    "image_name": TEXT,
    "image_size": Field((2,), "i4"),  # width, height, px
    "sequence": TEXT,
    "frame": INTEGER,
    "person": INTEGER,
    "box": Field((4,), "f4"),  # x0, y0, x1, y1, px
    "keypoints2d": Field((44, 3), "f4"),  # BODY44: x, y px of the image, confidence
    "keypoints3d": Field((44, 4), "f4"),  # BODY44: metres, camera orientation (x right, y down, z forward), confidence
    "joints24_3d": Field((24, 4), "f4"),  # SMPL24: the same
    "global_orient": Field((3,), "f4"),  # camera coordinates
    "body_pose": Field((69,), "f4"),
    "betas": Field((10,), "f4"),
    "gender": TEXT,
    "translation": Field((3,), "f4"),  # of the model's origin, camera coordinates, metres
    "intrinsics": Field((3, 3), "f4"),  # px
    "mask": BYTES,  # PNG of (H, W), 255 inside; b"" if there is none
    "has_pose": NUMBER,
    "has_betas": NUMBER,
    "has_translation": NUMBER,
    "has_intrinsics": NUMBER,
    "has_gender": NUMBER,
}

_HAS = {
    "has_pose": ("global_orient", "body_pose"),
    "has_betas": ("betas",),
    "has_translation": ("translation",),
    "has_intrinsics": ("intrinsics",),
    "has_gender": ("gender",),
}
_GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female", "n": "neutral", "neutral": "neutral"}
_LARGEST_TURN = 4 * math.pi  # axis-angle of optimisers may wind around, but not more than twice


def fields_of(kind: str) -> dict[str, Field]:
    """The schema of a source's kind."""
    return {"poses": POSE_FIELDS, "people": PERSON_FIELDS}[kind]


def pose_record(
    where: object, *, pose: np.ndarray, sequence: str, frame: int, betas: Any = None, gender: Any = "neutral"
) -> dict[str, Any]:
    """A record of POSE_FIELDS.

    Args:
      where: the file and record, for errors.
      pose: (72,) SMPL axis-angle, radians, root first, y up.
      sequence: "SUBSET/.../CLIP".
      frame: its number in the release's file.
      betas: (>= 10,) shape, or None if unknown; the first ten are kept.
      gender: as the release spells it.

    Raises:
      InputError: a wrong shape, numbers that are not finite, or wrong units.
    """
    betas = np.zeros(10) if betas is None else betas
    given = {"pose": pose, "betas": ten_betas(betas, where), "gender": gender_name(gender), "sequence": sequence, "frame": frame}
    record = {name: _cast(name, field, given[name], where) for name, field in POSE_FIELDS.items()}
    check_turns(record["pose"], where)
    return record


def person_record(where: object, **given: Any) -> dict[str, Any]:
    """A record of PERSON_FIELDS: what is given, zeros for the rest; each has_* is 1 if its fields are given, unless given itself.

    Args:
      where: the file and record, for errors.
      **given: fields of PERSON_FIELDS, any numeric dtype. `box` and `image_size` are always needed. `betas` may be longer than ten.

    Raises:
      InputError: a wrong shape, numbers that are not finite, an empty box, or wrong units.
      TypeError: a name outside the schema.
    """
    if unknown := set(given) - set(PERSON_FIELDS):
        raise TypeError(f"no fields of a person record: {', '.join(sorted(unknown))}")
    if "betas" in given:
        given["betas"] = ten_betas(given["betas"], where)
    for flag, fields in _HAS.items():
        given.setdefault(flag, float(all(name in given for name in fields)))
    given["gender"] = gender_name(given.get("gender", "neutral"))
    record = {name: _cast(name, field, given.get(name), where) for name, field in PERSON_FIELDS.items()}
    _check_image(record, where)
    _check_units(record, where)
    return record


def ten_betas(betas: Any, where: object) -> np.ndarray:
    """The first ten shape coefficients: those of 10-, 16- and 300-coefficient releases mean the same.

    Raises:
      InputError: fewer than ten.
    """
    betas = np.asarray(betas).reshape(-1)
    if len(betas) < 10:
        raise InputError(where, f"betas has {len(betas)} numbers", "SMPL's shape needs at least 10: is the file complete?")
    return betas[:10]


def gender_name(value: Any) -> str:
    """neutral, male or female, from any spelling of the releases (m, "b'female'", bytes, 0-d arrays); else neutral."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    text = text.strip().lower()
    if text.startswith("b'"):  # str() of Python 2 bytes, as some AMASS files have it
        text = text[2:].strip("'")
    return _GENDERS.get(text, "neutral")


def _cast(name: str, field: Field, value: Any, where: object) -> Any:
    if field.dtype == "str":
        return "" if value is None else str(value)
    if field.dtype == "bytes":
        return b"" if value is None else bytes(value)
    if value is None:
        return np.zeros(field.shape, field.dtype)
    try:
        array = np.asarray(value).astype(field.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(where, f"{name} is not made of numbers ({error})", "is this the official release?") from error
    if array.shape != field.shape:
        raise InputError(where, f"{name} has shape {array.shape}", f"it must have shape {field.shape}")
    if not np.isfinite(array).all():
        raise InputError(where, f"{name} has numbers that are not finite", "leave this record out with --skip-bad")
    return array


def check_turns(pose: np.ndarray, where: object) -> None:
    """Raises InputError if a joint of a pose (..., 3 n) turns more often than any body: degrees taken for radians."""
    largest = np.linalg.norm(pose.reshape(-1, 3), axis=-1).max()
    if largest > _LARGEST_TURN:
        raise InputError(where, f"wrong units: a joint turns by {largest:.0f} rad", "poses are axis-angle in radians, not degrees")


def _check_image(record: dict[str, Any], where: object) -> None:
    if (record["image_size"] < 1).any():
        raise InputError(where, f"image_size is {record['image_size'].tolist()}", "it is width and height in pixels")
    x0, y0, x1, y1 = record["box"]
    if not (x1 > x0 and y1 > y0):
        raise InputError(where, f"the box {record['box'].tolist()} is empty", "leave this record out with --skip-bad")
    for name in ("keypoints2d", "keypoints3d", "joints24_3d"):
        if (record[name][:, -1] < 0).any():
            raise InputError(where, f"{name} has negative confidences", "confidences are 0 or more")


def _check_units(record: dict[str, Any], where: object) -> None:
    """Catches degrees for radians, millimetres for metres, and normalised coordinates for pixels."""
    check_turns(np.concatenate([record["global_orient"], record["body_pose"]]), where)
    for name in ("keypoints3d", "joints24_3d"):
        known = record[name][record[name][:, -1] > 0, :3]
        if len(known) > 1 and (extent := np.ptp(known, axis=0).max()) > 20:
            raise InputError(where, f"wrong units: {name} span {extent:.0f} metres", "3D points are metres, not millimetres")
    if (distance := np.linalg.norm(record["translation"])) > 1000:
        raise InputError(where, f"wrong units: the person is {distance:.0f} metres away", "translations are metres, not millimetres")
    if record["has_intrinsics"] and record["intrinsics"][[0, 1], [0, 1]].min() < 10:
        raise InputError(where, "wrong units: the focal length is below 10 pixels", "intrinsics are in pixels, not normalised")
    known = record["keypoints2d"][record["keypoints2d"][:, 2] > 0, :2]
    if len(known) > 3 and record["image_size"].min() > 32 and np.abs(known).max() <= 2:
        raise InputError(where, "wrong units: all 2D keypoints lie within 2 pixels of the corner", "keypoints are pixels, not normalised")
