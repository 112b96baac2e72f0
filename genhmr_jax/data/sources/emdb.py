"""EMDB: people outdoors with electromagnetic sensors; EMDB 1 has hard poses, EMDB 2 long paths.

P*/SEQUENCE/P*_SEQUENCE_data.pkl: smpl (poses_root, poses_body, trans in the world, betas), camera
(intrinsics with the principal point close to (W/2, H/2), extrinsics world to camera), kp2d
(n, 24, 2) projected SMPL joints in px, bboxes, good_frames_mask. Frame i is
P*/SEQUENCE/images/%05d.jpg. Only good frames are read, as in the official evaluation. The release
has no 3D joints: the rest pose's pelvis, which the translation in the camera needs, is computed
from kp2d; if the frames do not determine it, has_translation is 0.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genhmr_jax.data.sources.photos import (
    camera_motion,
    flat_numbers,
    keypoints_of_joints,
    photo_size,
    read_photo,
    rest_pelvis,
    root_in_camera,
    tight_square,
    translation_in_camera,
)
from genhmr_jax.data.sources.reading import entry, numbers, read_pickle
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

BOX_FACTOR = 1.2  # of the box around the joints, for a good frame without a box


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    paths = find_files(root, "P*/*/*_data.pkl")
    if not paths:
        report.missing(root, "holds no P*/SEQUENCE/P*_SEQUENCE_data.pkl")
    for path in paths:
        labels = None
        with report.skipping():
            content = read_pickle(path)
            if flat_numbers(entry(content, split, path), 1, split, path)[0] > 0:
                labels = _sequence(content, path)
        if labels is None:
            continue
        for frame in np.flatnonzero(labels["good"]):
            record = None
            with report.skipping():
                record = _record(root, path, int(frame), labels, f"{path}: frame {frame}")
            if record is not None:
                yield record


def _sequence(content: dict, where: Path) -> dict:
    """The labels of all frames, in camera coordinates."""
    smpl, camera = entry(content, "smpl", where), entry(content, "camera", where)
    boxes = entry(content, "bboxes", where)
    mask = entry(content, "good_frames_mask", where)
    cameras = numbers(entry(camera, "extrinsics", where), (None, 4, 4), "extrinsics", where)
    root = numbers(entry(smpl, "poses_root", where), (None, 3), "poses_root", where)
    trans = numbers(entry(smpl, "trans", where), (None, 3), "trans", where)
    labels = {
        "name": str(entry(content, "name", where)),
        "gender": entry(content, "gender", where),
        "betas": flat_numbers(entry(smpl, "betas", where), None, "betas", where),
        "intrinsics": numbers(entry(camera, "intrinsics", where), (3, 3), "intrinsics", where),
        "body_pose": numbers(entry(smpl, "poses_body", where), (None, 69), "poses_body", where),
        "pixels": numbers(entry(content, "kp2d", where), (None, 24, 2), "kp2d", where),
        "boxes": numbers(entry(boxes, "bboxes", where), (None, 4), "bboxes", where),
        "good": numbers(mask, (None,), "good_frames_mask", where) > 0,
    }
    frames = {name: len(labels[name]) for name in ("body_pose", "pixels", "boxes", "good")}
    frames |= {"poses_root": len(root), "trans": len(trans), "extrinsics": len(cameras)}
    if len(set(frames.values())) != 1:
        raise InputError(where, f"its arrays have {frames} frames", "download the sequence again")
    good = labels["good"]
    if not good.any():
        raise InputError(where, "the sequence has no good frame", "download the sequence again")
    turn, shift = camera_motion(cameras, good, where)
    labels["root"] = root_in_camera(root, turn)
    pixels = labels["pixels"][good, 0]
    pelvis = rest_pelvis(pixels, trans[good], turn[good], shift[good], labels["intrinsics"])
    if pelvis is not None:
        labels["translation"] = translation_in_camera(trans, pelvis, turn, shift)
    return labels


def _record(root: Path, path: Path, frame: int, labels: dict, where: str) -> PersonRecord:
    name = (path.parent.relative_to(root) / "images" / f"{frame:05d}.jpg").as_posix()
    image = read_photo(root, name, where)
    pixels, box = labels["pixels"][frame], labels["boxes"][frame]
    if not (box[2] > box[0] and box[3] > box[1]):
        box = tight_square(pixels, BOX_FACTOR)
    return person_record(
        where,
        image=image,
        image_name=name,
        image_size=photo_size(image, where),
        sequence=labels["name"],
        frame=frame,
        box=box,
        keypoints2d=keypoints_of_joints(np.concatenate([pixels, np.ones((24, 1))], -1)),
        global_orient=labels["root"][frame],
        body_pose=labels["body_pose"][frame],
        betas=labels["betas"],
        gender=labels["gender"],
        intrinsics=labels["intrinsics"],
        **({"translation": labels["translation"][frame]} if "translation" in labels else {}),
    )


SOURCES = (
    Source(
        name="emdb",
        kind="people",
        splits=("emdb1", "emdb2"),
        folder="EMDB",
        layout=(
            "EMDB: ask for access at https://emdb.ait.ethz.ch, download P0.zip to P9.zip, and "
            "unpack them as EMDB/P0/SEQUENCE/P0_SEQUENCE_data.pkl and "
            "EMDB/P0/SEQUENCE/images/00000.jpg, up to P9, in the manual directory."
        ),
        licence="non-commercial research",
        citation=(
            "Kaufmann et al., EMDB: The Electromagnetic Database of Global 3D Human Pose and "
            "Shape in the Wild, ICCV 2023"
        ),
        read=_read,
    ),
)
