"""The training of NeurIK on stored motions with known angles."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.systems.biopose import calibration, model, objective, validation
from genhmr_jax.systems.biopose.labels import AngleClips, load_labels
from genhmr_jax.systems.biopose.samples import (
    AngleRows,
    AngleSource,
    NoiseSpec,
    Sample,
    SampleMaker,
    batch_shapes,
)
from genhmr_jax.systems.biopose.skeleton import marker_body, skeleton_of
from genhmr_jax.systems.biopose.spec import NeurIkSpec
from genhmr_jax.systems.biopose.system import KIND, NeurIkSystem
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place, Task, take_over
from genhmr_jax.train.validation import means


class NeurIkTask(Task):
    """L1 of angles, scales, markers, joints and velocities, and the likelihood of the errors.

    Args:
      config: of stage "neurik".
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = NeurIkSpec.from_dict(config.model.to_dict())
        body = load_body(config.data.body)
        self.frozen = {"body": marker_body(body), "skeleton": skeleton_of(body, np.zeros(10))}

    def _maker(self, frozen: Any) -> SampleMaker:
        noise = NoiseSpec(**self.config.data.noise.to_dict())
        return SampleMaker(self.spec, noise, frozen["body"], frozen["skeleton"])

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(model.NeurIk(self.spec, rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(state), {}

    def warm_start(self, params: Any) -> Any:
        return take_over(self.config.init, params, KIND)

    @functools.cached_property
    def _clips(self) -> AngleClips:
        clips = load_labels(self.config.data.angles)
        for split in ("train", "val"):
            if not len(clips.of(split)):
                problem = f"has no clips of the split {split!r}"
                remedy = "write it from a corpus of both with `genhmr data angles`"
                raise InputError(self.config.data.angles, problem, remedy)
        return clips

    def sources(self) -> dict[str, Any]:
        config = self.config
        return {"clips": AngleSource(self._clips, self.spec, config.batch_size, config.seed)}

    def batch_shapes(self) -> dict[str, Any]:
        return {"clips": batch_shapes(self.spec, self.config.batch_size)}

    def prepare(self, frozen: Any, batch: dict[str, AngleRows]) -> Sample:
        base = stream(self.config.seed, "augmentation")
        return self._maker(frozen).training(batch["clips"], base)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Sample
    ) -> tuple[jax.Array, dict[str, Any]]:
        answer = model.network(self.spec, params)(sample.frames)
        rows, _ = objective.row_terms(frozen["skeleton"], answer, sample)
        terms = {name: jnp.sum(sample.weight * value) for name, value in rows.items()}
        total = sum(self.config.loss[name] * value for name, value in terms.items())
        metrics = {"angle_deg": jnp.degrees(terms["angle"])}
        return total, {"terms": terms, "metrics": metrics, "carry": {}}

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Errors of windows of validation clips, from true markers and with 10 mm of noise."""
        measured = {}
        for name, samples in self._validation(frozen, place).items():
            sums = [place.host(self._measure(params, frozen, sample)) for sample in samples]
            measured |= {f"{name}_{error}": value for error, value in means(sums).items()}
        return measured

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, frozen: Any, sample: Sample) -> dict[str, jax.Array]:
            answer = model.network(self.spec, params)(sample.frames)
            terms, errors = objective.row_terms(frozen["skeleton"], answer, sample)
            return validation.sums(terms, errors, sample)

        return measure

    def _validation(self, frozen: Any, place: Place) -> dict[str, list[Sample]]:
        make = functools.partial(jax.jit, static_argnames="noise")(
            lambda frozen, rows, noise: validation.sample(self._maker(frozen), rows, noise)
        )
        rows = validation.rows(self._clips, self.spec, self.config.evaluate_windows)
        size = self.config.batch_size
        starts = range(0, len(rows.count), size)
        parts = [AngleRows(*(x[first : first + size] for x in rows)) for first in starts]
        noises = {"val": 0.0, "val_noise": validation.NOISE}
        return {
            name: [make(frozen, place(part), noise) for part in parts]
            for name, noise in noises.items()
        }

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
        floats = jax.tree.map(lambda x: x.astype(jnp.float32), halves)
        system, line = NeurIkSystem(self.spec), calibration.reading_calibration(self._clips)
        arrays = {
            KIND: halves,
            "reading": {name: np.asarray(value, np.float32) for name, value in vars(line).items()},
            "bands": {"factor": calibration.band_factors(system, {KIND: floats}, self._clips)},
        }
        save_params(directory, arrays, meta)


def make_task(config: ml_collections.ConfigDict) -> NeurIkTask:
    """The task of a config."""
    return NeurIkTask(config)


def abstract_task(config: ml_collections.ConfigDict, *_: ml_collections.ConfigDict) -> NeurIkTask:
    """The same: NeurIK is trained over no other model."""
    return NeurIkTask(config)
