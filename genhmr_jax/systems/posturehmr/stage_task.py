"""What the trainings of both stages share: the coarse body, the rows, and the sum of the terms."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems.posturehmr import coarse_body
from genhmr_jax.systems.posturehmr.samples import Sample, Samples
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec
from genhmr_jax.train.task import Task, take_over


class StageTask(Task):
    """A training on samples of the coarse body, `frozen["coarse"]`.

    Args:
      config: of the stage.
      mesh2d: the sizes of the first stage.

    Raises:
      InputError: a body without such a coarse mesh, or photos in place of stored rows.
    """

    part: ClassVar[str]
    """The name of the trained parameters in the exported model."""

    def __init__(self, config: ml_collections.ConfigDict, mesh2d: Mesh2dSpec):
        self.config = config
        self.samples = Samples(config, mesh2d.used_encoder or "none")
        try:
            coarse = coarse_body.make(load_body(config.data.body), mesh2d)
        except ValueError as error:
            where = f"--config.data.body={config.data.body}"
            raise InputError(where, str(error), "give an SMPL body, or neutral") from error
        self.frozen = {"coarse": coarse}

    def warm_start(self, params: Any) -> Any:
        return take_over(self.config.init, params, self.part)

    def sources(self) -> dict[str, Any]:
        return self.samples.sources()

    def batch_shapes(self) -> dict[str, Any]:
        return self.samples.batch_shapes()

    def prepare(self, frozen: Any, batch: dict[str, Any]) -> dict[str, Sample]:
        return self.samples.prepare(frozen["coarse"], batch)

    @abc.abstractmethod
    def row_terms(self, params: Any, frozen: Any, sample: Sample) -> dict[str, Float[Array, "B"]]:
        """The terms of each row of a part of a batch, by their names in `config.loss`."""

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: dict[str, Sample]
    ) -> tuple[jax.Array, dict[str, Any]]:
        total, terms = jnp.zeros(()), {}
        for group, part in sample.items():
            for name, value in self.row_terms(params, frozen, part).items():
                terms[f"{group}_{name}"] = jnp.sum(part.weight * value)
                total = total + self.config.loss[name] * terms[f"{group}_{name}"]
        return total, {"terms": terms, "metrics": {}, "carry": {}}
