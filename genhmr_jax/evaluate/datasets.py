"""The test sets of `genhmr eval --dataset`: the source, the split and the protocols of each.

This module has no heavy imports.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class EvalDataset:
    """A labelled test set.

    Attributes:
      source: its name in data/sources.
      split: of that source.
      published: protocols of papers. They need SMPL, and some of them a joint regressor.
      free: protocols that do not need licensed files.
      frames_per_second: of a video; 0 for single images.
    """

    source: str
    split: str
    published: tuple[str, ...]
    free: tuple[str, ...]
    frames_per_second: float = 0.0


DATASETS = {
    "3dpw": EvalDataset("threedpw", "test", ("hmr2", "spin"), ("joints24",), 30.0),
    "3dpw-hmr2": EvalDataset(
        "hmr2_eval", "threedpw_test", ("hmr2-keypoints", "hmr2"), ("joints24",)
    ),
    "emdb1": EvalDataset("emdb", "emdb1", ("emdb", "emdb-official"), ("joints24",), 30.0),
    "emdb2": EvalDataset("emdb", "emdb2", ("emdb", "emdb-official"), ("joints24",), 30.0),
    "emdb-hmr2": EvalDataset("hmr2_eval", "emdb", ("emdb",), ("joints24",)),
    "h36m-p1": EvalDataset("human36m", "p1", ("spin-h36m", "hmr2-keypoints"), ("limbs12",)),
    "h36m-p2": EvalDataset("human36m", "p2", ("spin-h36m", "hmr2-keypoints"), ("limbs12",)),
    "h36m-p2-hmr2": EvalDataset("hmr2_eval", "h36m_val_p2", ("hmr2-keypoints",), ("limbs12",)),
    "own-photos": EvalDataset("own_photos", "val", ("joints24",), ("joints24",)),
    "mpi-inf-3dhp": EvalDataset("mpi_inf_3dhp", "test", ("mpi-inf-3dhp",), ("limbs12",)),
}
SYNTHETIC = {"synthetic": 1, "synthetic_v2": 2}
"""Rendered test sets and their version (evaluate/synthetic_split.py)."""
CLIPS = "clips"
"""The rendered clips (evaluate/clip_split.py)."""
ANGLES, CLIP_ANGLES = "angles", "clip-angles"
"""Joint angles of stored motions (evaluate/angles.py), and of the people of the rendered clips."""
BENCHMARKS = (*SYNTHETIC, CLIPS, ANGLES, CLIP_ANGLES, "photos")
"""Free test sets, measured by evaluate/benchmark.py, evaluate/clips.py, evaluate/angles.py,
evaluate/clip_angles.py and evaluate/photos.py."""


@dataclasses.dataclass(frozen=True)
class HandDataset:
    """A released test set of hands.

    Attributes:
      source: its name in data/hands/releases.
      split: of that source.
      protocol: a function of evaluate/hand_protocols.py; "hint" for PCK.
    """

    source: str
    split: str
    protocol: str


HAND_DATASETS = {
    "freihand": HandDataset("freihand", "evaluation", "freihand"),
    "ho3d": HandDataset("ho3d", "evaluation", "ho3d"),
    "dexycb": HandDataset("dexycb", "s0_test", "dexycb"),
    **{
        f"hint-{videos}-{group}": HandDataset("hint_hamer", f"TEST_{videos}_img_{group}", "hint")
        for videos in ("newdays", "epick", "ego4d")
        for group in ("all", "vis", "occ")
    },
}
"""Measured by evaluate/hand_releases.py."""
