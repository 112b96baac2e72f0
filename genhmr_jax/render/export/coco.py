"""The 2D keypoints of a clip as COCO JSON with identities (https://cocodataset.org/#format-data)."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from smpl_jax.keypoints import COCO17

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render.export.table import STATES, ClipArrays

DETECTED_KEYPOINT, PROJECTED_KEYPOINT = 2, 1  # COCO's "visible" and "labelled, not visible"
_LIMBS = (
    ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee"),
    ("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"),
    ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"), ("left_eye", "right_eye"),
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
    ("right_eye", "right_ear"), ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
)  # fmt: skip
"""COCO's skeleton."""


def save_coco(path: str | os.PathLike, clip: ClipArrays) -> None:
    """Write the boxes and 2D keypoints of a clip, an annotation for each frame and person.

    Images: id (`frame_index`), file_name (the frame number with six digits and .jpg: the name that
    a folder of extracted frames would have), width, height, time (seconds). Annotations: id,
    image_id, category_id (1), track_id, state (observed or filled), bbox (x, y, width, height, px),
    area, iscrowd 0, keypoints (COCO's 17: x, y, v), num_keypoints, keypoint_confidence (17), score
    (the mean confidence of the keypoints with v > 0). The keypoints beyond COCO's 17 have the same
    form in extra_keypoints and extra_keypoint_confidence; the category has the names of both.

    In observed frames the keypoints are the detected ones, with v = 2. In filled frames nothing was
    detected: the keypoints are projections of the body, with v = 1 and the confidence 0. A keypoint
    that is not known is 0, 0, 0. The centre of a pixel is at +0.5.

    Args:
      path: of the file.
      clip: the arrays of the clip.

    Raises:
      ValueError: `keypoint_names` lacks one of COCO's 17.
      InputError: the file cannot be written.
    """
    names = [str(name) for name in clip.keypoint_names]
    if missing := sorted(set(COCO17) - set(names)):
        raise ValueError(f"keypoint_names lacks {', '.join(missing)}")
    extra = [name for name in names if name not in COCO17]
    width, height = (int(side) for side in clip.image_size)
    images = [
        {
            "id": int(number),
            "file_name": f"{number:06d}.jpg",
            "width": width,
            "height": height,
            "time": round(float(time), 6),
        }
        for number, time in zip(clip.frame_index, clip.times, strict=True)
    ]
    annotations: list[dict[str, Any]] = []
    for frame, person in np.argwhere(clip.state.T > 0):
        points = _points(clip, person, frame)
        coco = points[[names.index(name) for name in COCO17]]
        others = points[[names.index(name) for name in extra]]
        known = coco[coco[:, 2] > 0]
        x0, y0, x1, y1 = clip.boxes[person, frame].astype(np.float64)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": int(clip.frame_index[frame]),
                "category_id": 1,
                "track_id": int(clip.track_id[person]),
                "state": STATES[clip.state[person, frame]],
                "bbox": _rounded([x0, y0, x1 - x0, y1 - y0]),
                "area": round((x1 - x0) * (y1 - y0), 2),
                "iscrowd": 0,
                "num_keypoints": len(known),
                "keypoints": _triples(coco),
                "keypoint_confidence": _rounded(coco[:, 3]),
                "extra_keypoints": _triples(others),
                "extra_keypoint_confidence": _rounded(others[:, 3]),
                "score": round(float(known[:, 3].mean()), 4) if len(known) else 0.0,
            }
        )
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": COCO17,
        "skeleton": [[COCO17.index(end) + 1 for end in limb] for limb in _LIMBS],
        "extra_keypoints": extra,
    }
    content = {"images": images, "annotations": annotations, "categories": [category]}
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(content), encoding="utf-8")


def _points(clip: ClipArrays, person: int, frame: int) -> np.ndarray:
    """The keypoints (K, 4) of a person in a frame: x, y, v and score; zeros where not known."""
    points, scores = clip.keypoints2d[person, frame, :, :2], clip.keypoints2d[person, frame, :, 2]
    if STATES[clip.state[person, frame]] == "filled":
        points, scores = clip.projected_keypoints[person, frame], np.zeros(len(points))
        visible = np.full(len(points), PROJECTED_KEYPOINT)
    else:
        visible = np.where(scores > 0, DETECTED_KEYPOINT, 0)
    return np.where(visible[:, None] > 0, np.column_stack([points, visible, scores]), 0.0)


def _triples(points: np.ndarray) -> list[float | int]:
    """x, y, v of all points in one list; v is an integer."""
    return [value for x, y, v, _ in points for value in (*_rounded([x, y]), int(v))]


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]
