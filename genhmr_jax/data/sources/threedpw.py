"""3DPW: people outdoors, filmed with a moving phone; SMPL from inertial sensors.

sequenceFiles/SPLIT/SEQUENCE.pkl is a Python 2 pickle with lists over actors: poses (N, 72) and
trans (N, 3) in the world, betas (>= 10,), poses2d (N, 3, 18) OpenPose detections in px,
jointPositions (N, 72) in the world, genders; cam_poses (N, 4, 4) world to camera, cam_intrinsics
(3, 3) with the principal point close to (W/2, H/2), campose_valid (N,). Frame i is
imageFiles/SEQUENCE/image_%05d.jpg. Frames whose camera pose is not valid are left out, as in all
evaluations.
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
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

BOX_FACTOR = 1.2  # of the tight box around the 2D keypoints, as in SPIN
OPENPOSE18 = tuple(f"openpose_{name}" for name in OPENPOSE25[:8] + OPENPOSE25[9:19])
"""OpenPose's COCO model: BODY_25 up to the ears without the middle of the hips."""

_PELVIS_SPREAD = 0.01  # m, the largest over the frames of a sequence
_AGAIN = "download the sequence files again"


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
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
            numbered = range(_count(content, path))
            actors = [_actor(content, number, f"{path}, actor {number}") for number in numbered]
        for number, actor in enumerate(actors):
            for frame in np.flatnonzero(actor["valid"]):
                record = None
                where = f"{path}: actor {number}, frame {frame}"
                with report.skipping():
                    record = _record(root, sequence, number, int(frame), actor, where)
                if record is not None:
                    yield record


def _name(content: object, where: Path) -> str:
    """The name of the sequence, which is the folder of its images.

    Raises:
      InputError: it is not text.
    """
    name = entry(content, "sequence", where)
    if not isinstance(name, str):
        problem = f"its sequence is a {type(name).__name__} instead of a name"
        raise InputError(where, problem, _AGAIN)
    return str(name)


def _count(content: dict, where: object) -> int:
    """The number of actors of the sequence.

    Raises:
      InputError: there are no actors, or the lists differ in length.
    """
    names = ["poses", "trans", "betas", "poses2d", "campose_valid", "genders"]
    if "jointPositions" in content:
        names.append("jointPositions")
    lists = {name: entry(content, name, where) for name in names}
    is_list = lambda value: isinstance(value, list | tuple | np.ndarray)
    if wrong := [name for name, value in lists.items() if not is_list(value)]:
        raise InputError(where, f"{', '.join(wrong)} is not a list over actors", _AGAIN)
    lengths = {name: len(value) for name, value in lists.items()}
    if len(set(lengths.values())) != 1 or not lengths["poses"]:
        raise InputError(where, f"its lists over actors have {lengths} entries", _AGAIN)
    return lengths["poses"]


def _actor(content: dict, number: int, where: str) -> dict:
    """One actor's labels of all frames, in camera coordinates."""
    # 1. Read, and check that all arrays have the same frames.
    get = lambda name, shape: numbers(entry(content, name, where)[number], shape, name, where)
    poses = get("poses", (None, 72))
    if not len(poses):
        raise InputError(where, "the sequence is empty", _AGAIN)
    cameras = numbers(entry(content, "cam_poses", where), (None, 4, 4), "cam_poses", where)
    trans = get("trans", (None, 3))
    points = get("poses2d", (None, 3, 18))
    valid = get("campose_valid", (None,)) > 0
    lengths = {
        "poses": len(poses),
        "cam_poses": len(cameras),
        "trans": len(trans),
        "poses2d": len(points),
        "campose_valid": len(valid),
    }
    joints = None
    if "jointPositions" in content:
        joints = get("jointPositions", (None, 72)).reshape(-1, 24, 3)
        lengths["jointPositions"] = len(joints)
    if len(set(lengths.values())) != 1:
        raise InputError(where, f"its arrays have {lengths} frames", _AGAIN)

    # 2. From the world to the camera.
    intrinsics = entry(content, "cam_intrinsics", where)
    turn, shift = camera_motion(cameras, valid, where)
    actor = {
        "valid": valid,
        "root": root_in_camera(poses[:, :3], turn),
        "body_pose": poses[:, 3:],
        "betas": flat_numbers(entry(content, "betas", where)[number], None, "betas", where),
        "gender": entry(content, "genders", where)[number],
        "points": points.transpose(0, 2, 1),
        "intrinsics": numbers(intrinsics, (3, 3), "cam_intrinsics", where),
    }
    if joints is not None:
        actor["joints"] = np.einsum("nij,nkj->nki", turn, joints) + shift[:, None]
        # The posed pelvis is at trans + the rest pose's pelvis, so joints and trans determine it.
        pelvis = joints[:, 0] - trans
        if np.ptp(pelvis, axis=0).max() < _PELVIS_SPREAD:
            actor["translation"] = translation_in_camera(trans, pelvis.mean(0), turn, shift)
    return actor


def _record(
    root: Path, sequence: str, number: int, frame: int, actor: dict, where: str
) -> PersonRecord:
    name = f"imageFiles/{sequence}/image_{frame:05d}.jpg"
    image = read_photo(root, name, where)
    points = known_only(actor["points"][frame])
    labels = {"translation": actor["translation"][frame]} if "translation" in actor else {}
    in_box = points[points[:, 2] > 0, :2]
    if "joints" in actor:
        joints = actor["joints"][frame]
        labels["joints24_3d"] = np.concatenate([joints, np.ones((24, 1))], -1)
        if len(in_box) < 2:  # nothing detected: the box is around the projected joints
            projected = joints @ actor["intrinsics"].T
            in_box = projected[:, :2] / projected[:, 2:]
    if len(in_box) < 2:
        raise InputError(where, "has no 2D keypoints, so no box", "leave it out with --skip-bad")
    return person_record(
        where,
        image=image,
        image_name=name,
        image_size=photo_size(image, where),
        sequence=sequence,
        frame=frame,
        person=number,
        box=tight_square(in_box, BOX_FACTOR),
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
        layout=(
            "3DPW: accept the licence at https://virtualhumans.mpi-inf.mpg.de/3DPW/license.html, "
            "download sequenceFiles.zip and imageFiles.zip, and unpack both as "
            "3DPW/sequenceFiles/{train,validation,test}/SEQUENCE.pkl and "
            "3DPW/imageFiles/SEQUENCE/image_00000.jpg in the manual directory."
        ),
        licence="non-commercial research",
        citation=(
            "von Marcard et al., Recovering Accurate 3D Human Pose in the Wild Using IMUs and a "
            "Moving Camera, ECCV 2018"
        ),
        read=_read,
    ),
)
