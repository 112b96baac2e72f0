"""The silhouette term of the refinement: a body's surface must fill the mask of the person.

`targets` prepares the masks of a photo once, on the host: points of the outline, and the distance
of every cell of the crop from the person. `gaps` compares a body with them, on the device.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genhmr_jax.detect.detections import Detections
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE

POINTS = 128  # outline points of a person
CELLS = 64  # of the grid of distances, on each side of the crop
LEVEL = 0.5  # of a mask at its outline
FEW_POINTS = 16  # an outline with fewer points is ignored
NEAR = 0.03  # crop sides: the largest distance from the mask of a keypoint that agrees with it
DOUBTED, TRUSTED = 0.6, 0.9  # shares of agreeing keypoints for the trust 0 and the trust 1
# Crop sides: about the distance of an outline point on the edge of the body to the nearest of 500
# surface points.
SPACING = 0.005


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Silhouette:
    """The targets of the silhouette term for B people.

    Attributes:
      outline: (B, POINTS, 2) px.
      outside: (B, CELLS, CELLS) distance of the crop's cells from the person, crop sides; 0 inside,
        and beyond the image or the mask.
      trust: (B,) 0..1, from the share of keypoints that are on the mask.
    """

    outline: Float[Array, "B N 2"]
    outside: Float[Array, "B G G"]
    trust: Float[Array, "B"]


def targets(
    people: Detections, crops: Float[np.ndarray, "P 3"], width: int, height: int
) -> Silhouette:
    """The silhouettes of detected people, NumPy.

    Args:
      people: masks, and keypoints in px; those below MIN_CONFIDENCE do not affect the trust.
      crops: centre and side, px.
      width, height: of the image, px.
    """
    size = np.array([width, height])
    rows = zip(people.masks, people.mask_frames, people.keypoints, crops, strict=True)
    found = [_target(*row, size) for row in rows]
    column = lambda i, shape: np.array([t[i] for t in found], np.float32).reshape(-1, *shape)
    return Silhouette(column(0, (POINTS, 2)), column(1, (CELLS, CELLS)), column(2, ()))


class Gaps(NamedTuple):
    """Distances between a body's surface and a mask, crop sides, with their derivatives.

    Attributes:
      cover: (B, N) of each outline point from the nearest surface point, in excess of SPACING.
      nearest: (B, N) index of that surface point.
      cover_by: (B, N, 2) derivative of `cover` by its location, in crop sides.
      outside: (B, V) of each surface point from the mask (0 inside; interpolated).
      outside_by: (B, V, 2) derivative of `outside` by its location.
    """

    cover: Float[Array, "B N"]
    nearest: Int[Array, "B N"]
    cover_by: Float[Array, "B N 2"]
    outside: Float[Array, "B V"]
    outside_by: Float[Array, "B V 2"]


def gaps(surface: Float[Array, "B V 2"], view: CropCamera, silhouette: Silhouette) -> Gaps:
    """Distances between a body's surface and the mask.

    Args:
      surface: px of points all over the body.
      view: its crop is the unit of length.
      silhouette: of `targets`.
    """
    side, middle = view.crop[:, 2:, None], view.crop[:, None, :2]
    v, c = (surface - middle) / side, (silhouette.outline - middle) / side
    # 1. The nearest surface point of each outline point, without gradient: the first one at the
    # least distance. XLA's argmin is seven times slower on a CPU.
    fixed, index = jax.lax.stop_gradient(v)[:, :, None], np.arange(v.shape[1])[:, None]
    squared = (fixed[..., 0] - c[:, None, :, 0]) ** 2 + (fixed[..., 1] - c[:, None, :, 1]) ** 2
    at_least = squared <= jnp.min(squared, 1, keepdims=True)
    nearest = jnp.min(jnp.where(at_least, index, len(index) - 1), 1)
    gap = jnp.take_along_axis(v, nearest[..., None], 1) - c
    distance = jnp.sqrt(jnp.sum(gap**2, -1) + 1e-12)
    cover_by = jnp.where((distance > SPACING)[..., None], gap / distance[..., None], 0.0)
    # 2. The distance of a surface point, between the centres of four cells.
    cells = silhouette.outside.shape[-1]
    at = (v + 0.5) * cells - 0.5
    within = (at > 0) & (at < cells - 1)
    at = jnp.clip(at, 0, cells - 1)
    low = jnp.minimum(jax.lax.stop_gradient(at).astype(jnp.int32), cells - 2)
    x, y = jnp.moveaxis(at - low, -1, 0)
    corners = (low[..., 1] * cells + low[..., 0])[..., None] + np.array([0, 1, cells, cells + 1])
    grid = silhouette.outside.reshape(-1, cells * cells, 1)
    corners = jnp.take_along_axis(grid, corners.reshape(len(corners), -1, 1), 1)
    a, b, c, d = jnp.moveaxis(corners.reshape(*x.shape, 4), -1, 0)
    across, along = b - a + y * (d - c - b + a), c - a + x * (d - c - b + a)
    outside = a + x * (b - a) + y * along
    outside_by = jnp.where(within, cells * jnp.stack([across, along], -1), 0.0)
    return Gaps(jax.nn.relu(distance - SPACING), nearest, cover_by, outside, outside_by)


def _target(
    mask: np.ndarray, frame: np.ndarray, keypoints: np.ndarray, crop: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Outline, distances and trust of one person; zeros if the mask is empty."""
    # 1. The outline, without the border of the picture, where a person may be cut off.
    points = crossings(mask) @ frame[:, :2].T + frame[:, 2]
    cell = np.linalg.norm(frame[:, :2], axis=0).max() / len(mask)
    points = points[((points > cell) & (points < size - cell)).all(-1)]
    if len(points) < FEW_POINTS:
        return np.zeros((POINTS, 2)), np.zeros((CELLS, CELLS)), 0.0
    thinned = lambda count: points[np.linspace(0, len(points) - 1, count).round().astype(int)]
    dense, outline = thinned(4 * POINTS), thinned(POINTS)
    # 2. The distances of the crop's cells.
    grid = np.stack(np.meshgrid(*[np.arange(CELLS)] * 2), -1)
    centres = crop[:2] + crop[2] * ((grid + 0.5) / CELLS - 0.5)
    outside = _distance(centres.reshape(-1, 2), dense, mask, frame, size) / crop[2]
    # 3. The trust: the share of confidence at keypoints on the mask or close to it.
    known = keypoints[keypoints[:, 2] >= MIN_CONFIDENCE]
    agree = _distance(known[:, :2], dense, mask, frame, size) <= NEAR * crop[2]
    share = float(agree @ known[:, 2] / max(known[:, 2].sum(), 1e-6))
    trust = float(np.clip((share - DOUBTED) / (TRUSTED - DOUBTED), 0, 1))
    return outline, outside.reshape(CELLS, CELLS), trust


def _distance(
    points: np.ndarray, outline: np.ndarray, mask: np.ndarray, frame: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Distance, px, of points (N, 2) px from the person.

    It is 0 on the person, beyond the image and beyond the mask.
    """
    cells = len(mask) * (np.linalg.solve(frame[:, :2], (points - frame[:, 2]).T).T)
    in_mask, in_image = (cells >= 0) & (cells < len(mask)), (points >= 0) & (points <= size)
    column, row = np.clip(cells.astype(int), 0, len(mask) - 1).T
    off = in_mask.all(-1) & in_image.all(-1) & (mask[row, column] < LEVEL)
    distance = np.zeros(len(points))
    if off.any():
        squared = (points[off] ** 2).sum(-1)[:, None] + (outline**2).sum(-1)
        squared = squared - 2 * points[off] @ outline.T
        distance[off] = np.sqrt(np.maximum(squared.min(-1, initial=np.inf), 0.0))
    return distance


def crossings(mask: Float[np.ndarray, "M M"]) -> Float[np.ndarray, "N 2"]:
    """Points (u, v) in 0..1 at which the mask crosses LEVEL, from the top down.

    They are between the centres of neighbouring cells, by linear interpolation.
    """
    found = []
    for grid, order in ((mask, [0, 1]), (mask.T, [1, 0])):
        row, column = np.nonzero((grid[:, 1:] >= LEVEL) != (grid[:, :-1] >= LEVEL))
        left, right = grid[row, column], grid[row, column + 1]
        along = column + (LEVEL - left) / (right - left) + 0.5
        found.append(np.stack([along, row + 0.5], -1)[:, order])
    points = np.concatenate(found) / len(mask)
    return points[np.argsort(points[:, 1], kind="stable")]
