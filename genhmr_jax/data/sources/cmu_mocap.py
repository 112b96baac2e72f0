"""The CMU Graphics Lab motion capture database, as asf/amc and as cgspeed's BVH conversions.

It is free for all uses. Motions are converted to SMPL's skeleton (retarget.py lists the
approximations); there are no betas. Frames are kept by the rule for AMASS: 20 % of a clip is cut at
each end, and every 10th frame of 120 a second is kept. The validation subjects are those of the
shipped model.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from genhmr_jax.data.sources.amass import EVERY, TRIM
from genhmr_jax.data.sources.asf import read_amc, read_asf
from genhmr_jax.data.sources.bvh import read_bvh
from genhmr_jax.data.sources.motion import clip_records, kept_frames
from genhmr_jax.data.sources.records import PoseRecord
from genhmr_jax.data.sources.retarget import JointMap, both_sides, to_smpl
from genhmr_jax.data.sources.skeleton import SkeletonMotion
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.folders import find_files

# All other subjects are for training.
SUBJECTS = {"val": ("03", "09", "11", "14", "140"), "test": ("02", "05", "12", "43", "139")}

ASF_LAYOUT = """CMU mocap, asf/amc: download allasfamc.zip from http://mocap.cs.cmu.edu (free, no
registration), and unpack it, so that there is MANUAL_DIR/cmu_asf/SUBJECT/SUBJECT.asf and
SUBJECT_TRIAL.amc beside it, at any depth (such as all_asfamc/subjects/01/01_01.amc)"""
BVH_LAYOUT = """CMU mocap, BVH: download a BVH conversion of Bruce Hahne (cgspeed:
MotionBuilder-friendly or Daz-friendly), and unpack it, so that there is
MANUAL_DIR/cmu_bvh/SUBJECT/SUBJECT_TRIAL.bvh, at any depth"""


def _limbs(
    left: dict[str, tuple[str, str]], prefixes: tuple[str, str]
) -> dict[str, tuple[str, str]]:
    """The limbs of both sides, from those of the left."""
    sides = {smpl: both_sides({smpl: start}, *prefixes) for smpl, (start, _) in left.items()}
    ends = {smpl: both_sides({smpl: end}, *prefixes) for smpl, (_, end) in left.items()}
    return {name: (sides[smpl][name], ends[smpl][name]) for smpl in left for name in sides[smpl]}


ASF = JointMap(
    both_sides(
        {
            "pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax",
            "neck": "upperneck", "head": "head", "left_hip": "lfemur", "left_knee": "ltibia",
            "left_ankle": "lfoot", "left_foot": "ltoes", "left_collar": "lclavicle",
            # The forearm turns at its distal end in asf.
            "left_shoulder": "lhumerus", "left_elbow": "lwrist", "left_wrist": "lhand",
        }, "l", "r",
    ),
    _limbs(
        {
            "left_hip": ("lfemur", "ltibia"), "left_knee": ("ltibia", "lfoot"),
            "left_shoulder": ("lhumerus", "lradius"), "left_elbow": ("lradius", "lwrist"),
        }, ("l", "r"),
    ),
)  # fmt: skip
MOTION_BUILDER = JointMap(
    both_sides(
        {
            "pelvis": "Hips", "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1",
            "neck": "Neck1", "head": "Head", "left_hip": "LeftUpLeg", "left_knee": "LeftLeg",
            "left_ankle": "LeftFoot", "left_foot": "LeftToeBase", "left_collar": "LeftShoulder",
            "left_shoulder": "LeftArm", "left_elbow": "LeftHand", "left_wrist": "LeftFingerBase",
        }, "Left", "Right",
    ),
    _limbs(
        {
            "left_hip": ("LeftUpLeg", "LeftLeg"), "left_knee": ("LeftLeg", "LeftFoot"),
            "left_shoulder": ("LeftArm", "LeftForeArm"),
            "left_elbow": ("LeftForeArm", "LeftHand"),
        }, ("Left", "Right"),
    ),
)  # fmt: skip
DAZ = JointMap(
    both_sides(
        {
            "pelvis": "hip", "spine1": "abdomen", "spine3": "chest", "neck": "neck",
            "head": "head", "left_hip": "lThigh", "left_knee": "lShin", "left_ankle": "lFoot",
            "left_collar": "lCollar", "left_shoulder": "lShldr", "left_elbow": "lForeArm",
            "left_wrist": "lHand",
        }, "l", "r",
    ),
    _limbs(
        {
            "left_hip": ("lThigh", "lShin"), "left_knee": ("lShin", "lFoot"),
            "left_shoulder": ("lShldr", "lForeArm"), "left_elbow": ("lForeArm", "lHand"),
        }, ("l", "r"),
    ),
)  # fmt: skip


def split_of(subject: str) -> str:
    """The split of a subject's clips."""
    return next(
        (split for split, subjects in SUBJECTS.items() if subject.zfill(2) in subjects), "train"
    )


def read_asf_amc(root: Path, split: str, report: Report) -> Iterator[PoseRecord]:
    """The kept frames of all .amc of the split's subjects; `sequence` is CMU/SUBJECT/CLIP."""
    for skeleton_file in find_files(root, "**/*.asf"):
        subject = skeleton_file.stem
        if split_of(subject) != split:
            continue
        with report.skipping():
            skeleton = read_asf(skeleton_file)
            motions = find_files(skeleton_file.parent, "*.amc")
            if not motions:
                remedy = "unpack the subject's motions beside it"
                report.bad(skeleton_file.parent, "has a skeleton but no .amc", remedy)
            for file in motions:
                read = functools.partial(read_amc, file, skeleton)
                yield from _clip(file, subject, read, (ASF,), report)


def read_bvhs(root: Path, split: str, report: Report) -> Iterator[PoseRecord]:
    """The kept frames of all .bvh of the split's subjects; `sequence` is CMU/SUBJECT/CLIP."""
    for file in find_files(root, "**/*.bvh"):
        subject = file.stem.split("_")[0]
        if split_of(subject) == split:
            read = functools.partial(read_bvh, file)
            yield from _clip(file, subject, read, (MOTION_BUILDER, DAZ), report)


def _clip(
    file: Path,
    subject: str,
    read: Callable[[], SkeletonMotion],
    maps: tuple[JointMap, ...],
    report: Report,
) -> Iterator[PoseRecord]:
    """The kept frames of a clip, by the joint map that its skeleton fits best."""
    with report.skipping():
        motion = read()
        frames = kept_frames(len(motion.root), TRIM, EVERY)
        joint_map = min(maps, key=lambda names: len(names.missing(motion.names)))
        poses = to_smpl(motion.frames(frames), joint_map, file)
        yield from clip_records(file, report, poses, frames, sequence=f"CMU/{subject}/{file.stem}")


_LICENCE = "free for all uses (the data may not be sold)"
_CITATION = (
    "CMU Graphics Lab Motion Capture Database, mocap.cs.cmu.edu, created with funding from NSF "
    "EIA-0196217"
)
SOURCES = (
    Source(
        name="cmu_asf",
        kind="poses",
        splits=("train", "val", "test"),
        layout=ASF_LAYOUT,
        licence=_LICENCE,
        citation=_CITATION,
        read=read_asf_amc,
        folder="cmu_asf",
    ),
    Source(
        name="cmu_bvh",
        kind="poses",
        splits=("train", "val", "test"),
        layout=BVH_LAYOUT,
        licence=_LICENCE,
        citation=_CITATION,
        read=read_bvhs,
        folder="cmu_bvh",
    ),
)
