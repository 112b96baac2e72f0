"""The lifter's stage (detect/lifter_net.py): supervised on detections of rendered people."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.data import lifter_rows
from genhmr_jax.data.lifter_rows import LifterRows, LifterSet
from genhmr_jax.data.views import HIPS
from genhmr_jax.detect import lifter_trunk
from genhmr_jax.detect.blazepose import SIZE, from_landmarks
from genhmr_jax.detect.lifter import LifterSpec
from genhmr_jax.detect.lifter_net import LifterHead, lift
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place, Task
from genhmr_jax.train.validation import ROWS, means, pose_errors

MOST_2D = 0.2
"""Sides of the region at which the 2D error of a keypoint is clipped."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """B prepared rows.

    Attributes:
      rows: BlazePose's outputs.
      points2d: true keypoints in sides of the region from its middle, in its axes.
      points3d: metres from mid-hip, in the axes of the region.
      keys: (B,), for dropout.
      weight: of each row; they sum to 1.
    """

    rows: LifterRows
    points2d: Float[Array, "B 23 2"]
    points3d: Float[Array, "B 23 3"]
    keys: Array
    weight: Float[Array, "B"]


class LifterTask(Task):
    """L1 of the keypoints in 2D (sides of the region) and in 3D (metres)."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = LifterSpec(**config.model.to_dict())
        body = keypoint_model(load_body(config.data.body))
        self.frozen = {"body": body, "blazepose": lifter_trunk.blazepose_weights()}

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """New parameters, whose first answer is BlazePose's own."""
        _, state = nnx.split(LifterHead(self.spec, rngs=nnx.Rngs(key)))
        head = nnx.to_pure_dict(state)
        head["mlp"]["out"]["kernel"] = 0.01 * head["mlp"]["out"]["kernel"]
        shapes = lifter_trunk.change_shapes()
        return {"head": head, "trunk": jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)}, {}

    def stored(self, split: str) -> LifterSet:
        """The rows of "train" or "val". Raises InputError: there is no such finished set."""
        return LifterSet(pathlib.Path(self.config.data.images) / split)

    def sources(self) -> dict[str, Any]:
        _ = self.stored("val")  # a run with missing data stops at its start
        return {"images": self.stored("train").source(self._size, self.config.seed)}

    def batch_shapes(self) -> dict[str, Any]:
        return {"images": lifter_rows.shapes(self._size)}

    @property
    def _size(self) -> int:
        """Rows of a batch."""
        return self.config.image_batch_size

    def prepare(self, frozen: Any, batch: dict[str, LifterRows]) -> Sample:
        rows = batch["images"]
        base = stream(self.config.seed, "augmentation")
        keys = jax.vmap(lambda number: jax.random.fold_in(base, number))(rows.number)
        weight = jnp.full(rows.size, 1.0 / rows.size)
        return Sample(rows, *_truth(frozen["body"], rows), keys, weight)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Sample
    ) -> tuple[jax.Array, dict[str, Any]]:
        points2d, points3d, spread = self._lift(params, frozen, sample.rows, sample.keys)
        gap2d = jnp.minimum(jnp.abs(points2d - sample.points2d), MOST_2D)
        gap3d = jnp.abs(points3d - sample.points3d)
        # Minus the logarithm of Laplace's density, which the expected error minimises.
        error = jax.lax.stop_gradient(jnp.mean(gap2d, -1))
        density = error / spread + jnp.log(spread)
        terms = {
            "points2d": jnp.sum(sample.weight * jnp.mean(gap2d, (1, 2))),
            "points3d": jnp.sum(sample.weight * jnp.mean(gap3d, (1, 2))),
            "spread2d": jnp.sum(sample.weight * jnp.mean(density, 1)),
        }
        total = sum(self.config.loss[name] * value for name, value in terms.items())
        return total, {"terms": terms, "metrics": {}, "carry": {}}

    def _lift(self, params: Any, frozen: Any, rows: LifterRows, keys: Array | None = None) -> tuple:
        trunk = lifter_trunk.trunk_weights(frozen["blazepose"], params["trunk"])
        inputs = rows.landmarks, rows.world, rows.heat, rows.early.astype(jnp.float32)
        return lift(self.spec, params["head"], trunk, *inputs, keys)

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, frozen: Any, rows: LifterRows) -> dict[str, jax.Array]:
            true2d, true3d = _truth(frozen["body"], rows)
            named = jnp.asarray(from_landmarks(DETECTED), jnp.float32)
            blazepose2d = named @ (rows.heat[..., :2] / SIZE - 0.5)
            answers = {
                "": self._lift(params, frozen, rows)[:2],
                "blazepose_": (blazepose2d, named @ rows.world),
            }
            sums = {}
            for name, (points2d, points3d) in answers.items():
                gap2d = jnp.linalg.norm(points2d - true2d, axis=-1)
                errors = pose_errors(points3d, true3d, rows.weight)
                errors["keypoints2d"] = jnp.sum(rows.weight * 100 * jnp.median(gap2d, -1))
                sums[ROWS] = errors.pop(ROWS)
                sums |= {name + error: value for error, value in errors.items()}
            return sums

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Errors of the lifter, and of BlazePose itself, on validation rows.

        MPJPE and PA-MPJPE of the 23 keypoints in mm, and the mean of each person's median error in
        2D, in % of the region's side.
        """
        batches = self.stored("val").all_batches(self._size)
        sums = [place.host(self._measure(params, frozen, place(rows))) for rows in batches]
        return {f"val_{name}": value for name, value in means(sums).items()}

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        meta = {"kind": "lifter", "spec": dataclasses.asdict(self.spec), "measured": measured}
        halves = jax.tree.map(lambda x: x.astype(jnp.float16), params)
        save_params(directory, halves, meta)


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
