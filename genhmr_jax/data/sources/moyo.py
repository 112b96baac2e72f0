"""MOYO (Tripathi et al., CVPR 2023): yoga, as the SMPL fits of the release, one pickle a clip.

A clip is a dictionary of `global_orient` (N, 3), `body_pose` (N, 69; 63 in some copies) axis-angle
radians, `transl` (N, 3) metres and `betas` (N, 10). The world is assumed to be z-up, as in AMASS,
which the same software (MoSh++) made. Frames are kept by TokenHMR's rule: 10 % is cut at each end,
and every 5th frame is kept.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genhmr_jax.data.sources.motion import (
    check_not_empty,
    clip_records,
    kept_frames,
    smpl_pose,
    z_up_to_y_up,
)
from genhmr_jax.data.sources.reading import entry, numbers, read_pickle
from genhmr_jax.data.sources.records import PoseRecord
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files, find_folders

TRIM, EVERY, WEIGHT = 0.1, 5, 0.16

LAYOUT = """MOYO: register at https://moyo.is.tue.mpg.de, download the SMPL fits (mosh_smpl) of the
split, and unpack them, so that there is MANUAL_DIR/moyo/mosh_smpl/train/CLIP.pkl and
MANUAL_DIR/moyo/mosh_smpl/val/CLIP.pkl"""


def read(root: Path, split: str, report: Report) -> Iterator[PoseRecord]:
    """The kept frames of all clips of a split; `sequence` is MOYO/CLIP."""
    if not (root / "mosh_smpl").is_dir():
        others = [path.name for path in find_folders(root) if path.name.startswith("mosh")]
        other = f" ({others[0]} has the SMPL-X fits)" if others else ""
        report.missing(root / "mosh_smpl", f"no such folder{other}")
    for file in find_files(report.require(root / "mosh_smpl" / split), "*.pkl"):
        with report.skipping():
            yield from _clip(file, report)


def _clip(file: Path, report: Report) -> Iterator[PoseRecord]:
    clip = read_pickle(file)
    if isinstance(clip, dict) and "fullpose" in clip and "body_pose" not in clip:
        remedy = "download the SMPL fits (mosh_smpl) instead"
        raise InputError(file, "is of the SMPL-X fits (it has fullpose)", remedy)
    root = numbers(entry(clip, "global_orient", file), (None, 3), "global_orient", file)
    body = numbers(entry(clip, "body_pose", file), (len(root), None), "body_pose", file)
    if body.shape[1] not in (63, 69):
        problem = f"is of another body (body_pose has {body.shape[1]} numbers a frame)"
        raise InputError(file, problem, "download the SMPL fits (69 or 63), not SMPL-X")
    check_not_empty(len(root), file)
    betas = np.atleast_2d(entry(clip, "betas", file))[0]  # of the subject; the same in all frames
    frames = kept_frames(len(root), TRIM, EVERY)
    pose = smpl_pose(z_up_to_y_up(root[frames]), body[frames, :63])
    yield from clip_records(file, report, pose, frames, sequence=f"MOYO/{file.stem}", betas=betas)


SOURCES = (
    Source(
        name="moyo",
        kind="poses",
        splits=("train", "val"),
        layout=LAYOUT,
        licence="MOYO licence: non-commercial scientific research",
        citation="Tripathi et al., 3D Human Pose Estimation via Intuitive Physics, CVPR 2023",
        read=read,
        folder="moyo",
        weights={"MOYO": WEIGHT},
    ),
)
