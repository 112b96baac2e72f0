"""The training of the first stage: points and 2D meshes (stage "mesh2d")."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.render.soft import hard_silhouette, soft_silhouette, trimap_band, trimap_loss
from genhmr_jax.systems.posturehmr import coarse_body, objective
from genhmr_jax.systems.posturehmr.coarse_body import CoarseBody
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2d, Mesh2dEstimate
from genhmr_jax.systems.posturehmr.reverse import estimate_mesh2d
from genhmr_jax.systems.posturehmr.samples import Sample, Samples, Truth2d, truth2d
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec
from genhmr_jax.systems.posturehmr.validation import groups_of
from genhmr_jax.train.task import Place, Task, take_over
from genhmr_jax.train.validation import ROWS, means

KIND = "mesh2d"


def spec_of(config: ml_collections.ConfigDict) -> Mesh2dSpec:
    """The sizes in `config.model`.

    Raises:
      InputError: from io/config_files, for an encoder that does not fit.
    """
    return Mesh2dSpec.from_dict(config.model.to_dict())


class Mesh2dTask(Task):
    """Distances of points and vertices, and the silhouette of the 2D mesh.

    Args:
      config: of stage "mesh2d".
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = spec_of(config)
        encoder = self.spec.encoder if self.spec.encoder_channels else "none"
        self.samples = Samples(config, encoder)
        self.frozen = {"coarse": coarse_body.make(load_body(config.data.body), self.spec)}
        self._first_matrix = coarse_body.mesh_from_points(self.frozen["coarse"])

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """New parameters; the matrix from points to vertices starts from a least-squares fit."""
        params = nnx.to_pure_dict(nnx.split(Mesh2d(self.spec, rngs=nnx.Rngs(key)))[1])
        return params | {"matrix": self._first_matrix}, {}

    def warm_start(self, params: Any) -> Any:
        return take_over(self.config.init, params)

    def sources(self) -> dict[str, Any]:
        return self.samples.sources()

    def batch_shapes(self) -> dict[str, Any]:
        return self.samples.batch_shapes()

    def prepare(self, frozen: Any, batch: dict[str, Any]) -> dict[str, Sample]:
        return self.samples.prepare(frozen["coarse"], batch)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: dict[str, Sample]
    ) -> tuple[jax.Array, dict[str, Any]]:
        coarse, weights = frozen["coarse"], self.config.loss
        total, terms = jnp.zeros(()), {}
        for group, part in sample.items():
            estimate, truth = estimate_mesh2d(self.spec, params, part.inputs), truth2d(coarse, part)
            found = objective.mesh2d_terms(estimate, truth.points, truth.vertices)
            if weights.silhouette:
                found["silhouette"] = self._silhouette(coarse, estimate, truth)
            for name, value in found.items():
                terms[f"{group}_{name}"] = jnp.sum(part.weight * value)
                total = total + weights[name] * terms[f"{group}_{name}"]
        return total, {"terms": terms, "metrics": {}, "carry": {}}

    def _silhouette(
        self, coarse: CoarseBody, estimate: Mesh2dEstimate, truth: Truth2d
    ) -> jax.Array:
        """The trimap loss of each row."""
        size = self.config.silhouette.size
        predicted = soft_silhouette(estimate.vertices, coarse.faces, size)
        mask = hard_silhouette(truth.vertices, coarse.faces, size)
        return trimap_loss(predicted, mask, trimap_band(mask, self.config.silhouette.band))

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, frozen: Any, sample: Sample) -> dict[str, jax.Array]:
            estimate = estimate_mesh2d(self.spec, params, sample.inputs)
            truth = truth2d(frozen["coarse"], sample)
            mean = lambda gap: jnp.sum(sample.weight * jnp.mean(jnp.linalg.norm(gap, axis=-1), -1))
            return {
                "points_percent": 50 * mean(estimate.points - truth.points),
                "mesh_percent": 50 * mean(estimate.vertices - truth.vertices),
                "fit_of_true_points_percent": 50 * mean(self._mesh_of(params, truth)),
                ROWS: jnp.sum(sample.weight),
            }

        return measure

    def _mesh_of(self, params: Any, truth: Truth2d) -> jax.Array:
        """The error of the mesh of the true points."""
        return params["matrix"] @ truth.points - truth.vertices

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Mean distances of points and vertices in % of the crop's side."""
        measured = {}
        for name, group in groups_of(self.samples, frozen["coarse"], place).items():
            sums = [place.host(self._measure(params, frozen, sample)) for sample in group]
            measured |= {f"{name}_{what}": value for what, value in means(sums).items()}
        return measured

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        meta = {
            "kind": KIND,
            "spec": dataclasses.asdict(self.spec),
            "measured": measured,
            "body": self.config.data.body,
        }
        halves = jax.tree.map(lambda x: x.astype(jnp.float16), params)
        save_params(directory, {"mesh2d": halves}, meta)


def make_task(config: ml_collections.ConfigDict) -> Mesh2dTask:
    """The task of a config."""
    return Mesh2dTask(config)


def abstract_task(config: ml_collections.ConfigDict, *_: ml_collections.ConfigDict) -> Mesh2dTask:
    """The same: nothing trained is needed."""
    return Mesh2dTask(config)
