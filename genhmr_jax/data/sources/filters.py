"""The label filters of 4D-Humans (its data_filtering/low1): which pseudo-labels of the training shards are trusted.

They act in this order: uncertain keypoints are dropped, then implausible shapes, then improbable poses, then a pose or shape that lost the
other; a person with too few keypoints, or whose fit misses them by much, is left out
(`load_tars_as_webdataset` of hmr2/datasets/image_dataset.py, L210; thresholds of low1.yaml).
4D-Humans drops a label by its flag or confidence alone; here it becomes zero, too, as in all
records. (The last rule of 4D-Humans, to regress betas to zero where they are unknown, is a choice
of the training and no label: it is not done here.)
"""

import dataclasses
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24

from genhmr_jax.data.sources.source import Record
from genhmr_jax.io.errors import InputError

JOINTS = SMPL24[1:22]  # SMPL+H's 21 body joints
LEAST_DENSITY = {
    "left_hip": 5e-5, "right_hip": 5e-5, "spine1": 2e-3, "left_knee": 5e-6, "right_knee": 5e-6, "spine2": 1e-2, "left_ankle": 5e-6,
    "right_ankle": 5e-6, "spine3": 2.5e-2, "left_foot": 0.0, "right_foot": 0.0, "neck": 2e-4, "left_collar": 4.5e-4,
    "right_collar": 4.5e-4, "head": 5e-4, "left_shoulder": 2e-4, "right_shoulder": 2e-4, "left_elbow": 4e-5, "right_elbow": 4e-5,
    "left_wrist": 1e-3, "right_wrist": 1e-3,
}  # fmt: skip
"""Least probability density of each joint's axis-angle vector, chosen by hand by the authors of 4D-Humans for their histogram."""


class PoseHistogram:
    """How probable axis-angle vectors are: for each of 21 joints a histogram over [-pi, pi]^3, blurred."""

    def __init__(self, counts: np.ndarray) -> None:
        """counts: (21, B, B, B)."""
        bins = counts.shape[1]
        density = counts / counts.sum() / (2 * np.pi / bins) ** 3
        # The blur of the original runs over all four axes, the joints' included; the thresholds were chosen for that.
        self.density = gaussian_filter(density, sigma=2, mode="constant")

    @classmethod
    def load(cls, path: Path) -> "PoseHistogram":
        """Reads amass_poses_hist100_SMPL+H_G.npy, which comes with the training data of 4D-Humans.

        Raises:
          InputError: not an array (21, B, B, B).
        """
        try:
            counts = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(path, f"cannot be read ({error})", "download it again with the training data of 4D-Humans") from error
        if counts.ndim != 4 or counts.shape[0] != len(JOINTS) or len(set(counts.shape[1:])) != 1 or not counts.sum() > 0:
            raise InputError(path, f"has shape {counts.shape}", "it must be the histogram (21, 100, 100, 100) of 4D-Humans")
        return cls(counts.astype(np.float64))

    def probable(self, body_pose: np.ndarray) -> bool:
        """Whether each of the first 21 joints of a body pose (69,) has at least its density."""
        vectors = Rotation.from_rotvec(body_pose.reshape(-1, 3)[: len(JOINTS)]).as_rotvec()  # angles within pi
        bins = self.density.shape[1]
        cells = np.clip(((vectors + np.pi) / (2 * np.pi) * (bins - 1e-6)).astype(int), 0, bins - 1)
        density = self.density[np.arange(len(JOINTS)), *cells.T]
        return bool((density > [LEAST_DENSITY[name] for name in JOINTS]).all())


@dataclasses.dataclass(frozen=True)
class LabelFilters:
    """The thresholds; `histogram` None keeps every pose."""

    keypoint_confidence: float = 0.3
    keypoints: int = 4  # a person has more
    reprojection_loss: float = 31_000.0  # a person has less
    largest_beta: float = 3.0
    histogram: PoseHistogram | None = None

    def apply(self, record: Record, reprojection_loss: float | None) -> Record | None:
        """The record with the labels that pass, or None if the person is left out.

        Args:
          record: of records.PERSON_FIELDS.
          reprojection_loss: of the fit behind the pseudo-labels, None if there was none.
        """
        keypoints = record["keypoints2d"]
        keypoints = np.where(keypoints[:, 2:] < self.keypoint_confidence, np.float32(0), keypoints)
        has_betas = record["has_betas"] > 0 and np.abs(record["betas"]).max() <= self.largest_beta
        has_pose = record["has_pose"] > 0 and (self.histogram is None or self.histogram.probable(record["body_pose"]))
        trusted = np.float32(has_betas and has_pose)
        if (keypoints[:, 2] > 0).sum() <= self.keypoints:
            return None
        if reprojection_loss is not None and not reprojection_loss < self.reprojection_loss:
            return None
        labels = {name: record[name] * trusted for name in ("global_orient", "body_pose", "betas")}
        return record | labels | {"keypoints2d": keypoints, "has_pose": trusted, "has_betas": trusted}
