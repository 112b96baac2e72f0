"""HO-3D (versions 2 and 3): a right hand with an object, 640 x 480 px.

Hampali et al., CVPR 2020. The layout is that of github.com/shreyashampali/ho3d (2fd6ee1):

* `pred.py`, `main`: train.txt and evaluation.txt list samples as SEQUENCE/NUMBER.
  `utils/vis_utils.py`, `read_annotation` and `read_RGB_img`: SPLIT/SEQUENCE/meta/NUMBER.pkl, and
  SPLIT/SEQUENCE/rgb/NUMBER.png (version 2) or .jpg (version 3).
* `vis_HO3D.py`, main: a meta file has handJoints3D, handPose (48), handTrans (3), handBeta (10) and
  camMat (3, 3). In the evaluation split handJoints3D is the wrist alone, and handBoundingBox is
  x1, y1, x2, y2 px (`show2DBoundingBox`). `jointsMapManoToSimple`: the 21 joints are in MANO's
  order, followed by the tips of thumb, index, middle, ring and pinky. `forwardKinematics` uses
  flat_hand_mean=True and `fullpose`: the pose is relative to the flat hand.
* `project_3D_points(is_OpenGL_coords=True)`: y and z are negated before the projection; all labels
  are in OpenGL's axes, metres. Here they are turned into ours.
* `eval.py`, `main`, and README (3 November 2024): evaluation_xyz.json and evaluation_verts.json,
  in the order of evaluation.txt. That they have the axes and the order of a submission follows from
  `main`, which compares both without a conversion.

The translation in our axes needs MANO's wrist at rest. It is the label's wrist less the label's
translation, since MANO turns about the wrist. The box of a training sample is the smallest one
around its keypoints, because the release has none.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from genhmr_jax.data.hands.releases.reading import (
    finite,
    inside,
    next_or_none,
    present,
    together,
)
from genhmr_jax.data.hands.releases.record import (
    OPENGL,
    HandRecord,
    project,
    tight_box,
    weighted,
)
from genhmr_jax.data.sources.photos import flat_numbers
from genhmr_jax.data.sources.reading import entry, read_pickle
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.geometry.hand import HAND21_FROM_MANO
from genhmr_jax.io.errors import InputError

SPLITS = ("train", "evaluation")


def records(root: str | Path, split: str, report: Report | None = None) -> Iterator[HandRecord]:
    """The samples of a split, in the order of its list.

    Args:
      root: HO3D_v3 (or v2), the folder with train/, evaluation/, train.txt and evaluation.txt.
      split: "train"; or "evaluation", which has only the wrist, the box and the camera if
        evaluation_xyz.json and evaluation_verts.json are not beside evaluation.txt.
      report: of bad samples; None stops at the first.

    Raises:
      InputError: an unknown split, a file of the release is missing, or a sample is bad and
        `report` does not skip.
    """
    report = report or SOURCE.report()
    SOURCE.check_split(split)
    root = Path(root)
    report.require(root / split)
    kinds = ("xyz", "verts") if split == "evaluation" else ()
    paths = [path for kind in kinds if (path := root / f"{split}_{kind}.json").is_file()]
    truths = together(paths) if paths else iter(())
    for line in _lines(report.require(root / f"{split}.txt")):
        labels: tuple[Any, ...] | None = ()
        if paths:
            labels = next_or_none(truths, report)
            if labels is None:
                problem = f"has no labels for {line} and the samples after it"
                report.bad(paths[0], problem, "download it again")
                paths, labels = [], ()
        truth = {path.stem.split("_")[-1]: value for path, value in zip(paths, labels, strict=True)}
        record = None
        with report.skipping():
            record = _record(root, split, line, truth)
        if record is not None:
            yield record


def _lines(path: Path) -> list[str]:
    """The lines of a list of samples that are not empty."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "download it again") from error
    return [line.strip() for line in lines if line.strip()]


def _record(root: Path, split: str, line: str, truth: dict[str, Any]) -> HandRecord:
    """One sample. Raises InputError."""
    listed = f"{root / split}.txt"
    parts = inside(line, listed).split("/")
    if len(parts) != 2:
        raise InputError(listed, f"the line {line!r} is not SEQUENCE/NUMBER", "download it again")
    folder, number = root / split / parts[0], parts[1]
    where = folder / "meta" / f"{number}.pkl"
    images = [folder / "rgb" / f"{number}{suffix}" for suffix in (".png", ".jpg")]
    image = present(images[0] if images[0].is_file() else images[1], where)
    meta = read_pickle(where)
    camera = finite(entry(meta, "camMat", where), (3, 3), "camMat", where)
    fields: dict[str, Any] = {"intrinsics": camera}
    joints = entry(meta, "handJoints3D", where)
    if joints is None:
        raise InputError(where, "has no hand labels", "leave it out")
    if split == "train":
        raw = finite(joints, (21, 3), "handJoints3D", where)
        fields |= _keypoints(raw, camera, where) | _mano(meta, raw[0], where)
        fields["box"] = tight_box(fields["keypoints"][:, :2])
    else:
        wrist = flat_numbers(joints, None, "handJoints3D", where)
        fields["wrist"] = finite(wrist[:3], (3,), "handJoints3D", where) @ OPENGL
        box = entry(meta, "handBoundingBox", where)
        fields["box"] = flat_numbers(box, 4, "handBoundingBox", where)
        if "xyz" in truth:
            raw = finite(truth["xyz"], (21, 3), "evaluation_xyz", where)
            fields |= _keypoints(raw, camera, where)
        if "verts" in truth:
            vertices = finite(truth["verts"], (778, 3), "evaluation_verts", where)
            fields["vertices"] = vertices @ OPENGL
    return HandRecord(name=f"{split}/{line}", image=image, right=True, **fields)


def _keypoints(raw: np.ndarray, camera: np.ndarray, where: object) -> dict[str, Any]:
    """Keypoints of 21 points in MANO's order and OpenGL's axes."""
    points = raw[list(HAND21_FROM_MANO)] @ OPENGL
    pixels = project(points, camera, where)
    return {"keypoints3d": points, "wrist": points[0], "keypoints": weighted(pixels)}


def _mano(meta: Any, wrist: np.ndarray, where: object) -> dict[str, Any]:
    """Pose, betas and translation; `wrist` is the label's, in OpenGL's axes."""
    pose = flat_numbers(entry(meta, "handPose", where), 48, "handPose", where)
    trans = flat_numbers(entry(meta, "handTrans", where), 3, "handTrans", where)
    # A copy, since arrays of a pickle are read-only, which from_rotvec refuses.
    turned = Rotation.from_matrix(OPENGL) * Rotation.from_rotvec(np.array(pose[:3]))
    at_rest = wrist - trans
    return {
        "pose": np.concatenate([turned.as_rotvec(), pose[3:]]),
        "pose_form": "flat",
        "betas": flat_numbers(entry(meta, "handBeta", where), 10, "handBeta", where),
        "trans": wrist @ OPENGL - at_rest,
    }


SOURCE = Source(
    name="ho3d",
    kind="hands",
    splits=SPLITS,
    folder="HO3D_v3",
    layout=(
        "HO-3D version 3: download the images, and the evaluation labels, by the links in "
        "https://github.com/shreyashampali/ho3d, and unpack them as "
        "HO3D_v3/{train,evaluation}/SEQUENCE/{rgb,meta}/, HO3D_v3/{train,evaluation}.txt and "
        "HO3D_v3/evaluation_{xyz,verts}.json in the manual directory. Depth is not needed."
    ),
    licence="academic research only, not commercial",
    citation=(
        "Hampali et al., HOnnotate: A method for 3D Annotation of Hand and Object Poses, CVPR 2020"
    ),
    read=records,
)
