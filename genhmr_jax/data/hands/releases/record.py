"""What all releases of hands have in common: one hand in one image, and its MANO pose."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genhmr_jax.geometry.hand import HandPca
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import read_image

OPENGL = np.diag([1.0, -1.0, -1.0])
"""The matrix that takes points from OpenGL's camera axes (y up, z backwards) to ours, and back.

Our axes are OpenCV's: x right, y down, z forward.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class HandRecord:
    """One hand in one image. None stands for a label that the release does not have.

    3D points are in metres in the axes of the camera (x right, y down, z forward). Pixels are the
    numbers of the release. The order of keypoints is HAND21. A keypoint with weight 0 is unknown;
    its pixels and its 3D point are zero.

    Attributes:
      name: of the sample, unique within its split.
      image: the file of the image.
      right: whether it is a right hand.
      box: x1, y1, x2, y2 px: that of the release; else the smallest box around the keypoints (and
        vertices); else the whole image.
      keypoints: x and y px, and weight 1 (labelled) or 0.
      occluded: whether a labelled keypoint is hidden.
      keypoints3d: metres.
      vertices: of MANO's mesh, metres.
      wrist: the first keypoint, metres; it may be known without the others.
      pose: axis-angle, radians: the wrist in the axes of the camera, then 15 joints in MANO's
        order, of the MANO model of this side. `pose_form` says how the 15 joints are stored.
      pose_form: "flat": relative to the flat hand. "mean": relative to MANO's mean pose. "pca":
        45 coefficients of MANO's components, relative to the mean pose. `full_pose` converts.
      betas: of MANO's shape.
      trans: metres, in the axes of the camera: MANO's translation, which is added to the vertices.
      intrinsics: the camera matrix, px.
    """

    name: str
    image: Path
    right: bool
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "21 3"] | None = None
    occluded: Bool[np.ndarray, "21"] | None = None
    keypoints3d: Float[np.ndarray, "21 3"] | None = None
    vertices: Float[np.ndarray, "778 3"] | None = None
    wrist: Float[np.ndarray, "3"] | None = None
    pose: Float[np.ndarray, "48"] | None = None
    pose_form: str = ""
    betas: Float[np.ndarray, "10"] | None = None
    trans: Float[np.ndarray, "3"] | None = None
    intrinsics: Float[np.ndarray, "3 3"] | None = None

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image, RGB. Raises InputError if the file is absent or damaged."""
        return read_image(self.image)


def full_pose(record: HandRecord, pca: HandPca | None = None) -> Float[np.ndarray, "48"]:
    """The axis-angle pose of a record relative to the flat hand, radians, as MANO's forward needs.

    Args:
      record: with a pose.
      pca: `geometry.hand.load_hand_pca` of the MANO file of the side of this hand. The form "flat"
        does not need it.

    Raises:
      InputError: the record has no pose, or its form needs `pca`.
    """
    if record.pose is None:
        raise InputError(record.name, "has no MANO pose", "use its keypoints instead")
    if record.pose_form == "flat":
        return record.pose
    if pca is None:
        side = "RIGHT" if record.right else "LEFT"
        remedy = f"give load_hand_pca of MANO_{side}.pkl"
        raise InputError(record.name, "its pose is relative to MANO's mean pose", remedy)
    fingers = record.pose[3:]
    if record.pose_form == "pca":
        fingers = fingers @ np.asarray(pca.components, np.float64)
    return np.concatenate([record.pose[:3], fingers + np.asarray(pca.mean, np.float64)])


def project(
    points: Float[np.ndarray, "N 3"], intrinsics: Float[np.ndarray, "3 3"], where: object
) -> Float[np.ndarray, "N 2"]:
    """Pixels of points in metres in the axes of the camera.

    Raises:
      InputError: a point is not in front of the camera.
    """
    if not (points[:, 2] > 0).all():
        problem = "has points behind the camera"
        raise InputError(where, problem, "leave it out, or download the labels again")
    image = points @ intrinsics.T
    return image[:, :2] / image[:, 2:]


def weighted(
    pixels: Float[np.ndarray, "21 2"], known: Bool[np.ndarray, "21"] | None = None
) -> Float[np.ndarray, "21 3"]:
    """The field `keypoints` of a record; all are known if `known` is None."""
    weight = np.ones(len(pixels)) if known is None else known.astype(np.float64)
    return np.concatenate([np.where(weight[:, None] > 0, pixels, 0.0), weight[:, None]], -1)


def tight_box(*pixels: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "4"]:
    """The smallest box x1, y1, x2, y2 around sets of pixels."""
    points = np.concatenate(pixels)
    return np.concatenate([points.min(0), points.max(0)])
