"""Stage 2 of MaskHand: training the masked transformer of hands over the frozen tokenizer."""

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import smpl_jax
from flax import nnx
from jaxtyping import Array, Int

from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.data import poses
from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.hands import stored
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.hand import hand_keypoint_model, hand_keypoints, load_hand
from genhmr_jax.io.errors import InputError, blamed_on
from genhmr_jax.io.model_folder import load_meta, load_params, save_params
from genhmr_jax.systems.maskhand import model
from genhmr_jax.systems.maskhand.objective import Objective, system_params
from genhmr_jax.systems.maskhand.samples import Sample, SampleMaker
from genhmr_jax.systems.maskhand.spec import MaskHandSpec, of_hands
from genhmr_jax.systems.maskhand.system import KIND, MaskHandSystem
from genhmr_jax.train.optim import frozen_layers
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place, Task, take_over
from genhmr_jax.train.validation import means, pose_errors

TOKENIZER = ("tokenizer", "codebook")
BACKBONE = "genhmr"
"""The part of the folders of `genhmr convert`, and of the other systems, that has an encoder."""
TOKENIZER_REMEDY = "give a model of configs/hand_tokenizer/cpu.py with --config.tokenizer=DIR"
ITERATIONS = (1, 3, 5)
"""Of sampling, in validation."""


class MaskHandTask(Task):
    """The training of MaskHand; systems/maskhand/objective.py has the loss.

    Args:
      config: of stage "maskhand".
      tokenizer: of the frozen tokenizer.
      arrays: {"tokenizer", "codebook": {"vectors"}}; without them the task can be compiled but not
        run.
      terms: of the weights from which the training starts; they go into the exported model.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        tokenizer: TokenizerSpec,
        arrays: dict[str, Any] | None = None,
        terms: tuple[str, ...] = (),
    ):
        self.config, self.terms = config, terms
        values = config.model.to_dict() | {"tokenizer": dataclasses.asdict(tokenizer)}
        self.spec = MaskHandSpec.from_dict(values)
        self._vit_layers, frozen = 0, 0
        if self.spec.trains_encoder:
            self._vit_layers = model.vit_of(self.spec).depth
            frozen = frozen_layers(config, self._vit_layers)
        self.system = MaskHandSystem(self.spec, config.remat, frozen)
        arrays = arrays or {name: self.system.shapes[name] for name in TOKENIZER}
        self.frozen = arrays | {"hand": hand_keypoint_model(load_hand(config.data.body))}

    def _maker(self, frozen: Any) -> SampleMaker:
        tokenizer = model.tokenizer(self.spec, frozen)
        of_tokenizer = self._vit_layers, tokenizer, frozen["codebook"]["vectors"]
        return SampleMaker(self.config, *of_tokenizer, self.spec.feedback, frozen["hand"])

    @property
    def objective(self) -> Objective:
        """The loss."""
        return Objective(self.config, self.system)

    def without_remat(self) -> "MaskHandTask":
        task = copy.copy(self)
        task.system = dataclasses.replace(self.system, remat="none")
        return task

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(model.MaskHand(self.spec, rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(state), {}

    def warm_start(self, params: Any) -> Any:
        """Start from models of hands, or from the backbones in other folders.

        Raises:
          InputError: a folder of another kind, and this model has no ViT.
        """
        for folder in filter(None, self.config.init.split(",")):
            kind = load_meta(folder).get("kind")
            if kind == KIND:
                params = take_over(folder, params, KIND)
            elif self.spec.trains_encoder:
                own = {"encoder": params["encoder"]}
                params = params | take_over(folder, own, BACKBONE)
            else:
                problem = f"is a {kind!r} model, but this model has no ViT to start from it"
                raise InputError(folder, problem, "give --config.model.encoder=vit_h")
        return params

    @functools.cached_property
    def _validation_poses(self) -> np.ndarray:
        return poses.load_corpus(self.config.data.poses, "val", joints=16).poses

    @functools.cached_property
    def _stored(self) -> dict[str, FeatureSet]:
        """The stored rows by split; {} without images."""
        if not self.config.image_batch_size:
            return {}
        folder = pathlib.Path(self.config.data.images)
        encoder = self.spec.encoder
        return {split: stored.open_stored(folder / split, encoder) for split in ("train", "val")}

    def sources(self) -> dict[str, Any]:
        config, found = self.config, {}
        if config.batch_size:
            _ = self._validation_poses  # a run with missing data stops at its start
            corpus = poses.load_corpus(config.data.poses, "train", joints=16)
            found["views"] = poses.PoseSource(corpus, config.batch_size, config.seed)
        if self._stored:
            found["images"] = self._stored["train"].source(config.image_batch_size, config.seed)
        return found

    def batch_shapes(self) -> dict[str, Any]:
        config, shapes = self.config, {}
        if config.batch_size:
            shapes["views"] = poses.batch_shapes(config.batch_size, joints=16)
        if config.image_batch_size:
            shapes["images"] = stored.batch_shapes(config.image_batch_size, self.spec.encoder)
        return shapes

    def prepare(self, frozen: Any, batch: dict[str, Any]) -> dict[str, Sample]:
        return self._maker(frozen).prepare(batch)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: dict[str, Sample]
    ) -> tuple[jax.Array, dict[str, Any]]:
        return self.objective.loss(params, frozen, sample)

    @functools.cached_property
    def _measure(self):
        task = self.without_remat()  # validation needs no gradients

        @functools.partial(jax.jit, static_argnames="iterations")
        def measure(params: Any, frozen: Any, sample: Sample, iterations: int) -> dict[str, Array]:
            everything, hand = system_params(params, frozen), frozen["hand"]
            encoded = task.objective.encoded(everything, sample)
            keys = jax.random.split(jax.random.key(0), sample.weight.shape[0])
            latents = task.system.sample(everything, hand, encoded, keys, iterations=iterations)
            rotmats = task.system.decoding(everything)(latents.embeddings)
            points = hand_keypoints(hand, smpl_jax.forward(hand, latents.betas, rotmats))
            return pose_errors(points - points[:, :1], sample.keypoints, sample.weight)

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """MPJPE (from the wrist) and PA-MPJPE of the 21 keypoints, by iterations of sampling.

        Of simulated views of validation poses ("val"), and of stored validation rows ("val_image").
        """
        sums: dict[tuple[str, int], list[Any]] = {}
        for group, sample in self.validation(frozen, place):
            for iterations in ITERATIONS:
                found = place.host(self._measure(params, frozen, sample, iterations))
                sums.setdefault((group, iterations), []).append(found)
        return {
            f"{group}_t{iterations}_{name}_mm": value
            for (group, iterations), found in sums.items()
            for name, value in means(found).items()
        }

    def validation(self, frozen: Any, place: Place) -> Iterator[tuple[str, Sample]]:
        """Samples with the names of their groups, one batch at a time.

        The weight of a row is 1, or 0 if it fills up a batch.
        """
        size, base = self.config.batch_size, stream(self.config.seed, "validation_views")

        @jax.jit
        def of_views(frozen: Any, batch: poses.PoseRows) -> Sample:
            maker = self._maker(frozen)
            rows = maker.views(batch.pose, batch.number, base)
            return _sample(maker, rows, batch.number)

        @jax.jit
        def of_images(frozen: Any, rows: Rows) -> Sample:
            return _sample(self._maker(frozen), rows, jnp.arange(rows.size))

        if size:
            corpus, count = self._validation_poses, -(-self.config.evaluate_poses // size)
            chosen = np.linspace(0, len(corpus) - 1, count * size).astype(np.uint32)
            for part in np.split(chosen, count):
                yield "val", of_views(frozen, place(poses.PoseRows(corpus[part], part)))
        if self._stored:
            for rows in self._stored["val"].all_batches(self.config.image_batch_size):
                yield "val_image", of_images(frozen, place(rows))

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        meta = {
            "kind": KIND,
            "spec": dataclasses.asdict(self.spec),
            "measured": measured,
            "body": self.config.data.body,
        }
        if self.terms:
            meta["terms"] = "; ".join(self.terms)
        cast = lambda tree, dtype: jax.tree.map(lambda x: x.astype(dtype), tree)
        arrays = {
            "maskhand": cast(params, jnp.bfloat16),
            "tokenizer": cast(self.frozen["tokenizer"], jnp.float16),
            "codebook": self.frozen["codebook"],
        }
        save_params(directory, arrays, meta)


def _sample(maker: SampleMaker, rows: Rows, numbers: Int[Array, "B"]) -> Sample:
    """A sample with the rows' own weights, or 1."""
    weight = jnp.ones(rows.size) if rows.weight is None else rows.weight
    keys = jax.vmap(jax.random.key)(numbers)
    return maker.sample(dataclasses.replace(rows, weight=None), keys, weight)


def make_task(config: ml_collections.ConfigDict) -> MaskHandTask:
    """The task over the trained tokenizer in the folder `config.tokenizer`.

    Raises:
      InputError: another kind of model, or a folder of `config.init` is no model.
    """
    meta = load_meta(config.tokenizer)
    if meta.get("kind") != "tokenizer":
        raise InputError(config.tokenizer, "holds no tokenizer", TOKENIZER_REMEDY)
    with blamed_on(config.tokenizer, TOKENIZER_REMEDY):
        spec = of_hands(TokenizerSpec.from_dict(meta["tokenizer"]))
    frozen = MaskHandTask(config, spec).frozen
    arrays = load_params(config.tokenizer, {name: frozen[name] for name in TOKENIZER})
    metas = [load_meta(folder) for folder in filter(None, config.init.split(","))]
    terms = tuple(sorted({found for meta in metas if (found := meta.get("terms"))}))
    return MaskHandTask(config, spec, {name: arrays[name] for name in TOKENIZER}, terms)


def abstract_task(
    config: ml_collections.ConfigDict,
    tokenizer: ml_collections.ConfigDict,
    *_: ml_collections.ConfigDict,
) -> MaskHandTask:
    """The task with shapes in place of a trained tokenizer, over the tokenizer of its config.

    Raises:
      InputError: the tokenizer is not of hands.
    """
    with blamed_on("--first-stage", "give --first-stage=configs/hand_tokenizer/paper.py"):
        spec = of_hands(TokenizerSpec(**tokenizer.model.to_dict()))
    return MaskHandTask(config, spec)
