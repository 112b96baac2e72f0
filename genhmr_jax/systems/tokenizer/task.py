"""Stage 1: training the pose tokenizer, an autoencoder of corpus poses."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.core import losses, quantizer
from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.data import poses
from genhmr_jax.data.poses import PoseRows
from genhmr_jax.geometry.metrics import mpjpe, pa_mpjpe
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.systems.tokenizer import skeletons
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place, Task


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """rotmats: augmented poses. weight: of each row; they sum to 1."""

    rotmats: Float[Array, "B J 3 3"]
    weight: Float[Array, "B"]


class TokenizerTask(Task):
    """MSE of rotations, vertices and joints, and the commitment loss.

    The default weights are TokenHMR's: 20, 100, 100 and 1.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = TokenizerSpec(**config.model.to_dict())
        model = nnx.eval_shape(lambda: PoseTokenizer(self.spec, rngs=nnx.Rngs(0)))
        self.graph, _ = nnx.split(model)
        skeleton = skeletons.find(self.spec.skeleton, config.data)
        self.augment, self.frozen = skeleton.augment, {"body": skeleton.model}

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(PoseTokenizer(self.spec, rngs=nnx.Rngs(key)))
        codebook = quantizer.init_codebook(key, self.spec.codebook_size, self.spec.code_dim)
        return nnx.to_pure_dict(state), codebook

    @functools.cached_property
    def _validation_poses(self) -> poses.PoseCorpus:
        return poses.load_corpus(self.config.data.poses, "val", joints=self.spec.joints)

    def sources(self) -> dict[str, Any]:
        config = self.config
        _ = self._validation_poses  # a missing split must stop the run now
        corpus = poses.load_corpus(config.data.poses, "train", joints=self.spec.joints)
        return {"poses": poses.PoseSource(corpus, config.batch_size, config.seed)}

    def batch_shapes(self) -> dict[str, Any]:
        return {"poses": poses.batch_shapes(self.config.batch_size, joints=self.spec.joints)}

    def prepare(self, frozen: Any, batch: dict[str, PoseRows]) -> Sample:
        base, rows = stream(self.config.seed, "augmentation"), batch["poses"]

        def augment(pose: Array, number: Array) -> Array:
            return self.augment(pose, jax.random.fold_in(base, number))

        size = rows.pose.shape[0]
        return Sample(jax.vmap(augment)(rows.pose, rows.number), jnp.full(size, 1.0 / size))

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Sample
    ) -> tuple[jax.Array, dict[str, Any]]:
        model, target = nnx.merge(self.graph, params), sample.rotmats
        # 1. Encode, quantise, decode.
        z = model.encode(target).astype(jnp.float32)
        ids = quantizer.nearest(extra["vectors"], jax.lax.stop_gradient(z))
        zq = extra["vectors"][ids]
        answer = model.decode(quantizer.straight_through(z, zq)).astype(jnp.float32)
        # 2. Compare rotations, and the bodies that they pose.
        true, mine = (
            smpl_jax.forward(frozen["body"], jnp.zeros(10), rotmats) for rotmats in (target, answer)
        )
        rows = {
            "rotation": losses.row_mean((answer - target) ** 2),
            "vertices": losses.row_mean((mine.vertices - true.vertices) ** 2),
            "joints": losses.row_mean((mine.joints - true.joints) ** 2),
            "commit": losses.row_mean((z - zq) ** 2),
        }
        terms = {name: jnp.sum(sample.weight * value) for name, value in rows.items()}
        error = jnp.sum(sample.weight * mpjpe(mine.joints, true.joints))
        total = sum(self.config.loss[name] * value for name, value in terms.items())
        carry = {"z": jax.lax.stop_gradient(z), "ids": ids}
        return total, {"terms": terms, "metrics": {"mpjpe_mm": 1000 * error}, "carry": carry}

    def next_extra(
        self, extra: Any, carry: Any, key: jax.Array
    ) -> tuple[Any, dict[str, jax.Array]]:
        """The codebook after its moving average over the batch's codes."""
        loss, ids = self.config.loss, carry["ids"].reshape(-1)
        z = carry["z"].reshape(-1, carry["z"].shape[-1])
        rule = {"decay": loss.codebook_decay, "reset_below": loss.reset_below}
        extra = quantizer.ema_update(extra, z, ids, key, **rule)
        return extra, quantizer.usage(ids, self.spec.codebook_size)

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(
            params: Any, extra: Any, frozen: Any, batch: Any
        ) -> tuple[dict[str, jax.Array], jax.Array]:
            model, target = nnx.merge(self.graph, params), self.prepare(frozen, batch).rotmats
            ids = model.tokenize(extra["vectors"], target)
            answer = model.decode(extra["vectors"][ids])
            a, b = (smpl_jax.forward(frozen["body"], jnp.zeros(10), r) for r in (answer, target))
            angle = rotations.geodesic_angle(answer, target)
            means = {
                "mpjpe_mm": 1000 * jnp.mean(mpjpe(a.joints, b.joints)),
                "pa_mpjpe_mm": 1000 * jnp.mean(pa_mpjpe(a.joints, b.joints)),
                "angle_deg": jnp.degrees(jnp.mean(angle)),
            }
            return means, jnp.zeros(self.spec.codebook_size).at[ids.reshape(-1)].add(1.0)

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Reconstruction of `config.evaluate_poses` validation poses, and the use of the codes."""
        n, size = self.config.evaluate_poses, self.config.batch_size
        corpus = self._validation_poses.poses
        chosen = np.linspace(0, len(corpus) - 1, n // size * size or size).astype(int)
        rows, count = [], 0.0
        for part in np.split(chosen, len(chosen) // size):
            batch = {"poses": PoseRows(corpus[part], part.astype(np.uint32))}
            measured = self._measure(params, extra, frozen, place(batch))
            means, used = place.host(measured)
            rows.append(means)
            count = count + used
        found = {f"val_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}
        p = count[count > 0] / count.sum()
        found["val_perplexity"] = float(np.exp(-np.sum(p * np.log(p))))
        found["val_codes_used"] = float(np.mean(count > 0))
        return found

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        spec = dataclasses.asdict(self.spec)
        meta = {"kind": "tokenizer", "tokenizer": spec, "measured": measured}
        arrays = {"tokenizer": params, "codebook": {"vectors": extra["vectors"]}}
        save_params(directory, arrays, meta)


def make_task(config: ml_collections.ConfigDict) -> TokenizerTask:
    """The task of a config."""
    return TokenizerTask(config)


def abstract_task(
    config: ml_collections.ConfigDict, *_: ml_collections.ConfigDict
) -> TokenizerTask:
    """The same: the tokenizer is trained over no other model."""
    return TokenizerTask(config)
