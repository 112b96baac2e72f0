"""The filters of 4D-Humans for the pseudo-labels of its training shards (data_filtering/low1).

They act in this order: uncertain keypoints are dropped, then implausible shapes, then improbable
poses, then a pose whose shape was dropped or the reverse. A person with too few keypoints, or whose
fit has a large reprojection loss, is left out (`load_tars_as_webdataset` of
hmr2/datasets/image_dataset.py, L210; thresholds of low1.yaml). 4D-Humans marks a dropped label by
its flag or confidence alone; here it is zero too, as in all records. The last rule of 4D-Humans, to
regress unknown betas to zero, concerns the training and not the labels, and is left out.
"""

import dataclasses
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24

from genhmr_jax.data.sources.records import PersonRecord
from genhmr_jax.io.errors import InputError

JOINTS = SMPL24[1:22]  # SMPL+H's 21 body joints
LEAST_DENSITY = {
    "left_hip": 5e-5, "right_hip": 5e-5, "left_knee": 5e-6, "right_knee": 5e-6,
    "left_ankle": 5e-6, "right_ankle": 5e-6, "left_foot": 0.0, "right_foot": 0.0,
    "spine1": 2e-3, "spine2": 1e-2, "spine3": 2.5e-2, "neck": 2e-4, "head": 5e-4,
    "left_collar": 4.5e-4, "right_collar": 4.5e-4, "left_shoulder": 2e-4, "right_shoulder": 2e-4,
    "left_elbow": 4e-5, "right_elbow": 4e-5, "left_wrist": 1e-3, "right_wrist": 1e-3,
}  # fmt: skip
"""Least probability density of each joint's axis-angle vector, chosen by the authors of 4D-Humans
for their histogram."""


class PoseHistogram:
    """The density of the axis-angle vectors of 21 joints: blurred histograms over [-pi, pi]^3."""

    def __init__(self, counts: np.ndarray) -> None:
        """counts: (21, B, B, B)."""
        bins = counts.shape[1]
        density = counts / counts.sum() / (2 * np.pi / bins) ** 3
        # As in 4D-Humans, whose thresholds fit it, the blur runs over all four axes, including the
        # joints.
        self.density = gaussian_filter(density, sigma=2, mode="constant")

    @classmethod
    def load(cls, path: Path) -> "PoseHistogram":
        """Reads amass_poses_hist100_SMPL+H_G.npy, which comes with the training data of 4D-Humans.

        Raises:
          InputError: not an array (21, B, B, B).
        """
        try:
            counts = np.load(path, allow_pickle=False)
        except Exception as error:  # NumPy parses the header as Python: nearly any type
            remedy = "download it again with the training data of 4D-Humans"
            raise InputError(path, f"cannot be read ({error})", remedy) from error
        joints, *bins = counts.shape or (0,)
        if joints != len(JOINTS) or len(bins) != 3 or len(set(bins)) != 1 or not counts.sum() > 0:
            remedy = "it must be the histogram (21, 100, 100, 100) of 4D-Humans"
            raise InputError(path, f"has shape {counts.shape}", remedy)
        return cls(counts.astype(np.float64))

    def probable(self, body_pose: np.ndarray) -> bool:
        """Whether each of the first 21 joints of a body pose (69,) has at least its density."""
        joints = body_pose.reshape(-1, 3)[: len(JOINTS)]
        vectors = Rotation.from_rotvec(joints).as_rotvec()  # angles within pi
        bins = self.density.shape[1]
        cells = np.clip(((vectors + np.pi) / (2 * np.pi) * (bins - 1e-6)).astype(int), 0, bins - 1)
        density = self.density[np.arange(len(JOINTS)), *cells.T]
        return bool((density > [LEAST_DENSITY[name] for name in JOINTS]).all())


@dataclasses.dataclass(frozen=True)
class LabelFilters:
    """The filters with their thresholds; `histogram` None keeps every pose."""

    keypoint_confidence: float = 0.3
    keypoints: int = 4  # a person needs more
    reprojection_loss: float = 31_000.0  # a fit must have less
    largest_beta: float = 3.0
    histogram: PoseHistogram | None = None

    def apply(self, record: PersonRecord, reprojection_loss: float | None) -> PersonRecord | None:
        """The record with the labels that pass, or None if the person is left out.

        Args:
          record: of a person.
          reprojection_loss: of the fit behind the pseudo-labels, None without a fit.
        """
        keypoints = record["keypoints2d"]
        keypoints = np.where(keypoints[:, 2:] < self.keypoint_confidence, np.float32(0), keypoints)
        has_betas = record["has_betas"] > 0 and np.abs(record["betas"]).max() <= self.largest_beta
        has_pose = record["has_pose"] > 0 and (
            self.histogram is None or self.histogram.probable(record["body_pose"])
        )
        trusted = np.float32(has_betas and has_pose)
        if (keypoints[:, 2] > 0).sum() <= self.keypoints:
            return None
        if reprojection_loss is not None and not reprojection_loss < self.reprojection_loss:
            return None
        labels = {name: record[name] * trusted for name in ("global_orient", "body_pose", "betas")}
        labels |= {"keypoints2d": keypoints, "has_pose": trusted, "has_betas": trusted}
        return record | labels
