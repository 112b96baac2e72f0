"""Boxes, keypoints, scores and cameras in px, from the fields of a user's record."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from smpl_jax.keypoints import COCO17, OPENPOSE25

from genhmr_jax.geometry.keypoints import DETECTED, match
from genhmr_jax.io.errors import InputError

OPENPOSE_COCO18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
HALPE26 = (
    *COCO17, "head_top", "neck", "mid_hip", "left_big_toe", "right_big_toe",
    "left_small_toe", "right_small_toe", "left_heel", "right_heel",
)  # fmt: skip
"""Of the Halpe data set (https://github.com/Fang-Haoshu/Halpe-FullBody). In its 136 keypoints,
faces and hands follow."""
COCO_FEET = (
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
"""Of COCO-WholeBody (https://github.com/jin-s13/COCO-WholeBody), after the 17 of the body. 68 of
faces and 42 of hands follow."""
_FACE_AND_HANDS = tuple(f"face_{i}" for i in range(68)) + tuple(f"hands_{i}" for i in range(42))
NAME_SETS = (
    DETECTED,
    COCO17,
    OPENPOSE25,
    OPENPOSE_COCO18,
    HALPE26,
    COCO17 + COCO_FEET + _FACE_AND_HANDS,
    HALPE26 + _FACE_AND_HANDS,
)
NAMES_BY_NUMBER = {len(names): names for names in NAME_SETS}

FORMATS = "docs/annotations.md shows the forms"
BOX_FIELDS = ("boxes", "bbox", "box")
POINT_FIELDS = ("keypoints", "pose_keypoints_2d")
_LONGEST_LENS = 1e6  # px
_LARGEST = 1e9  # px, more than any picture has; squares of larger numbers overflow
_UNKNOWN_REMEDY = "leave out what is unknown, or give it confidence 0"


class UserCamera(NamedTuple):
    """The camera that a user gives for a photo.

    Attributes:
      focal: focal length, px.
      principal_point: (x, y) px; None: the middle of the photo.
    """

    focal: float
    principal_point: tuple[float, float] | None = None


def boxes_of(source: object, where: str, fields: dict[str, Any]) -> Float[np.ndarray, "P 4"]:
    """Boxes (P, 4) xyxy px of a record.

    They are `boxes` xyxy, `bbox` or AlphaPose's `box` x, y, width, height, or MMPose's `bbox`
    [[xyxy]].

    Raises:
      InputError: there is no box, a box is not four finite numbers, or has no area.
    """
    if "boxes" in fields:
        if empty(fields["boxes"]):
            return np.zeros((0, 4))
        boxes = np.atleast_2d(numbers(source, f"{where}, boxes", fields["boxes"], (4,), (-1, 4)))
    else:
        name = next((name for name in BOX_FIELDS if fields.get(name) is not None), None)
        if name is None:
            raise InputError(source, f"{where} has no box", FORMATS)
        boxes = numbers(source, f"{where}, {name}", fields[name], (4,), (1, 4))
        if boxes.ndim == 1:
            boxes = np.concatenate([boxes[:2], boxes[:2] + boxes[2:]])[None]
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        remedy = "give x0, y0, x1, y1 with x0 < x1 and y0 < y1, in px"
        raise InputError(source, f"{where}: a box has no area", remedy)
    return boxes


def keypoints_of(source: object, where: str, fields: dict[str, Any]) -> Float[np.ndarray, "P 23 3"]:
    """Keypoints (P, 23, 3) of a record: x px, y px and confidence 0..1, in the order of DETECTED.

    All three are 0 for a keypoint that the record lacks. The field `names` lists the keypoints;
    without it, their number decides. Coordinates of confidence 0 are not read.

    Raises:
      InputError: there are no keypoints, or they are not numbers of that shape.
    """
    if fields.get("num_keypoints") == 0:  # COCO's word for a person without keypoints
        return np.zeros((1, len(DETECTED), 3))
    given = next((fields[name] for name in POINT_FIELDS if fields.get(name) is not None), None)
    if given is None:
        raise InputError(source, f"{where} has no keypoints", FORMATS)
    if empty(given):
        return np.zeros((0, len(DETECTED), 3))
    shapes = (-1,), (-1, -1), (-1, -1, 3)
    array = numbers(source, f"{where}, keypoints", given, *shapes, finite=False)
    people = _people(array, fields, source, where)
    feet = fields.get("foot_kpts")  # a separate field in COCO-WholeBody
    if feet is not None and len(people) == 1:
        shape = (3 * len(COCO_FEET),)
        feet = numbers(source, f"{where}, foot_kpts", feet, shape, finite=False)
        people = np.concatenate([people, feet.reshape(1, -1, 3)], 1)
    names = _names(source, where, fields, people)
    unknown = np.nan_to_num(people[..., 2:]) <= 0
    if not np.isfinite(people[~unknown[..., 0]]).all():
        raise InputError(source, f"{where} holds NaN or infinite numbers", _UNKNOWN_REMEDY)
    index = np.array(match(names, DETECTED))
    keypoints = np.where(unknown, 0.0, people)[:, index] * (index >= 0)[:, None]
    # COCO's visibilities 1 and 2 both mean that the keypoint was marked.
    keypoints[..., 2] = np.clip(keypoints[..., 2], 0, 1)
    return keypoints


def score_of(source: object, where: str, fields: dict[str, Any]) -> float:
    """The score of a record from its detector, or NaN. Raises InputError if it is not a number."""
    given = fields.get("score") if fields.get("score") is not None else fields.get("bbox_score")
    if given is None:
        return math.nan
    return float(numbers(source, f"{where}, score", [given], (1,))[0])


def numbers(
    source: object, where: str, value: Any, *shapes: tuple[int, ...], finite: bool = True
) -> Float[np.ndarray, "..."]:
    """An array of one of the shapes, where -1 stands for any length.

    Raises:
      InputError: it is not an array of numbers of such a shape, or holds numbers beyond 1e9 or
        (with `finite`) NaN or infinite ones.
    """
    try:
        array = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.zeros(())
    fits = any(
        array.ndim == len(shape)
        and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
        for shape in shapes
    )
    if not fits or not array.size:
        wanted = " or ".join(
            " x ".join("N" if n < 0 else str(n) for n in shape) for shape in shapes
        )
        raise InputError(source, f"{where} is not {wanted} numbers", FORMATS)
    if finite and not np.isfinite(array).all():
        raise InputError(source, f"{where} holds NaN or infinite numbers", _UNKNOWN_REMEDY)
    if (np.abs(np.nan_to_num(array, posinf=0, neginf=0)) > _LARGEST).any():
        raise InputError(source, f"{where} holds numbers beyond {_LARGEST:g}", "give px")
    return array


def camera_of(source: object, where: str, fields: dict[str, Any]) -> UserCamera:
    """The camera of a record: `intrinsics` 3 x 3, or `focal` and optionally `principal_point`, px.

    Raises:
      InputError: both are missing, the focal length is outside 1..1e6 px, or pixels are not square.
    """
    if "intrinsics" in fields:
        matrix = numbers(source, f"{where}, intrinsics", fields["intrinsics"], (3, 3))
        lengths = matrix[[0, 1], [0, 1]]
        principal = tuple(matrix[:2, 2].tolist())
        others = matrix[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]]
        tolerance = 1e-6 * max(np.abs(lengths).max(), 1.0)
        if np.abs(others - [0, 0, 0, 0, 1]).max() > tolerance:
            problem = f"{where}, intrinsics is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
            raise InputError(source, problem, FORMATS)
    elif "focal" in fields:
        lengths = np.repeat(numbers(source, f"{where}, focal", [fields["focal"]], (1,)), 2)
        principal = fields.get("principal_point")
        if principal is not None:
            name = f"{where}, principal_point"
            principal = tuple(numbers(source, name, principal, (2,)).tolist())
    else:
        raise InputError(source, f"{where} has neither intrinsics nor focal", FORMATS)
    if not ((lengths >= 1) & (lengths <= _LONGEST_LENS)).all():
        problem = f"{where} has the focal length {lengths.min():g}"
        raise InputError(source, problem, f"give it in px, 1 to {_LONGEST_LENS:g}")
    if abs(lengths[0] - lengths[1]) > 0.01 * lengths.max():
        both = f"focal lengths {lengths[0]:g} and {lengths[1]:g}"
        problem = f"{where} has pixels that are not square ({both})"
        raise InputError(source, problem, "stretch the photo so that they are equal")
    return UserCamera(float(np.sqrt(lengths[0] * lengths[1])), principal)


def empty(value: Any) -> bool:
    """Whether a JSON value means that there is nobody."""
    return value is None or value == []


def _people(
    given: np.ndarray, fields: dict[str, Any], source: object, where: str
) -> Float[np.ndarray, "P K 3"]:
    """Keypoints of one or several people, from flat or nested arrays, joined with their scores."""
    scores = fields.get("keypoint_scores")
    if scores is not None:  # MMPose: (K, 2) and (K,)
        name = f"{where}, keypoint_scores"
        scores = numbers(source, name, scores, (len(given),), finite=False)
        if given.ndim != 2 or given.shape[1] != 2:
            problem = f"{where}, keypoints is not {len(scores)} x 2 numbers"
            raise InputError(source, problem, FORMATS)
        return np.concatenate([given, scores[:, None]], 1)[None]
    if given.ndim == 3:
        return given
    if given.ndim == 1 or given.shape[1] == 3:
        given = given.reshape(1, -1)
    if given.shape[1] % 3:
        remedy = f"give {_known_numbers()} times x, y, confidence a person"
        raise InputError(source, f"{where} has {given.shape[1]} numbers", remedy)
    return given.reshape(len(given), -1, 3)


def _names(source: object, where: str, fields: dict[str, Any], people: np.ndarray) -> Sequence[str]:
    """The names of the K keypoints of people (P, K, 3).

    Raises:
      InputError: there is no name for each, and no set of known names has K.
    """
    names = fields.get("names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names is not None and not is_list:
        raise InputError(source, f"{where}, names is not a list of texts", FORMATS)
    if not names and fields.get("foot_kpts") is not None:
        names = COCO17 + COCO_FEET
    names = names or NAMES_BY_NUMBER.get(people.shape[1], ())
    if len(names) != people.shape[1]:
        wanted = f"{_known_numbers()} times x, y, confidence"
        if names:
            wanted = f"{len(names)} x 3, one per name,"
        problem = f"{where} has {people.shape[1]} keypoints"
        raise InputError(source, problem, f"give {wanted} a person")
    return names


def _known_numbers() -> str:
    *first, last = (str(number) for number in NAMES_BY_NUMBER)
    return f"{', '.join(first)} or {last}"
