"""3DPW: people outdoors, filmed with a moving phone; SMPL from inertial sensors.

sequenceFiles/SPLIT/SEQUENCE.pkl is a Python 2 pickle with lists over actors: poses (N, 72) and trans (N, 3) in the world, betas (>= 10,),
poses2d (N, 3, 18) OpenPose detections in px, jointPositions (N, 72) in the world, genders; cam_poses (N, 4, 4) world to camera,
cam_intrinsics (3, 3) with the principal point near (W/2, H/2), campose_valid (N,). Frame i is imageFiles/SEQUENCE/image_%05d.jpg.
Frames whose camera pose is not valid are left out, as by all evaluations.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from smpl_jax.keypoints import OPENPOSE25

from genhmr_jax.data.sources.photos import (
    camera_motion,
    flat_numbers,
    keypoints_by_name,
    known_only,
    photo_size,
    read_photo,
    root_in_camera,
    tight_square,
    translation_in_camera,
)
from genhmr_jax.data.sources.reading import entry, numbers, read_pickle
from genhmr_jax.data.sources.records import person_record
from genhmr_jax.data.sources.source import Record, Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

BOX_FACTOR = 1.2  # of the tight box around the 2D keypoints, as in SPIN
OPENPOSE18 = tuple(f"openpose_{name}" for name in OPENPOSE25[:8] + OPENPOSE25[9:19])
"""OpenPose's COCO model: BODY_25 up to the ears without the middle of the hips."""

_PELVIS_SPREAD = 0.01  # m


def _read(root: Path, split: str, report: Report) -> Iterator[Record]:
    folder = report.require(root / "sequenceFiles" / split)
    report.require(root / "imageFiles")
    paths = find_files(folder, "*.pkl")
    if not paths:
        report.missing(folder, "holds no .pkl")
    for path in paths:
        actors, sequence = [], ""
        with report.skipping():
            content = read_pickle(path)
            sequence = _name(content, path)
            actors = [_actor(content, number, f"{path}, actor {number}") for number in range(_count(content, path))]
        for number, actor in enumerate(actors):
            for frame in np.flatnonzero(actor["valid"]):
                record = None
                with report.skipping():
                    record = _record(root, sequence, number, int(frame), actor, f"{path}: actor {number}, frame {frame}")
                if record is not None:
                    yield record


def _name(content: object, where: Path) -> str:
    """The name of the sequence, which is the folder of its images.

    Raises:
      InputError: it is no text.
    """
    name = entry(content, "sequence", where)
    if not isinstance(name, str):
        raise InputError(where, f"its sequence is a {type(name).__name__} instead of a name", "download the sequence files again")
    return str(name)


def _count(content: dict, where: object) -> int:
    """How many actors the sequence has.

    Raises:
      InputError: none, or lists of different lengths.
    """
    names = ("poses", "trans", "betas", "poses2d", "campose_valid", "genders")
    lists = {name: entry(content, name, where) for name in names + ("jointPositions",) * ("jointPositions" in content)}
    if wrong := [name for name, value in lists.items() if not isinstance(value, list | tuple | np.ndarray)]:
        raise InputError(where, f"{', '.join(wrong)} is no list over actors", "download the sequence files again")
    lengths = {name: len(value) for name, value in lists.items()}
    if len(set(lengths.values())) != 1 or not lengths["poses"]:
        raise InputError(where, f"its lists over actors have {lengths} entries", "download the sequence files again")
    return lengths["poses"]


def _actor(content: dict, number: int, where: str) -> dict:
    """One actor's labels of all frames, in camera coordinates."""
    get = lambda name, shape: numbers(entry(content, name, where)[number], shape, name, where)  # noqa: E731
    poses = get("poses", (None, 72))
    count = len(poses)
    if not count:
        raise InputError(where, "the sequence is empty", "download the sequence files again")
    cameras = numbers(entry(content, "cam_poses", where), (None, 4, 4), "cam_poses", where)
    trans, points, valid = get("trans", (None, 3)), get("poses2d", (None, 3, 18)), get("campose_valid", (None,)) > 0
    joints = get("jointPositions", (None, 72)).reshape(-1, 24, 3) if "jointPositions" in content else None
    lengths = {"poses": count, "cam_poses": len(cameras), "trans": len(trans), "poses2d": len(points), "campose_valid": len(valid)}
    lengths |= {} if joints is None else {"jointPositions": len(joints)}
    if len(set(lengths.values())) != 1:
        raise InputError(where, f"its arrays have {lengths} frames", "download the sequence files again")
    turn, shift = camera_motion(cameras, valid, where)
    actor = {
        "valid": valid,
        "root": root_in_camera(poses[:, :3], turn),
        "body_pose": poses[:, 3:],
        "betas": flat_numbers(entry(content, "betas", where)[number], None, "betas", where),
        "gender": entry(content, "genders", where)[number],
        "points": points.transpose(0, 2, 1),
        "intrinsics": numbers(entry(content, "cam_intrinsics", where), (3, 3), "cam_intrinsics", where),
    }
    if joints is not None:
        actor["joints"] = np.einsum("nij,nkj->nki", turn, joints) + shift[:, None]
        # The release has the joints, so it says where the pelvis of the rest pose is: posed, it lies at trans + pelvis.
        pelvis = joints[:, 0] - trans
        if np.ptp(pelvis, axis=0).max() < _PELVIS_SPREAD:
            actor["translation"] = translation_in_camera(trans, pelvis.mean(0), turn, shift)
    return actor


def _record(root: Path, sequence: str, number: int, frame: int, actor: dict, where: str) -> Record:
    name = f"imageFiles/{sequence}/image_{frame:05d}.jpg"
    image = read_photo(root, name, where)
    points = known_only(actor["points"][frame])
    labels = {"translation": actor["translation"][frame]} if "translation" in actor else {}
    seen = points[points[:, 2] > 0, :2]
    if "joints" in actor:
        joints = actor["joints"][frame]
        labels["joints24_3d"] = np.concatenate([joints, np.ones((24, 1))], -1)
        if len(seen) < 2:  # nothing detected: the box is around the projected joints
            projected = joints @ actor["intrinsics"].T
            seen = projected[:, :2] / projected[:, 2:]
    if len(seen) < 2:
        raise InputError(where, "has no 2D keypoints, so no box", "leave it out with --skip-bad")
    return person_record(
        where,
        image=image,
        image_name=name,
        image_size=photo_size(image, where),
        sequence=sequence,
        frame=frame,
        person=number,
        box=tight_square(seen, BOX_FACTOR),
        keypoints2d=keypoints_by_name(points, OPENPOSE18),
        global_orient=actor["root"][frame],
        body_pose=actor["body_pose"][frame],
        betas=actor["betas"],
        gender=actor["gender"],
        intrinsics=actor["intrinsics"],
        **labels,
    )


SOURCES = (
    Source(
        name="threedpw",
        kind="people",
        splits=("train", "validation", "test"),
        folder="3DPW",
        layout="3DPW: accept the licence at https://virtualhumans.mpi-inf.mpg.de/3DPW/license.html, download sequenceFiles.zip and "
        "imageFiles.zip, and unpack both as 3DPW/sequenceFiles/{train,validation,test}/SEQUENCE.pkl and "
        "3DPW/imageFiles/SEQUENCE/image_00000.jpg in the manual directory.",
        licence="non-commercial research",
        citation="von Marcard et al., Recovering Accurate 3D Human Pose in the Wild Using IMUs and a Moving Camera, ECCV 2018",
        read=_read,
    ),
)
