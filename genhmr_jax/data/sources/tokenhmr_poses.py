"""The pose files that TokenHMR's tokenizer trains on (Dwivedi et al., CVPR 2024).

SPLIT/SPLIT_SET.npz, made from AMASS and MOYO, has `pose_body` (N, 63) axis-angle radians of joints
1..21, `betas` (N, 10), `gender` (N,) and `name` (N,), the clip. There is no root orientation: it is
zero in the records. All frames are kept, since the files hold a selection already.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genhmr_jax.data.sources import amass, moyo
from genhmr_jax.data.sources.motion import check_not_empty, smpl_pose
from genhmr_jax.data.sources.reading import numbers, read_npz
from genhmr_jax.data.sources.records import PoseRecord, check_turns, pose_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

LAYOUT = """TokenHMR's pose files: make them with its tokenization/scripts, or download
tokenization_data of its release (https://tokenhmr.is.tue.mpg.de), so that there is
MANUAL_DIR/tokenization_data/smplh/SPLIT/SPLIT_SET.npz, such as smplh/train/train_CMU.npz"""


def read(root: Path, split: str, report: Report) -> Iterator[PoseRecord]:
    """All poses of the split's sets; `sequence` is SET/CLIP, `frame` the index in the clip."""
    folder = report.require(root / "smplh" / split)
    for file in find_files(folder, f"{split}_*.npz"):
        with report.skipping():
            yield from _set(file, file.stem.removeprefix(f"{split}_"), report)


def _set(file: Path, name: str, report: Report) -> Iterator[PoseRecord]:
    data = read_npz(file, ("pose_body", "betas", "gender", "name"))
    body = numbers(data["pose_body"], (None, 63), "pose_body", file)
    count = len(body)
    check_not_empty(count, file)
    betas = numbers(data["betas"], (count, None), "betas", file)
    gender, clips = (np.atleast_1d(data[key]) for key in ("gender", "name"))
    if not len(gender) == len(clips) == count:
        problem = f"has {count} poses, {len(gender)} genders and {len(clips)} names"
        raise InputError(file, problem, "is the file complete?")
    check_turns(body[np.isfinite(body).all(1)], file)
    poses = smpl_pose(np.zeros((count, 3)), body)
    last_frame: dict[str, int] = {}
    for i, clip in enumerate(map(str, clips)):
        frame = last_frame[clip] = last_frame.get(clip, -1) + 1
        clip = clip.removeprefix(f"{name}/").removesuffix(".npz").removesuffix(".pkl")
        with report.skipping():
            yield pose_record(
                f"{file}: pose {i}",
                pose=poses[i],
                sequence=f"{name}/{clip}",
                frame=frame,
                betas=betas[i],
                gender=gender[i],
            )


SOURCES = (
    Source(
        name="tokenhmr_poses",
        kind="poses",
        splits=("train", "val", "test"),
        layout=LAYOUT,
        licence="that of AMASS and MOYO: non-commercial scientific research",
        citation=(
            "Dwivedi et al., TokenHMR: Advancing Human Mesh Recovery with a Tokenized Pose "
            "Representation, CVPR 2024"
        ),
        read=read,
        folder="tokenization_data",
        weights=amass.WEIGHTS | {"MOYO": moyo.WEIGHT},
    ),
)
