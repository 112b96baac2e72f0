"""AMASS (Mahmood et al., ICCV 2019), the SMPL+H G release: one npz for each motion clip.

A clip has `poses` (N, 156) axis-angle radians (root, 21 body joints, 30 hand joints), `trans` (N,
3) metres, `betas` (16,), `gender`, in a world whose z points up; the records are y-up. Frames are
kept by TokenHMR's rule: 20 % is cut at each end of a clip, and every 10th frame is kept.
"""

from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.data.sources.motion import (
    check_not_empty,
    clip_records,
    kept_frames,
    smpl_pose,
    z_up_to_y_up,
)
from genhmr_jax.data.sources.reading import numbers, read_npz
from genhmr_jax.data.sources.records import PoseRecord
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files, find_folders

TRIM, EVERY = 0.2, 10
POSE_NUMBERS = 156  # a frame of SMPL+H: the root, 21 joints of the body, 30 of the hands
OTHER_RELEASES = {72: "the SMPL", 165: "the SMPL-X"}  # by pose numbers a frame: 24 and 55 joints

# The weights of the training sets of TokenHMR's tokenizer (its tokenizer_amass_moyo.yaml); MOYO has
# the remaining 0.16.
WEIGHTS = {
    "CMU": 0.12, "KIT": 0.11, "BMLrub": 0.11, "DanceDB": 0.05, "BMLmovi": 0.05, "EyesJapan": 0.05,
    "BMLhandball": 0.05, "TotalCapture": 0.05, "EKUT": 0.03, "ACCAD": 0.03, "TCDHands": 0.03,
    "MPI-Limits": 0.16,
}  # fmt: skip
VALIDATION = ("HumanEva", "HDM05", "SFU", "MPI-Mosh")
TEST = ("Transitions", "SSM")
# Lower-case folders of the release (and of its older and newer versions) -> the names above.
FOLDERS = {
    "biomotionlab_ntroje": "BMLrub", "eyes_japan_dataset": "EyesJapan",
    "tcd_handmocap": "TCDHands", "tcdhandmocap": "TCDHands", "mpi_limits": "MPI-Limits",
    "poseprior": "MPI-Limits", "mpi_hdm05": "HDM05", "mpi_mosh": "MPI-Mosh", "mosh": "MPI-Mosh",
    "transitions_mocap": "Transitions", "ssm_synced": "SSM",
} | {name.lower().replace("-", "_"): name for name in (*WEIGHTS, *VALIDATION, *TEST)}  # fmt: skip

LAYOUT = """AMASS: register at https://amass.is.tue.mpg.de, download "SMPL+H G" of every set that
you want, and unpack them into MANUAL_DIR/amass, so that there is
MANUAL_DIR/amass/SET/SUBJECT/CLIP_poses.npz (SET is CMU, KIT, BMLrub, ...)"""

_WANTED = (
    f'"SMPL+H G" ({POSE_NUMBERS} pose numbers a frame) is needed: download it for every set at '
    "https://amass.is.tue.mpg.de"
)


def subset(folder: str) -> str:
    """The set's name in TokenHMR's lists, from its folder; for unknown sets, the folder's name."""
    return FOLDERS.get(folder.lower().replace("-", "_"), folder)


def split_of(name: str) -> str:
    """The split of a set, as in TokenHMR; all sets that it does not list are for training."""
    return "val" if name in VALIDATION else "test" if name in TEST else "train"


def read(root: Path, split: str, report: Report) -> Iterator[PoseRecord]:
    """The kept frames of all clips of the split's sets; `sequence` is SET/SUBJECT/CLIP."""
    folders = [path for path in find_folders(root) if split_of(subset(path.name)) == split]
    if not folders:
        report.missing(root, f"has no folder of a {split} set")
    for folder in folders:
        files = [file for file in find_files(folder, "**/*.npz") if file.stem != "shape"]
        if not files:
            remedy = "unpack the set's SMPL+H G archive there, or remove the folder"
            report.bad(folder, "has no .npz", remedy)
        for file in files:
            sequence = f"{subset(folder.name)}/{file.relative_to(folder).with_suffix('')}"
            with report.skipping():
                yield from _clip(file, sequence, report)


def _clip(file: Path, sequence: str, report: Report) -> Iterator[PoseRecord]:
    if file.stem.endswith("_stagei"):  # of SMPL-X: the shape of a subject, beside the clips
        raise InputError(file, "is of the SMPL-X download", _WANTED)
    clip = read_npz(file, ("poses", "trans", "betas", "gender"))
    poses = numbers(clip["poses"], (None, None), "poses", file)
    if poses.shape[1] != POSE_NUMBERS:
        release = OTHER_RELEASES.get(poses.shape[1], "another")
        problem = f"is of {release} download (poses has shape {poses.shape})"
        raise InputError(file, problem, _WANTED)
    check_not_empty(len(poses), file)
    frames = kept_frames(len(poses), TRIM, EVERY)
    kept = poses[frames]
    yield from clip_records(
        file,
        report,
        smpl_pose(z_up_to_y_up(kept[:, :3]), kept[:, 3:66]),
        frames,
        sequence=sequence,
        betas=numbers(clip["betas"], (None,), "betas", file),
        gender=clip["gender"],
    )


SOURCES = (
    Source(
        name="amass",
        kind="poses",
        splits=("train", "val", "test"),
        layout=LAYOUT,
        licence=(
            "AMASS licence: non-commercial scientific research; some sets require more citations"
        ),
        citation="Mahmood et al., AMASS: Archive of Motion Capture as Surface Shapes, ICCV 2019",
        read=read,
        folder="amass",
        weights=WEIGHTS,
    ),
)
