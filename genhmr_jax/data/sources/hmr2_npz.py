"""The evaluation files of 4D-Humans and TokenHMR: one npz of labels per dataset, images beside it.

`scale` is in PIXELS (their loader divides it by 200), except in TokenHMR's npz of EMDB, where it is
in units of 200 px. As in their loader, the 3D confidences of OpenPose's neck to left ankle (1..14)
are dropped, since the labels of the 19 extra joints are better. Poses are in camera coordinates; 3D
keypoints are metres in camera orientation. TokenHMR's EMDB has projected joints (keypoints_2d)
instead of body and extra keypoints. Pixels are as annotated.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from smpl_jax.keypoints import BODY44

from genhmr_jax.data.sources.photos import (
    box_of_scale,
    flat_numbers,
    keypoints_by_name,
    keypoints_of_joints,
    keypoints_of_smpl45,
    known_only,
    photo_size,
    read_photo,
)
from genhmr_jax.data.sources.reading import numbers, read_npz
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class EvaluationFile:
    """The files of a split.

    Attributes:
      files: names of the npz; the first that exists is read.
      images: folder of its images.
      pixels: px of a scale of 1.
    """

    files: tuple[str, ...]
    images: str
    pixels: float = 1.0

    @property
    def unit(self) -> str:
        """The unit of a scale in words."""
        return "in pixels" if self.pixels == 1.0 else f"in units of {self.pixels:.0f} px"


FILES = {
    "threedpw_test": EvaluationFile(("3dpw_test.npz",), "3DPW"),
    "h36m_val_p2": EvaluationFile(("h36m_val_p2.npz",), "h36m/images"),
    "coco_val": EvaluationFile(("coco_val.npz",), "coco"),
    "posetrack_val": EvaluationFile(("posetrack_2018_val.npz",), "posetrack_data"),
    "lsp_extended": EvaluationFile(("hr-lspet_train.npz",), "hr-lspet"),
    "emdb": EvaluationFile(("emdb.npz", "EMDB/emdb_for_hmr2.npz"), "EMDB", pixels=200.0),
}

_LABELS = (
    "body_pose", "has_body_pose", "betas", "has_betas", "gender", "body_keypoints_2d",
    "extra_keypoints_2d", "body_keypoints_3d", "extra_keypoints_3d", "keypoints_2d",
)  # fmt: skip

_LAYOUTS = {
    24: keypoints_of_joints,
    25: lambda points: keypoints_by_name(points, BODY44[:25]),
    44: lambda points: points,
    45: keypoints_of_smpl45,
}
"""Keypoints by their number: SMPL's joints, OpenPose's, BODY44, SMPL's joints and vertices."""


def imgname_text(name: object) -> str:
    """The name of an image, from text or from bytes (files of Python 2)."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def check_lengths(arrays: dict[str, np.ndarray], where: object) -> int:
    """The number of rows of all arrays.

    Raises:
      InputError: there are no rows, or the arrays differ in length.
    """
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    count = lengths["imgname"]
    if wrong := [f"{name} {length}" for name, length in lengths.items() if length != count]:
        problem = f"its arrays differ in length: imgname {count}, but {', '.join(wrong)}"
        raise InputError(where, problem, "download it again")
    if not count:
        raise InputError(where, "is empty", "download it again")
    return count


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    spec = FILES[split]
    path = next((root / name for name in spec.files if (root / name).is_file()), None)
    if path is None:
        report.missing(root / spec.files[0], f"no such file, for split {split}")
    report.require(root / spec.images)
    arrays = read_npz(path, ("imgname", "center", "scale"), _LABELS)
    for row in range(check_lengths(arrays, path)):
        name, record = imgname_text(arrays["imgname"][row]), None
        where = f"{path}: record {row} ({name})"
        with report.skipping():
            labels = {key: array[row] for key, array in arrays.items()}
            record = _record(labels, row, name, root / spec.images, split, spec, where)
        if record is not None:
            yield record


def _record(
    row: dict, number: int, name: str, images: Path, split: str, spec: EvaluationFile, where: str
) -> PersonRecord:
    image = read_photo(images, name, where)
    size = photo_size(image, where)
    labels = {}
    if "body_pose" in row and _flag(row, "has_body_pose", where):
        pose = numbers(row["body_pose"], (72,), "body_pose", where)
        labels |= {"global_orient": pose[:3], "body_pose": pose[3:]}
    if "betas" in row and _flag(row, "has_betas", where):
        labels["betas"] = flat_numbers(row["betas"], None, "betas", where)
    if "gender" in row:
        labels["gender"] = row["gender"]
    return person_record(
        where,
        image=image,
        image_name=name,
        image_size=size,
        sequence=split,
        frame=number,
        box=box_of_scale(row["center"], row["scale"], spec.pixels, size, spec.unit, where),
        keypoints2d=_keypoints2d(row, where),
        keypoints3d=_keypoints3d(row, where),
        **labels,
    )


def _flag(row: dict, name: str, where: str) -> bool:
    return name in row and bool(flat_numbers(row[name], 1, name, where)[0] > 0)


def _keypoints2d(row: dict, where: str) -> np.ndarray:
    """(44, 3) of the projected joints, or of body and extra keypoints."""
    if "keypoints_2d" not in row:
        return _both(row, "2d", 3, where)
    points = numbers(row["keypoints_2d"], (None, None), "keypoints_2d", where)
    if points.shape[1] == 2:  # projections: all are known
        points = np.concatenate([points, np.ones((len(points), 1))], -1)
    if points.shape[1] != 3 or len(points) not in _LAYOUTS:
        remedy = f"it must have {', '.join(map(str, _LAYOUTS))} points"
        raise InputError(where, f"keypoints_2d has shape {points.shape}", remedy)
    return _LAYOUTS[len(points)](known_only(points))


def _keypoints3d(row: dict, where: str) -> np.ndarray:
    """(44, 4) of body and extra keypoints, without OpenPose's neck to left ankle."""
    points = _both(row, "3d", 4, where)
    points[1:15] = 0
    return points


def _both(row: dict, kind: str, columns: int, where: str) -> np.ndarray:
    """(44, columns): OpenPose's 25, then the 19 extra ones; zero where the file lacks them."""
    parts = []
    for name, count in ((f"body_keypoints_{kind}", 25), (f"extra_keypoints_{kind}", 19)):
        shape = (count, columns)
        parts.append(numbers(row[name], shape, name, where) if name in row else np.zeros(shape))
    return known_only(np.concatenate(parts))


SOURCES = (
    Source(
        name="hmr2_eval",
        kind="people",
        splits=tuple(FILES),
        folder="hmr2_evaluation_data",
        layout=(
            "The evaluation labels of 4D-Humans (https://github.com/shubham-goel/4D-Humans, "
            "hmr2_evaluation_data.tar.gz: 3dpw_test.npz, h36m_val_p2.npz, coco_val.npz, "
            "posetrack_2018_val.npz, hr-lspet_train.npz) or of TokenHMR "
            "(https://tokenhmr.is.tue.mpg.de, test.tar.gz: 3dpw_test.npz, emdb.npz), unpacked as "
            "hmr2_evaluation_data in the manual directory, with the images of each dataset from "
            "its own site inside: 3DPW/imageFiles, h36m/images, coco/val2014, posetrack_data, "
            "hr-lspet, EMDB/P0 to EMDB/P9."
        ),
        licence="non-commercial research; the images are under the terms of their datasets",
        citation="Goel et al., Humans in 4D, ICCV 2023; Dwivedi et al., TokenHMR, CVPR 2024",
        read=_read,
    ),
)
