"""Training rows: people in images with their labels, as a typed pytree and as flat arrays."""

import dataclasses
import pathlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt, UInt32

from genhmr_jax.core.encoders import maps_of_features
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.detect.blazepose import Evidence
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.io.atomic import atomic_path

CHECKS = "crc32.npz"
"""The file with the `row_checks` of each array of a stored set."""
_VIEW = ("crop", "focal", "centre")
_MAP, _EVIDENCE = "map_", "evidence_"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Known:
    """1 for the rows that carry a label, else 0; (B,) each."""

    rotation: Float[Array, "B"]
    betas: Float[Array, "B"]
    camera: Float[Array, "B"]
    joints3d: Float[Array, "B"]
    joints2d: Float[Array, "B"]

    @staticmethod
    def everything(rows: int) -> "Known":
        """Every row carries every label."""
        return Known(*(jnp.ones(rows) for _ in dataclasses.fields(Known)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """B people. A field is None if the source lacks it: a source with all labels has no `known`.

    Attributes:
      view: the photo's camera and the crop.
      rotmats: (B, 24, 3, 3) joint rotations, the root's in camera coordinates.
      betas: (B, 10).
      joints: (B, 24, 3) metres, relative to the model origin, or to the origin of the release.
      keypoints: (B, K, 3) px and confidence, as detected; of photos: as labelled, in the crop only.
      points2d: (B, K, 2) px, true.
      weak_camera: (B, 3) of the crop.
      number: (B,) uint32, the global sample number, from which random keys follow.
      keypoints3d: (B, K, 3) metres from mid-hip, as estimated; all zero: not known.
      joints_confidence, points2d_confidence: (B, 24), (B, K) 0..1 of the labels.
      known: which labels each row carries.
      exact: (B,) 1 where the body was measured, 0 where it was fitted to 2D keypoints.
      images: (B, 256, 256, 3) uint8 crops.
      maps: of a frozen encoder, float16, finest first.
      evidence: the detector's outputs for each person.
      weight, weight2d: (B,) of a row in mean errors of joints and of keypoints, in validation; 0 in
        rows that pad the last batch.
    """

    view: CropCamera
    rotmats: Float[Array, "B 24 3 3"]
    betas: Float[Array, "B 10"]
    joints: Float[Array, "B 24 3"]
    keypoints: Float[Array, "B K 3"]
    points2d: Float[Array, "B K 2"]
    weak_camera: Float[Array, "B 3"]
    number: UInt[Array, "B"] | None = None
    keypoints3d: Float[Array, "B K 3"] | None = None
    joints_confidence: Float[Array, "B 24"] | None = None
    points2d_confidence: Float[Array, "B K"] | None = None
    known: Known | None = None
    exact: Float[Array, "B"] | None = None
    images: UInt[Array, "B 256 256 3"] | None = None
    maps: list[Float[Array, "B h w C"]] | None = None
    evidence: Evidence | None = None
    weight: Float[Array, "B"] | None = None
    weight2d: Float[Array, "B"] | None = None

    @property
    def size(self) -> int:
        """B."""
        return self.rotmats.shape[0]

    @property
    def labels(self) -> Known:
        """`known`; every label where it is None."""
        return Known.everything(self.size) if self.known is None else self.known

    def confidence_of_joints(self) -> Float[Array, "B 24"]:
        """`joints_confidence`, or ones."""
        given = self.joints_confidence
        return jnp.ones(self.joints.shape[:2]) if given is None else given

    def confidence_of_points2d(self) -> Float[Array, "B K"]:
        """`points2d_confidence`, or ones."""
        given = self.points2d_confidence
        return jnp.ones(self.points2d.shape[:2]) if given is None else given

    def turned(self, turn: Float[Array, "B 3 3"], view: CropCamera) -> "Rows":
        """The labels in the axes of a camera that is turned about its optical axis.

        Keypoints and the encoder's output stay as they are.

        Args:
          turn: from these axes to those of the photo's camera, see CropCamera.upright.
          view: the turned camera.
        """
        rotmats = self.rotmats.at[:, 0].set(turn.mT @ self.rotmats[:, 0])
        middle = view.centre[:, None]
        points = (self.points2d - middle) @ turn[:, :2, :2] + middle
        # The body is turned about its pelvis, which is not the model's origin.
        pelvis = self.joints[:, 0]
        joints = (self.joints - pelvis[:, None]) @ turn + pelvis[:, None]
        translation = self.view.translation(self.weak_camera) + pelvis
        weak = view.weak(jnp.einsum("bji,bj->bi", turn, translation) - pelvis)
        return dataclasses.replace(
            self, view=view, rotmats=rotmats, joints=joints, points2d=points, weak_camera=weak
        )

    def inputs(self, **more: Any) -> Inputs:
        """The inputs of a system: maps in float32, images in 0..1, the detector's region.

        Args:
          more: other fields of Inputs (image_weight, drop_path).
        """
        view, maps, images = self.view, self.maps, self.images
        if self.evidence is not None:
            view = dataclasses.replace(view, region=self.evidence.region)
            maps = maps_of_features(jnp.stack([self.evidence.inner, self.evidence.mirrored], 1))
        elif maps is not None:
            maps = [m.astype(jnp.float32) for m in maps]
        if images is not None:
            images = images.astype(jnp.float32) / 255.0
        return Inputs(
            view=view,
            keypoints=self.keypoints,
            keypoints3d=self.keypoints3d,
            maps=maps,
            images=images,
            **more,
        )


def to_arrays(rows: Rows) -> dict[str, np.ndarray]:
    """The arrays of rows by flat names, for a file. Raises ValueError for rows with `known`."""
    arrays = {name: getattr(rows.view, name) for name in _VIEW}
    for field in dataclasses.fields(rows):
        value = getattr(rows, field.name)
        if field.name == "maps" and value is not None:
            arrays |= {f"{_MAP}{level}": m for level, m in enumerate(value)}
        elif field.name == "evidence" and value is not None:
            arrays |= {
                f"{_EVIDENCE}{part.name}": getattr(value, part.name)
                for part in dataclasses.fields(value)
            }
        elif field.name == "known" and value is not None:
            raise ValueError("rows with missing labels cannot be stored")
        elif field.name not in ("view", "maps", "evidence", "known") and value is not None:
            arrays[field.name] = value
    return arrays


def from_arrays(arrays: dict[str, np.ndarray]) -> Rows:
    """The inverse of `to_arrays`. Raises KeyError for an array that is missing."""
    names = {field.name for field in dataclasses.fields(Rows)}
    fields: dict[str, Any] = {name: value for name, value in arrays.items() if name in names}
    if maps := sorted(name for name in arrays if name.startswith(_MAP)):
        fields["maps"] = [arrays[name] for name in maps]
    if any(name.startswith(_EVIDENCE) for name in arrays):
        parts = (part.name for part in dataclasses.fields(Evidence))
        fields["evidence"] = Evidence(**{name: arrays[f"{_EVIDENCE}{name}"] for name in parts})
    return Rows(view=CropCamera(*(arrays[name] for name in _VIEW)), **fields)


def is_of_encoder(name: str) -> bool:
    """Whether an array of this flat name is an encoder's output."""
    return name == "images" or name.startswith((_MAP, _EVIDENCE))


def row_checks(array: np.ndarray) -> UInt32[np.ndarray, "N"]:
    """The CRC-32 of each row (first axis) of an array."""
    return np.array([zlib.crc32(np.ascontiguousarray(row)) for row in array], np.uint32)


def write_checks(folder: pathlib.Path, checks: dict[str, np.ndarray]) -> None:
    """Write the `row_checks` of each array of a stored set."""
    with atomic_path(folder / CHECKS) as temporary, open(temporary, "wb") as file:
        np.savez(file, **checks)
