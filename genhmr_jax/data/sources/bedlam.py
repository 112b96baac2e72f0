"""BEDLAM as TokenHMR's WebDataset tars: rendered people with exact labels, a folder per scene.

Labels are in camera coordinates: vertices = SMPL(pose_cam, shape) + trans_cam + cam_ext[:3, 3].
`scale`, one number, is the side of the crop over 200 px: TokenHMR does not widen it to 3 : 4
(tokenhmr/lib/datasets/bedlam_dataset_tar.py, L162), so the box of a record is the middle 3/4 of
that square. `gtkps` are projections of SMPL's joints, pixels of an image whose middle is
(W/2, H/2). TokenHMR poses SMPL's neutral body, whatever the `gender`, and regresses 44 keypoints of
it; records have the keypoints of `gtkps`. Images of closeup scenes are stored rotated by 90
degrees, but their labels are not: the images are turned clockwise here. AGORA folders are left out,
as by TokenHMR.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genhmr_jax.data.sources.hmr2_tars import sample_image, sample_people, shard_samples
from genhmr_jax.data.sources.photos import (
    box_of_scale,
    flat_numbers,
    keypoints_of_joints,
    keypoints_of_smpl45,
    photo_size,
    turned_clockwise,
)
from genhmr_jax.data.sources.reading import entry, numbers
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

_UNIT = "the side of a square over 200 px"


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    shards = [path for path in find_files(root, "*/*.tar") if "agora" not in path.parent.name]
    if not shards:
        report.missing(root, "holds no SCENE/*.tar")
    for shard in shards:
        for key, sample in shard_samples(shard, report):
            where = f"{shard}: {key}"
            people, image, size = [], b"", (0, 0)
            with report.skipping():
                people, image = sample_people(sample, where), sample_image(sample, where)
                wide = photo_size(image, where)
                if "closeup" in f"{shard.parent.name}/{key}" and wide[0] > wide[1]:
                    image = turned_clockwise(image, where)
                size = photo_size(image, where)
            if not size[0]:
                continue
            for number, person in enumerate(people):
                record = None
                name, scene = f"{where}, person {number}", shard.parent.name
                with report.skipping():
                    record = _record(person, number, scene, key, image, size, name)
                if record is not None:
                    yield record


def _record(
    person: dict, number: int, scene: str, key: str, image: bytes, size: tuple[int, int], where: str
) -> PersonRecord:
    get = lambda name: entry(person, name, where)
    pose = flat_numbers(get("pose_cam"), None, "pose_cam", where)[:72]  # SMPL's joints come first
    extrinsics = numbers(get("cam_ext"), (4, 4), "cam_ext", where)
    intrinsics = {}
    if "cam_int" in person:
        intrinsics["intrinsics"] = numbers(person["cam_int"], (3, 3), "cam_int", where)
    return person_record(
        where,
        image=image,
        image_name=key,
        image_size=size,
        sequence=scene,
        person=number,
        box=box_of_scale(get("center"), get("scale"), 200.0, size, _UNIT, where, crops=True),
        keypoints2d=_keypoints(numbers(get("gtkps"), (None, None), "gtkps", where), where),
        global_orient=pose[:3],
        body_pose=pose[3:],
        betas=flat_numbers(get("shape"), None, "shape", where),
        gender="neutral",
        translation=numbers(get("trans_cam"), (3,), "trans_cam", where) + extrinsics[:3, 3],
        **intrinsics,
    )


def _keypoints(points: np.ndarray, where: str) -> np.ndarray:
    """(44, 3) of the projected joints, all known: SMPL's 45, else the first 22.

    SMPL-X shares the first 22 with SMPL; its others have another order.
    """
    if len(points) < 22 or points.shape[1] < 2 or not np.isfinite(points).all():
        problem = f"gtkps has shape {points.shape} or is not finite"
        raise InputError(where, problem, "it must have SMPL's 45 points")
    points = np.concatenate([points[:, :2], np.ones((len(points), 1))], -1)
    if len(points) == 45:
        return keypoints_of_smpl45(points)
    joints = np.zeros((24, 3))
    joints[:22] = points[:22]
    return keypoints_of_joints(joints)


SOURCES = (
    Source(
        name="bedlam",
        kind="people",
        splits=("train",),
        folder="hmr2_training_data/dataset_tars/bedlam",
        layout=(
            "BEDLAM as TokenHMR's tars: register at https://tokenhmr.is.tue.mpg.de and "
            "https://bedlam.is.tue.mpg.de, download bedlam.tar.gz "
            "(https://download.is.tue.mpg.de/download.php?domain=tokenhmr&sfile=bedlam.tar.gz) "
            "and unpack it as hmr2_training_data/dataset_tars/bedlam/SCENE/*.tar in the manual "
            "directory."
        ),
        licence="non-commercial research (https://bedlam.is.tue.mpg.de/license.html)",
        citation=(
            "Black et al., BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike "
            "Animated Motion, CVPR 2023"
        ),
        read=_read,
    ),
)
