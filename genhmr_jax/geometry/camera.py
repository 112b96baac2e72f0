"""Pinhole projection, the weak camera of a crop, and the way between crop and full image.

Conventions are those of docs/architecture.md: camera coordinates x right, y down, z forward in metres; pixel = f X/Z + (W/2, H/2).

A camera whose principal point is not the image's middle needs no formula of its own. Of an `image_size` every function reads its half, the
principal point: give `centred_size` in its place.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPS = 1e-9


def project(
    points: Float[Array, "*b K 3"], focal: Float[Array, "*b"] | float, centre: Float[Array, "*b 2"], *, near: float = 0.05
) -> Float[Array, "*b K 2"]:
    """Perspective projection of camera-space points (..., K, 3) metres to pixels (..., K, 2).

    Depths are held at `near` metres or more, so that a point at or behind the camera gives a finite value and gradient.
    """
    depth = jnp.maximum(points[..., 2:], near)
    return points[..., :2] / depth * jnp.asarray(focal)[..., None, None] + centre[..., None, :]


def weak_to_translation(
    weak: Float[Array, "*b 3"], crop: Float[Array, "*b 3"], image_size: Float[Array, "*b 2"], focal: Float[Array, "*b"]
) -> Float[Array, "*b 3"]:
    """Weak camera (s, tx, ty) of a crop -> translation (..., 3) in metres of the model origin in the full image's camera.

    HMR's crop camera with the box taken out (cam_crop_to_full of 4D-Humans; CLIFF eq. 1), for any focal length in px.

    Args:
      weak: s > 0 (the person's metres that fill half the crop are 1/s), tx, ty in metres.
      crop: centre x, centre y, side, in px.
      image_size: width, height in px.
      focal: px.
    """
    scaled_side = weak[..., 0] * crop[..., 2] + EPS
    offset = 2.0 * (crop[..., :2] - image_size / 2.0) / scaled_side[..., None]
    return jnp.concatenate([weak[..., 1:] + offset, (2.0 * jnp.asarray(focal) / scaled_side)[..., None]], -1)


def translation_to_weak(
    translation: Float[Array, "*b 3"], crop: Float[Array, "*b 3"], image_size: Float[Array, "*b 2"], focal: Float[Array, "*b"]
) -> Float[Array, "*b 3"]:
    """The inverse of `weak_to_translation` (same shapes and units). NumPy arrays give a NumPy array, made on the host."""
    xp = np if all(isinstance(value, np.ndarray) for value in (translation, crop, image_size, focal)) else jnp
    s = 2.0 * xp.asarray(focal) / (translation[..., 2] * crop[..., 2])
    offset = 2.0 * (crop[..., :2] - image_size / 2.0) / (s * crop[..., 2] + EPS)[..., None]
    return xp.concatenate([s[..., None], translation[..., :2] - offset], -1)


def to_crop(points: Float[Array, "*b K 2"], crop: Float[Array, "*b 3"]) -> Float[Array, "*b K 2"]:
    """Full-image pixels -> crop coordinates in [-1, 1] (0 is the centre of the crop)."""
    return (points - crop[..., None, :2]) / (crop[..., None, 2:] / 2.0)


def box_information(crop: Float[Array, "*b 3"], image_size: Float[Array, "*b 2"], focal: Float[Array, "*b"]) -> Float[Array, "*b 3"]:
    """Where the crop looks: (cx - W/2)/f, (cy - H/2)/f, side/f, dimensionless (the box information of CLIFF, Li et al. 2022)."""
    focal = jnp.asarray(focal)[..., None]
    return jnp.concatenate([(crop[..., :2] - image_size / 2.0) / focal, crop[..., 2:] / focal], -1)


def centred_size(principal: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
    """The `image_size` (px) whose middle is this principal point (px): the photo, had its borders been drawn around its optical axis.

    Pixels stay where they are, so crops, keypoints and focal length are those of the photo itself.
    """
    return 2.0 * np.asarray(principal, np.float32)


def upright(region: Float[Array, "*b 4"], image_size: Float[Array, "*b 2"]) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """The camera turned about its optical axis until a region stands upright in its picture.

    Nothing but that turn has to be undone: a pinhole's pixels turn about the principal point when it turns about its axis.

    Args:
      region: a turned square: centre x, y and side in px, and the angle in radians by which it leans clockwise.
      image_size: width, height in px.

    Returns:
      the rotation from the turned camera's axes to the camera's, and the region as a crop in the turned picture: cx, cy, side, px.
    """
    cos, sin, zero = jnp.cos(region[..., 3]), jnp.sin(region[..., 3]), jnp.zeros(region.shape[:-1])
    rows = [jnp.stack(row, -1) for row in ((cos, -sin, zero), (sin, cos, zero), (zero, zero, zero + 1.0))]
    turn, centre = jnp.stack(rows, -2), image_size / 2.0
    middle = jnp.einsum("...i,...ij->...j", region[..., :2] - centre, turn[..., :2, :2]) + centre
    return turn, jnp.concatenate([middle, region[..., 2:3]], -1)


def default_focal(width: int, height: int) -> float:
    """Focal length in px assumed when a photo says nothing: the image's diagonal (CLIFF's choice; 53 degrees over the diagonal)."""
    return float(np.hypot(width, height))


def focal_from_fov(fov: float, width: int, height: int) -> float:
    """Focal length in px from the field of view in degrees over the longer side."""
    return float(max(width, height) / 2.0 / np.tan(np.radians(fov) / 2.0))


def crop_around(points: Float[Array, "*b K 2"], weights: Float[Array, "*b K"], margin: float = 1.25) -> Float[Array, "*b 3"]:
    """The square crop (..., 3) = cx, cy, side (px) around the points with positive weight; side = margin x the longer extent."""
    seen = (weights > 0)[..., None]
    low = jnp.min(jnp.where(seen, points, jnp.inf), -2)
    high = jnp.max(jnp.where(seen, points, -jnp.inf), -2)
    found = jnp.any(seen, -2)
    low, high = jnp.where(found, low, 0.0), jnp.where(found, high, 1.0)
    side = margin * jnp.maximum(jnp.max(high - low, -1), 1.0)
    return jnp.concatenate([(low + high) / 2.0, side[..., None]], -1)


def square_around(box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3"]:
    """Centre and side (px) of the crop of a box (xyxy).

    A box wider than 3 : 4 fits into the middle 3/4 of the square, all that a ViT sees (as in HMR2). Margins are in the releases' boxes.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(height, width * 4 / 3)])
