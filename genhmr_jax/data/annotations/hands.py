"""The user's hands of photos, read from JSON: keypoints or boxes (docs/annotations.md)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from smpl_jax.keypoints import HAND21

from genhmr_jax.data.annotations import forms
from genhmr_jax.data.annotations.forms import Record
from genhmr_jax.data.annotations.values import boxes_of, numbers
from genhmr_jax.io.errors import InputError

_OPENPOSE = {"hand_right_keypoints_2d": True, "hand_left_keypoints_2d": False}
_REMEDY = (
    'give {"keypoints": 21 x 3 numbers, "right": true}, {"box": [x0, y0, x1, y1]}, or a file of '
    "OpenPose (docs/annotations.md)"
)


@dataclasses.dataclass(frozen=True)
class GivenHand:
    """A hand of the user: its keypoints, or its box.

    Attributes:
      right: whether it is a right hand; None: not said, for a box.
      keypoints: (21, 3) px and confidence 0..1 in the order of HAND21, or None.
      box: (4,) xyxy px, or None.
    """

    right: bool | None
    keypoints: Float[np.ndarray, "21 3"] | None = None
    box: Float[np.ndarray, "4"] | None = None


def records(source: object, content: Any) -> Iterator[Record]:
    """Each record of hands in the content of a JSON file.

    Raises:
      InputError: the content has no known form.
    """
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        # OpenPose: a person without a body may have hands.
        yield Record(None, None, "people", None)
        for i, person in enumerate(content["people"]):
            if not isinstance(person, dict):
                raise InputError(source, f"person {i} is not an object", _REMEDY)
            yield Record(None, None, f"person {i}", person)
    elif isinstance(content, list) and all(isinstance(part, dict) for part in content):
        yield Record(None, None, "the list", None)
        for i, part in enumerate(content):
            yield Record(None, None, f"record {i}", part)
    elif isinstance(content, dict) and set(content) & {"keypoints", "box"}:
        yield Record(None, None, "the record", content)
    elif isinstance(content, dict):
        yield from forms.by_photo(content)
    else:
        raise InputError(source, "holds no hands", _REMEDY)


def hands_of(source: object, where: str, fields: dict[str, Any]) -> list[GivenHand]:
    """The hands of a record.

    Raises:
      InputError: a record without keypoints and box, or numbers of another shape.
    """
    # 1. OpenPose: both hands of a person; all confidences are 0 for a hand that was not found.
    if any(name in fields for name in _OPENPOSE):
        found = []
        for name, right in _OPENPOSE.items():
            if fields.get(name):
                points = numbers(source, f"{where}, {name}", fields[name], (3 * len(HAND21),))
                points = points.reshape(-1, 3)
                if (points[:, 2] > 0).any():
                    found.append(GivenHand(right, _clipped(points)))
        return found
    if "pose_keypoints_2d" in fields:
        return []  # a person whose hands OpenPose did not search
    # 2. Our own form.
    right = fields.get("right")
    if right is not None and not isinstance(right, bool):
        raise InputError(source, f"{where}, right is neither true nor false", _REMEDY)
    if fields.get("keypoints") is not None:
        if right is None:
            raise InputError(source, f"{where} does not say whether it is a right hand", _REMEDY)
        shapes = (len(HAND21), 3), (len(HAND21), 2)
        points = numbers(source, f"{where}, keypoints", fields["keypoints"], *shapes)
        if points.shape[1] == 2:
            points = np.concatenate([points, np.ones((len(points), 1))], 1)
        return [GivenHand(right, _clipped(points))]
    if fields.get("box") is not None:
        boxes = boxes_of(source, where, {"boxes": fields["box"]})
        return [GivenHand(right, box=box) for box in boxes]
    raise InputError(source, f"{where} has neither keypoints nor a box", _REMEDY)


def _clipped(points: Float[np.ndarray, "21 3"]) -> Float[np.ndarray, "21 3"]:
    """The keypoints with confidences in 0..1."""
    return np.concatenate([points[:, :2], np.clip(points[:, 2:], 0, 1)], 1).astype(np.float32)
