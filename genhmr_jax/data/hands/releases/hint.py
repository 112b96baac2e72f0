"""HInt: hands in everyday videos, with 21 2D keypoints and whether each is occluded.

Pavlakos et al., Reconstructing Hands in 3D with Transformers, CVPR 2024. The layout is that of
github.com/ddshan/hint (2bb359d):

* README, "Prepare HInt Dataset": folders TEST_newdays_img and so on with pairs NAME.jpg, NAME.json.
  The images of Ego4D are not in the download; `prep_HInt/prep_ego4d.py` extracts them and renames
  HInt_annotation_partial to HInt_annotation.
* `visualize_HInt/draw_hand.py`, `draw_hand_skeleton_new`: a JSON file is a list of one hand, with
  keypoints (21 x, y px), occlusion (21; 1 is hidden) and bbox, a list of one box.
  `fast_visualizer.py`, `draw_pose_new`: the box is x1, y1, x2, y2 px. Values of occlusion are
  compared with 1 - 0.5.
* `coco_wholebody_hand.py`: the order of the keypoints is HAND21.
* `prep_ego4d.py`, `retrieve_frames`: the end of a name, _l or _r, is the side of the hand.

Not verified: whether keypoints may be missing. A keypoint at exactly (0, 0) is read as one.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genhmr_jax.data.hands.releases.reading import finite, present, read_json
from genhmr_jax.data.hands.releases.record import HandRecord, weighted
from genhmr_jax.data.sources.photos import flat_numbers
from genhmr_jax.data.sources.reading import entry
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

SPLITS = (
    *("TRAIN_newdays_img", "TRAIN_epick_img", "TRAIN_ego4d_img"),
    *("VAL_newdays_img", "VAL_epick_img", "VAL_ego4d_img", "VAL_ego4d_seq"),
    *("TEST_newdays_img", "TEST_epick_img", "TEST_ego4d_img", "TEST_ego4d_seq"),
)
"""The folders of the release."""

_OFFICIAL = "is this the official release?"


def records(root: str | Path, split: str, report: Report | None = None) -> Iterator[HandRecord]:
    """The hands of a split, sorted by name.

    Args:
      root: HInt_annotation or HInt_annotation_partial.
      split: a folder of the release, one of SPLITS.
      report: of bad samples; None stops at the first.

    Raises:
      InputError: an unknown split, the folder is missing, or a sample is bad and `report` does not
        skip.
    """
    report = report or SOURCE.report()
    SOURCE.check_split(split)
    folder = report.require(Path(root) / split)
    paths = find_files(folder, "*.json")
    if not paths:
        report.missing(folder, "holds no .json")
    for path in paths:
        record = None
        with report.skipping():
            record = _record(path, split)
        if record is not None:
            yield record


def _record(path: Path, split: str) -> HandRecord:
    """The hand of one JSON file. Raises InputError."""
    content = read_json(path)
    if not isinstance(content, list) or len(content) != 1:
        raise InputError(path, "is not a list of one hand", _OFFICIAL)
    side = path.stem.rpartition("_")[2]
    if side not in ("l", "r"):
        raise InputError(path, "its name does not end in _l or _r", _OFFICIAL)
    hand = content[0]
    points = finite(entry(hand, "keypoints", path), (21, None), "keypoints", path)
    if points.shape[1] not in (2, 3):
        problem = f"keypoints have {points.shape[1]} numbers each"
        raise InputError(path, problem, "they must have x, y px, and nothing or a weight")
    hidden = finite(entry(hand, "occlusion", path), (21,), "occlusion", path) > 0.5
    pixels = points[:, :2]
    boxes = entry(hand, "bbox", path)
    if not isinstance(boxes, list) or len(boxes) != 1:
        raise InputError(path, "bbox is not a list of one box", _OFFICIAL)
    box = flat_numbers(boxes[0], 4, "bbox", path)
    if not (box[2] > box[0] and box[3] > box[1]):
        raise InputError(path, f"its box {box.tolist()} is empty", "leave it out")
    return HandRecord(
        name=f"{split}/{path.stem}",
        image=present(path.with_suffix(".jpg"), path),
        right=side == "r",
        box=box,
        keypoints=weighted(pixels, np.any(pixels != 0, axis=-1)),
        occluded=hidden,
    )


SOURCE = Source(
    name="hint",
    kind="hands",
    splits=SPLITS,
    folder="HInt_annotation",
    layout=(
        "HInt: download HInt_annotation_partial.zip by the link in https://github.com/ddshan/hint, "
        "and unpack it in the manual directory. For the Ego4D splits follow its README, which ends "
        "with HInt_annotation/TEST_ego4d_img/NAME.{jpg,json}. Without Ego4D, rename "
        "HInt_annotation_partial to HInt_annotation."
    ),
    licence="research; images under the terms of Hands23, Epic-Kitchens VISOR and Ego4D",
    citation="Pavlakos et al., Reconstructing Hands in 3D with Transformers, CVPR 2024",
    read=records,
)
