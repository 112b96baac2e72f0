"""The pinhole camera of a photo, and the square crops of people in it.

Camera coordinates are x right, y down, z forward, in metres. Pixel = focal * X / Z + principal
point. A pixel's centre is at +0.5.
"""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPS = 1e-9
NEAR = 0.05  # metres: smaller depths are replaced by this one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CropCamera:
    """The camera of a photo and the square crop of one person. Any leading batch axes b.

    NumPy arrays give NumPy results, so that rows can be made on the host.

    Attributes:
      crop: (*b, 3) centre x, y and side of the person's upright square, px. The weak camera and all
        residuals are relative to it.
      focal: (*b,) focal length, px.
      centre: (*b, 2) principal point, px.
      region: (*b, 4) the rotated square that an encoder gets in place of the crop: centre x, y and
        side, px, and the clockwise angle in radians. None: it gets the crop.
    """

    crop: Float[Array, "*b 3"]
    focal: Float[Array, "*b"]
    centre: Float[Array, "*b 2"]
    region: Float[Array, "*b 4"] | None = None

    def project(self, points: Float[Array, "*b K 3"]) -> Float[Array, "*b K 2"]:
        """Project camera-space points, metres, to px of the photo."""
        return project(points, self.focal, self.centre)

    def to_crop(self, pixels: Float[Array, "*b K 2"]) -> Float[Array, "*b K 2"]:
        """Convert px of the photo to coordinates of the crop in [-1, 1] (0 is its centre)."""
        return (pixels - self.crop[..., None, :2]) / (self.crop[..., None, 2:] / 2.0)

    def translation(self, weak: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
        """Convert the weak camera (s, tx, ty) to the translation of the model origin, metres.

        From the camera of HMR's crop to that of the whole photo, for any focal length
        (cam_crop_to_full of 4D-Humans; CLIFF, Li et al. 2022, eq. 1). s > 0: 1/s metres fill half
        the crop; tx, ty in metres.
        """
        xp = _namespace(self.crop, self.focal, self.centre, weak)
        scaled_side = weak[..., 0] * self.crop[..., 2] + EPS
        offset = 2.0 * (self.crop[..., :2] - self.centre) / scaled_side[..., None]
        depth = (2.0 * xp.asarray(self.focal) / scaled_side)[..., None]
        return xp.concatenate([weak[..., 1:] + offset, depth], -1)

    def weak(self, translation: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
        """The inverse of `translation`."""
        xp = _namespace(self.crop, self.focal, self.centre, translation)
        scale = 2.0 * xp.asarray(self.focal) / (translation[..., 2] * self.crop[..., 2])
        scaled_side = (scale * self.crop[..., 2] + EPS)[..., None]
        offset = 2.0 * (self.crop[..., :2] - self.centre) / scaled_side
        return xp.concatenate([scale[..., None], translation[..., :2] - offset], -1)

    def weak_of_upright(
        self, weak: Float[Array, "*b 3"], pelvis: Float[Array, "*b 3"]
    ) -> Float[Array, "*b 3"]:
        """The weak camera of this view, of a body whose weak camera of `upright` is known.

        In this camera's axes the body is turned about its pelvis, which is not the model's origin.

        Args:
          weak: of the rotated camera.
          pelvis: (*b, 3) metres, the joint about which the root turns (of a hand: the wrist),
            relative to the model's origin.
        """
        turn, own = self.upright()
        turned = jnp.einsum("...ij,...j->...i", turn, own.translation(weak) + pelvis)
        return self.weak(turned - pelvis)

    def box_information(self) -> Float[Array, "*b 3"]:
        """Location and size of the crop: (cx - px) / f, (cy - py) / f, side / f (CLIFF)."""
        focal = jnp.asarray(self.focal)[..., None]
        middle = (self.crop[..., :2] - self.centre) / focal
        return jnp.concatenate([middle, self.crop[..., 2:] / focal], -1)

    def upright(self) -> tuple[Float[Array, "*b 3 3"], "CropCamera"]:
        """Rotate the camera about its optical axis until the region is upright in its picture.

        Such a rotation of a pinhole camera rotates the pixels about the principal point. To undo
        it, a body only needs the opposite rotation.

        Returns:
          the rotation from the rotated camera's axes to this camera's, and the rotated camera,
          whose crop is the region.
        """
        pad = [(0, 0)] * (self.crop.ndim - 1) + [(0, 1)]
        region = jnp.pad(self.crop, pad) if self.region is None else self.region
        cos, sin = jnp.cos(region[..., 3]), jnp.sin(region[..., 3])
        zero = jnp.zeros(region.shape[:-1])
        rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, zero + 1.0))
        turn = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
        middle = jnp.einsum("...i,...ij->...j", region[..., :2] - self.centre, turn[..., :2, :2])
        crop = jnp.concatenate([middle + self.centre, region[..., 2:3]], -1)
        return turn, CropCamera(crop, self.focal, self.centre)


def project(
    points: Float[Array, "*b K 3"], focal: Float[Array, "*b"] | float, centre: Float[Array, "*b 2"]
) -> Float[Array, "*b K 2"]:
    """Perspective projection of camera-space points, metres, to px.

    Depths below NEAR are replaced by NEAR, so that a point at or behind the camera has a finite
    value and gradient.

    Args:
      points: x right, y down, z forward.
      focal: px.
      centre: principal point, px.
    """
    depth = jnp.maximum(points[..., 2:], NEAR)
    return points[..., :2] / depth * jnp.asarray(focal)[..., None, None] + centre[..., None, :]


def default_focal(width: int, height: int) -> float:
    """The default focal length of a photo in px: its diagonal (as in CLIFF, 53 degrees)."""
    return float(np.hypot(width, height))


def focal_from_35mm(focal35: float, width: int, height: int) -> float:
    """Focal length in px from the 35 mm equivalent in mm.

    The equivalent is the focal length that has the same diagonal angle of view on 35 mm film, whose
    frame has 36 x 24 mm (CIPA DCG-001; Exif 2.32, tag FocalLengthIn35mmFilm).
    """
    return float(focal35 / np.hypot(36.0, 24.0) * np.hypot(width, height))


def focal_from_fov(fov: float, width: int, height: int) -> float:
    """Focal length in px from the field of view in degrees over the longer side."""
    return float(max(width, height) / 2.0 / np.tan(np.radians(fov) / 2.0))


def crop_around(
    points: Float[Array, "*b K 2"], weights: Float[Array, "*b K"], margin: float = 1.25
) -> Float[Array, "*b 3"]:
    """The square crop (cx, cy, side, px) around the points with positive weight.

    Its side is `margin` times the longer extent of the points.
    """
    xp = _namespace(points, weights)
    known = (weights > 0)[..., None]
    low = xp.min(xp.where(known, points, xp.inf), -2)
    high = xp.max(xp.where(known, points, -xp.inf), -2)
    found = xp.any(known, -2)
    low, high = xp.where(found, low, 0.0), xp.where(found, high, 1.0)
    side = margin * xp.maximum(xp.max(high - low, -1), 1.0)
    return xp.concatenate([(low + high) / 2.0, side[..., None]], -1).astype(points.dtype)


def square_around(box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3"]:
    """Centre and side (px) of the crop of a box (xyxy).

    A box wider than 3 : 4 fits into the middle 3/4 of the square, which is the ViT's input (as in
    HMR2). No margin is added: the boxes of the releases include one.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return np.array([centre_x, centre_y, max(height, width * 4 / 3)])


def _namespace(*arrays: Any) -> types.ModuleType:
    """NumPy if all arrays are NumPy arrays, else jax.numpy."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp
