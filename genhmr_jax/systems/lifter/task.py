"""The stage of the lifter of bodies, on detections of rendered people (detect/lifter_net.py)."""

import pathlib
from typing import Any

import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.data import lifter_rows
from genhmr_jax.data.lifter_rows import LifterRows, LifterSet
from genhmr_jax.data.views import HIPS
from genhmr_jax.detect import lifter_net
from genhmr_jax.detect.blazepose import SIZE, from_landmarks
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.systems.lifter.lifting import LiftingTask, Points


class LifterTask(LiftingTask[LifterRows]):
    """See LiftingTask. The root is mid-hip."""

    kind, form, detector = "lifter", lifter_net.BODY, "blazepose"

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        self.frozen |= {"body": keypoint_model(load_body(config.data.body))}

    def rows_of(self, folder: pathlib.Path) -> LifterSet:
        return LifterSet(folder)

    def batch_of(self, size: int) -> LifterRows:
        return lifter_rows.shapes(size)

    def truth(self, frozen: Any, rows: LifterRows) -> Points:
        return _truth(frozen["body"], rows)

    def detected(self, rows: LifterRows) -> Points:
        named = jnp.asarray(from_landmarks(DETECTED), jnp.float32)
        return named @ (rows.heat[..., :2] / SIZE - 0.5), named @ rows.world

    def lifted(
        self, head: Any, trunk: dict[str, Array], rows: LifterRows, keys: Array | None
    ) -> tuple:
        inputs = rows.landmarks, rows.world, rows.heat, rows.early.astype(jnp.float32)
        return lifter_net.lift(self.spec, head, trunk, *inputs, keys)


def make_task(config: ml_collections.ConfigDict) -> LifterTask:
    """The task of a config."""
    return LifterTask(config)


def abstract_task(config: ml_collections.ConfigDict, *_: ml_collections.ConfigDict) -> LifterTask:
    """The same: the lifter is trained over no other model."""
    return LifterTask(config)


def _truth(
    body: smpl_jax.SmplModel, rows: LifterRows
) -> tuple[Float[Array, "B 23 2"], Float[Array, "B 23 3"]]:
    """True keypoints in 2D and 3D, in the form of the lifter's outputs."""
    output = smpl_jax.forward(body, rows.betas, rows.rotmats)
    points = keypoint_points(body, output, DETECTED)
    points = points - jnp.mean(points[:, jnp.array(HIPS)], 1, keepdims=True)
    x, y, side, angle = (rows.region[:, i, None] for i in range(4))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # From the axes of the image to those of the region.
    turn = lambda p, q: (cos * p + sin * q, cos * q - sin * p)
    flat = turn((rows.points2d[..., 0] - x) / side, (rows.points2d[..., 1] - y) / side)
    solid = (*turn(points[..., 0], points[..., 1]), points[..., 2])
    return jnp.stack(flat, -1), jnp.stack(solid, -1)
