"""InterHand2.6M: one or two hands, seen by many cameras in a studio.

Moon et al., ECCV 2020. The layout is that of github.com/facebookresearch/InterHand2.6M (5d0e456):

* `data/InterHand2.6M/dataset.py`, `Dataset.__init__`: annotations/SPLIT/InterHand2.6M_SPLIT_
  {data,camera,joint_3d}.json and images/SPLIT/FILE_NAME. data.json has COCO's "images" (id,
  file_name, capture, camera, frame_idx) and "annotations" (image_id, bbox x, y, w, h px, hand_type
  right, left or interacting, joint_valid of 42). Joints 0..20 are the right hand, 21..41 the left;
  the last of each is the wrist. camera.json has campos, camrot, focal and princpt by capture and
  camera; joint_3d.json has world_coord (42, 3), mm, by capture and frame.
  `common/utils/transforms.py`, `world2cam`: camera = camrot (world - campos).
* `common/utils/preprocessing.py`, `load_skeleton`: annotations/skeleton.txt has a line NAME ID
  PARENT for each joint. The order is read from it. `common/utils/vis.py`, `get_keypoint_rgb`: names
  end in a finger and _null (the tip), 3, 2, 1 or 0, from the tip to the palm.
* `tool/MANO_world_to_camera/convert.py`: InterHand2.6M_SPLIT_MANO_NeuralAnnot.json has pose (48)
  and shape (10) by capture, frame and side, in the world. smplx's MANO layer with use_pca=False
  adds the mean pose.

A record of a pair of hands has the smallest box around its keypoints, since the annotation has one
box for both. `trans` is None: in the axes of the camera it needs MANO's shape. joint_valid is used
as it is; the official loader also drops hands without a valid wrist.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from genhmr_jax.data.hands.releases.reading import finite, inside, present, read_json
from genhmr_jax.data.hands.releases.record import HandRecord, project, tight_box, weighted
from genhmr_jax.data.sources.photos import flat_numbers
from genhmr_jax.data.sources.reading import entry
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.geometry.hand import FINGERS, HAND21
from genhmr_jax.io.errors import InputError

SPLITS = ("train", "val", "test")
SIDES = ("right", "left")

_JOINTS = 21  # of a hand; the last is the wrist
_NAME = re.compile(rf"({'|'.join(FINGERS)})(_null|\d)$")
_AGAIN = "download the annotations again"


def records(root: str | Path, split: str, report: Report | None = None) -> Iterator[HandRecord]:
    """The hands of a split with a valid joint, in the order of the annotations.

    All annotations of a split are read into memory, tens of gigabytes for train.

    Args:
      root: InterHand2.6M, the folder with images/ and annotations/.
      split: one of SPLITS.
      report: of bad samples; None stops at the first.

    Raises:
      InputError: an unknown split, a file of the release is missing, or a sample is bad and
        `report` does not skip.
    """
    report = report or SOURCE.report()
    SOURCE.check_split(split)
    root = Path(root)
    images = report.require(root / "images" / split)
    order = joint_order(report.require(root / "annotations" / "skeleton.txt"))
    folder = root / "annotations" / split
    name = lambda kind: folder / f"InterHand2.6M_{split}_{kind}.json"
    data, cameras, joints = (
        read_json(report.require(name(kind))) for kind in ("data", "camera", "joint_3d")
    )
    mano = name("MANO_NeuralAnnot")
    fits = read_json(mano) if mano.is_file() else {}
    where = name("data")
    listed = {entry(image, "id", where): image for image in entry(data, "images", where)}
    for annotation in entry(data, "annotations", where):
        found: list[HandRecord] = []
        with report.skipping():
            found = _hands(annotation, listed, images, cameras, joints, fits, order, where)
        yield from found


def joint_order(path: Path) -> list[int]:
    """The numbers 0..20 of the joints of one hand in skeleton.txt, in the order of HAND21.

    Raises:
      InputError: the file cannot be read, or does not have the joints of a hand.
    """
    fingers: dict[str, list[tuple[int, int]]] = {finger: [] for finger in FINGERS}
    others = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            parts = line.split()
            if not parts or parts[0].startswith("#"):
                continue
            name, number = parts[0], int(parts[1])
            if number >= _JOINTS:
                continue
            if match := _NAME.search(name):
                place = 10 if match[2] == "_null" else int(match[2])
                fingers[match[1]].append((place, number))
            else:
                others.append(number)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(path, f"cannot be read ({error})", _AGAIN) from error
    order = [_JOINTS - 1]
    for finger in FINGERS:  # thumb, index, middle, ring, pinky as in HAND21
        order += [number for _, number in sorted(fingers[finger])]
    if others != [_JOINTS - 1] or sorted(order) != list(range(len(HAND21))):
        raise InputError(path, "does not have the 21 joints of a hand", _AGAIN)
    if any(len(joints) != 4 for joints in fingers.values()):
        raise InputError(path, "does not have 4 joints of each finger", _AGAIN)
    return order


def _hands(
    annotation: Any,
    listed: dict[Any, Any],
    images: Path,
    cameras: Any,
    joints: Any,
    fits: Any,
    order: list[int],
    file: Path,
) -> list[HandRecord]:
    """The hands of one annotation. Raises InputError."""
    # 1. The image, and its camera.
    where = f"{file}: image {entry(annotation, 'image_id', file)}"
    image = listed.get(annotation["image_id"])
    if image is None:
        raise InputError(where, "is not listed", _AGAIN)
    path = images / inside(entry(image, "file_name", where), where)
    capture, camera, frame = (
        str(entry(image, key, where)) for key in ("capture", "camera", "frame_idx")
    )
    found = entry(cameras, capture, where)
    get = lambda key, n: flat_numbers(entry(entry(found, key, where), camera, where), n, key, where)
    place, turn = get("campos", 3), get("camrot", 9).reshape(3, 3)
    focal, centre = get("focal", 2), get("princpt", 2)
    intrinsics = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1.0]])

    # 2. The joints in the camera, metres.
    labels = entry(entry(joints, capture, where), frame, where)
    world = finite(entry(labels, "world_coord", where), (2 * _JOINTS, 3), "world_coord", where)
    valid = flat_numbers(entry(annotation, "joint_valid", where), 2 * _JOINTS, "joint_valid", where)
    points = (world - place) @ turn.T / 1000
    kind = entry(annotation, "hand_type", where)
    if kind not in (*SIDES, "interacting"):
        raise InputError(where, f"its hand_type is {kind!r}", _AGAIN)

    # 3. A record for each hand.
    result = []
    for side in SIDES if kind == "interacting" else (kind,):
        rows = np.array(order) + _JOINTS * SIDES.index(side)
        known = valid[rows] > 0
        if not known.any():
            continue
        own = np.where(known[:, None], points[rows], 0.0)
        pixels = np.zeros((_JOINTS, 2))
        pixels[known] = project(own[known], intrinsics, where)
        box = tight_box(pixels[known])
        if kind != "interacting":
            x, y, width, height = flat_numbers(entry(annotation, "bbox", where), 4, "bbox", where)
            box = np.array([x, y, x + width, y + height])
        record = HandRecord(
            name=f"{inside(image['file_name'], where)}:{side}",
            image=present(path, where),
            right=side == "right",
            box=box,
            keypoints=weighted(pixels, known),
            keypoints3d=own,
            wrist=own[0] if known[0] else None,
            intrinsics=intrinsics,
            **_mano(fits, (capture, frame, side), turn, where),
        )
        result.append(record)
    return result


def _mano(fits: Any, keys: tuple[str, str, str], turn: np.ndarray, where: object) -> dict[str, Any]:
    """Pose and betas of a hand; nothing if it has no fit. `turn` is the rotation of the camera."""
    for key in keys:
        if not isinstance(fits, dict) or fits.get(key) is None:
            return {}
        fits = fits[key]
    pose = flat_numbers(entry(fits, "pose", where), 48, "pose", where)
    wrist = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[:3])).as_rotvec()
    return {
        "pose": np.concatenate([wrist, pose[3:]]),
        "pose_form": "mean",
        "betas": flat_numbers(entry(fits, "shape", where), 10, "shape", where),
    }


SOURCE = Source(
    name="interhand",
    kind="hands",
    splits=SPLITS,
    folder="InterHand2.6M",
    layout=(
        "InterHand2.6M: download images and annotations from "
        "https://mks0601.github.io/InterHand2.6M, and unpack them as "
        "InterHand2.6M/images/{train,val,test}/CaptureN/ and "
        "InterHand2.6M/annotations/{skeleton.txt,train/,val/,test/} in the manual directory."
    ),
    licence="CC BY-NC 4.0",
    citation=(
        "Moon et al., InterHand2.6M: A Dataset and Baseline for 3D Interacting Hand Pose "
        "Estimation from a Single RGB Image, ECCV 2020"
    ),
    read=records,
)
