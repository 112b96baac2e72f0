"""AIST++ (Li et al., ICCV 2021): dances as SMPL poses.

The release has motions/CLIP.pkl and lists of clips in splits/. A clip is a dictionary of
`smpl_poses` (N, 72) axis-angle radians at 60 frames/s, `smpl_trans` (N, 3) and `smpl_scaling` (1,),
in a world whose y points up, without betas. Dances have no calibration poses at their ends, so
nothing is cut; every 10th frame is kept. The clips of ignore_list.txt, whose fits are wrong
according to the authors, are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.data.sources.motion import check_not_empty, clip_records, kept_frames
from genhmr_jax.data.sources.reading import entry, numbers, read_pickle
from genhmr_jax.data.sources.records import PoseRecord
from genhmr_jax.data.sources.source import Report, Source

EVERY = 10

LAYOUT = """AIST++: accept the terms at https://google.github.io/aistplusplus_dataset, download
"SMPL motions", "splits" and "ignore_list.txt" (fullset), and unpack them, so that there is
MANUAL_DIR/aist_plusplus/motions/CLIP.pkl, MANUAL_DIR/aist_plusplus/splits/pose_train.txt
(pose_val.txt, pose_test.txt) and MANUAL_DIR/aist_plusplus/ignore_list.txt"""


def read(root: Path, split: str, report: Report) -> Iterator[PoseRecord]:
    """The kept frames of all clips of a pose split; `sequence` is AIST/CLIP."""
    folder = report.require(root / "motions")
    listed = report.require(root / "splits" / f"pose_{split}.txt").read_text().split()
    ignored = set(report.require(root / "ignore_list.txt").read_text().split())
    for name in listed:
        if name in ignored:
            continue
        with report.skipping():
            file = folder / f"{name}.pkl"
            if not file.is_file():
                problem = f"is absent, though splits/pose_{split}.txt names it"
                report.bad(file, problem, "unpack the SMPL motions again")
                continue
            yield from _clip(file, report)


def _clip(file: Path, report: Report) -> Iterator[PoseRecord]:
    poses = numbers(entry(read_pickle(file), "smpl_poses", file), (None, 72), "smpl_poses", file)
    check_not_empty(len(poses), file)
    frames = kept_frames(len(poses), 0.0, EVERY)
    yield from clip_records(file, report, poses[frames], frames, sequence=f"AIST/{file.stem}")


SOURCES = (
    Source(
        name="aist",
        kind="poses",
        splits=("train", "val", "test"),
        layout=LAYOUT,
        licence=(
            "annotations CC BY 4.0; the videos under the terms of the AIST Dance Video Database"
        ),
        citation=(
            "Li et al., AI Choreographer: Music Conditioned 3D Dance Generation with AIST++, "
            "ICCV 2021"
        ),
        read=read,
        folder="aist_plusplus",
    ),
)
