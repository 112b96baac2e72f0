"""The stage of the lifter (models/lifter.py): supervised on looks at rendered people."""

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

from genhmr_jax.data.image_rows import ImageRows
from genhmr_jax.data.views import HIPS
from genhmr_jax.detect.blazepose import EVIDENCE, SIZE, from_landmarks
from genhmr_jax.detect.lifter_net import Lifter, LifterSpec
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.geometry.metrics import mpjpe, pa_mpjpe
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.train.random_streams import stream

FAR = 0.2  # sides of the region: a keypoint that is farther off counts as if it were this far


class LifterTask:
    """L1 of the keypoints in 2D (sides of the region) and in 3D (metres)."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = LifterSpec(**config.model.to_dict())
        self.graph, _ = nnx.split(nnx.eval_shape(lambda: Lifter(self.spec, rngs=nnx.Rngs(0))))
        self.frozen = {"body": keypoint_model(load_body(config.data.body))}
        self.images = ImageRows(config, "look")

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """New parameters, whose first answer is BlazePose's own."""
        _, state = nnx.split(Lifter(self.spec, rngs=nnx.Rngs(key)))
        params = nnx.to_pure_dict(state)
        params["mlp"]["out"]["kernel"] = 0.01 * params["mlp"]["out"]["kernel"]
        return params, {}

    def warm_start(self, params: Any) -> Any:
        return params

    def without_remat(self) -> "LifterTask":
        return self

    def sources(self) -> dict[str, Any]:
        return {"images": self.images.source()}

    def batch_shapes(self) -> dict[str, Any]:
        return {"images": self.images.shapes()}

    def prepare(self, frozen: Any, batch: Any) -> dict[str, jax.Array]:
        rows = batch["images"]
        base, size = stream(self.config.seed, "augmentation"), rows["number"].shape[0]
        keys = jax.vmap(lambda number: jax.random.fold_in(base, number))(rows["number"])
        return _evidence(rows) | self._truth(frozen, rows) | {"keys": keys, "weight": jnp.full(size, 1.0 / size)}

    def _truth(self, frozen: Any, rows: dict[str, Array]) -> dict[str, Array]:
        """points2d (B, 23, 2) and points3d (B, 23, 3) as the lifter shall find them."""
        output = smpl_jax.forward(frozen["body"], rows["betas"], rows["rotmats"])
        points = keypoint_points(frozen["body"], output, DETECTED)
        points = points - jnp.mean(points[:, jnp.array(HIPS)], 1, keepdims=True)
        x, y, side, angle = (rows["look_region"][:, i, None] for i in range(4))
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        turn = lambda p, q: (cos * p + sin * q, cos * q - sin * p)  # noqa: E731  the image's axes -> the region's
        flat = turn((rows["points2d"][..., 0] - x) / side, (rows["points2d"][..., 1] - y) / side)
        return {"points2d": jnp.stack(flat, -1), "points3d": jnp.stack([*turn(points[..., 0], points[..., 1]), points[..., 2]], -1)}

    def loss(self, params: Any, extra: Any, frozen: Any, sample: Any) -> tuple[jax.Array, dict[str, Any]]:
        model, weight = nnx.merge(self.graph, params), sample["weight"]
        points2d, points3d = model(*(sample[name] for name in EVIDENCE), sample["keys"])
        terms = {
            "points2d": jnp.sum(weight * jnp.mean(jnp.minimum(jnp.abs(points2d - sample["points2d"]), FAR), (1, 2))),
            "points3d": jnp.sum(weight * jnp.mean(jnp.abs(points3d - sample["points3d"]), (1, 2))),
        }
        return sum(self.config.loss[name] * value for name, value in terms.items()), {"terms": terms, "metrics": {}, "carry": {}}

    def next_extra(self, extra: Any, carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        return extra, {}

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, frozen: Any, rows: dict[str, Array]) -> dict[str, jax.Array]:
            seen, truth = _evidence(rows), self._truth(frozen, rows)
            named = jnp.asarray(from_landmarks(DETECTED), jnp.float32)
            found = {
                "": nnx.merge(self.graph, params)(*seen.values()),
                "blazepose_": (named @ (seen["heat"][..., :2] / SIZE - 0.5), named @ seen["world"]),
            }
            sums = {"rows": jnp.sum(rows["weight"])}
            for name, (points2d, points3d) in found.items():
                errors = {
                    "mpjpe": 1000 * mpjpe(points3d, truth["points3d"]),
                    "pa_mpjpe": 1000 * pa_mpjpe(points3d, truth["points3d"]),
                    "keypoints2d": 100 * jnp.median(jnp.linalg.norm(points2d - truth["points2d"], axis=-1), -1),
                }
                sums |= {name + error: jnp.sum(rows["weight"] * value) for error, value in errors.items()}
            return sums

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Any) -> dict[str, float]:
        """Of the lifter and of BlazePose itself on validation looks: MPJPE and PA-MPJPE of the 23 keypoints in mm, and the mean of
        each person's median error in 2D, in % of the region's side."""
        batches = self.images.stored["val"].all_batches(self.images.size)
        sums = [place.host(self._measure(params, frozen, place(batch))) for batch in batches]
        total = {name: sum(float(s[name]) for s in sums) for name in sums[0]}
        return {f"val_{name}": value / total["rows"] for name, value in total.items() if name != "rows"}

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        meta = {"kind": "lifter", "spec": dataclasses.asdict(self.spec), "measured": measured}
        save_params(directory, {"lifter": jax.tree.map(lambda x: x.astype(jnp.float16), params)}, meta)


def _evidence(rows: dict[str, Array]) -> dict[str, Float[Array, "B *s"]]:
    return {name: rows[f"look_{name}"].astype(jnp.float32) for name in EVIDENCE}
