"""Stage 2: training the image-conditioned masked transformer over the frozen tokenizer.

samples.py makes training samples of a batch, objective.py is their loss, validation.py measures.
"""

import copy
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.data import poses, turns, views
from genhmr_jax.data.image_rows import (
    ImageRows,
    view_and_image_shapes,
    view_and_image_sources,
)
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.io.errors import EXPORT_AGAIN, InputError, blamed_on
from genhmr_jax.io.model_folder import load_meta, load_params, save_params
from genhmr_jax.nets.vit import VitSpec
from genhmr_jax.systems.genhmr import validation
from genhmr_jax.systems.genhmr.model import GenHmr
from genhmr_jax.systems.genhmr.objective import Objective
from genhmr_jax.systems.genhmr.samples import Sample, SampleMaker
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import KIND, GenHmrSystem
from genhmr_jax.train.optim import frozen_layers
from genhmr_jax.train.task import Place, Task, take_over

TOKENIZER = ("tokenizer", "codebook")


class GenHmrTask(Task):
    """Cross-entropy of the masked tokens, and losses of the body that they decode to.

    Args:
      config: of stage "genhmr".
      tokenizer: of the frozen tokenizer.
      arrays: {"tokenizer", "codebook": {"vectors"}}; without them the task can be compiled but not
        run.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        tokenizer: TokenizerSpec,
        arrays: dict[str, Any] | None = None,
    ):
        self.config = config
        values = config.model.to_dict() | {"tokenizer": dataclasses.asdict(tokenizer)}
        self.spec = spec = GenHmrSpec.from_dict(values)
        frozen = 0
        if spec.trains_encoder:
            frozen = frozen_layers(config, VitSpec.named(spec.encoder).depth)
        system = GenHmrSystem(spec, config.remat)
        self.system = dataclasses.replace(system, frozen_layers=frozen)
        arrays = arrays or {name: system.shapes[name] for name in TOKENIZER}
        self.frozen = arrays | {"body": keypoint_model(load_body(config.data.body))}
        self.images = ImageRows(config, spec.encoder if spec.encoder_channels else "none")

    @property
    def _maker(self) -> SampleMaker:
        config = self.config
        return SampleMaker(
            config,
            self.system,
            bool(self.images.size) and self.images.are_photos,
            views.ViewSpec(**config.data.view.to_dict()),
            turns.TurnSpec(**config.data.turn.to_dict()),
        )

    @property
    def objective(self) -> Objective:
        """The loss."""
        return Objective(self.config, self.system)

    def without_remat(self) -> "GenHmrTask":
        task = copy.copy(self)
        task.system = dataclasses.replace(self.system, remat="none")
        return task

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(GenHmr(self.spec, rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(state), {}

    def warm_start(self, params: Any) -> Any:
        return take_over(self.config.init, params, "genhmr")

    @functools.cached_property
    def _validation_poses(self) -> poses.PoseCorpus | None:
        config = self.config
        return poses.load_corpus(config.data.poses, "val") if config.batch_size else None

    def sources(self) -> dict[str, Any]:
        _ = self._validation_poses  # a run with missing data stops at its start
        return view_and_image_sources(self.config, self.images)

    def batch_shapes(self) -> dict[str, Any]:
        return view_and_image_shapes(self.config, self.images)

    def prepare(self, frozen: Any, batch: dict[str, Any]) -> dict[str, Sample]:
        return self._maker.prepare(frozen, batch)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: dict[str, Sample]
    ) -> tuple[jax.Array, dict[str, Any]]:
        return self.objective.loss(params, frozen, sample)

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """See validation.evaluate; groups without rows are left out."""
        maker, groups = self._maker, {}
        # A model without keypoints has nothing to go by in a simulated view.
        if self._validation_poses is not None and self.spec.num_keypoints:
            of_views = (self._validation_poses, frozen["body"], place)
            groups["val"] = validation.validation_views(maker, *of_views)
        groups |= validation.validation_images(maker, self.images, place)
        plain = self.without_remat().system  # validation needs no gradients
        return validation.evaluate(plain, params, frozen, groups, place)

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        meta = {
            "kind": KIND,
            "spec": dataclasses.asdict(self.spec),
            "measured": measured,
            "body": self.config.data.body,
        }
        # Half the size; bfloat16's few mantissa bits also compress. The decoder returns poses: it
        # keeps more bits.
        cast = lambda tree, dtype: jax.tree.map(lambda x: x.astype(dtype), tree)
        halves = self.frozen["tokenizer"]
        tokenizer = {
            "encoder": cast(halves["encoder"], jnp.bfloat16),
            "decoder": cast(halves["decoder"], jnp.float16),
        }
        arrays = {
            "genhmr": cast(params, jnp.bfloat16),
            "tokenizer": tokenizer,
            "codebook": self.frozen["codebook"],
        }
        save_params(directory, arrays, meta)


def make_task(config: ml_collections.ConfigDict) -> GenHmrTask:
    """The task over the trained tokenizer in the folder `config.tokenizer`.

    The folder is a model of stage 1, or one of stage 2, which has its own tokenizer.

    Raises:
      InputError: another kind of model.
    """
    meta = load_meta(config.tokenizer)
    if meta.get("kind") == KIND:
        with blamed_on(config.tokenizer, EXPORT_AGAIN):
            system = GenHmrSystem(GenHmrSpec.from_dict(meta["spec"]))
        spec, shapes = system.spec.tokenizer, system.shapes
    elif "tokenizer" in meta:
        with blamed_on(config.tokenizer, EXPORT_AGAIN):
            spec = TokenizerSpec.from_dict(meta["tokenizer"])
        frozen = GenHmrTask(config, spec).frozen
        shapes = {name: frozen[name] for name in TOKENIZER}
    else:
        remedy = "give the model folder of stage 1 with --config.tokenizer=DIR"
        raise InputError(config.tokenizer, "holds no tokenizer", remedy)
    arrays = load_params(config.tokenizer, shapes)
    return GenHmrTask(config, spec, {name: arrays[name] for name in TOKENIZER})


def abstract_task(
    config: ml_collections.ConfigDict,
    tokenizer: ml_collections.ConfigDict,
    *_: ml_collections.ConfigDict,
) -> GenHmrTask:
    """The task with shapes in place of a trained tokenizer, over the tokenizer of its config."""
    with blamed_on("--first-stage", "choose values that fit"):
        spec = TokenizerSpec(**tokenizer.model.to_dict())
    return GenHmrTask(config, spec)
