"""Stage 1: the pose tokenizer."""

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
from smpl_jax import rotations

from genhmr_jax.core import losses, quantizer
from genhmr_jax.core.tokenizer import PoseTokenizer, TokenizerSpec
from genhmr_jax.data import poses, views
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.geometry.metrics import mpjpe, pa_mpjpe
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.train.random_streams import stream


class TokenizerTask:
    """Autoencoding of corpus poses: 20 rotations + 100 vertices + 100 joints + 1 commitment (TokenHMR's weights, MSE)."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = TokenizerSpec(**config.model.to_dict())
        self.view = views.ViewSpec(**config.data.view.to_dict())
        self.graph, _ = nnx.split(nnx.eval_shape(lambda: PoseTokenizer(self.spec, rngs=nnx.Rngs(0))))
        self.frozen = {"body": keypoint_model(load_body(config.data.body))}

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(PoseTokenizer(self.spec, rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(state), quantizer.init_codebook(key, self.spec.codebook_size, self.spec.code_dim)

    def warm_start(self, params: Any) -> Any:
        return params

    def without_remat(self) -> "TokenizerTask":
        return self

    @functools.cached_property
    def _val_set(self) -> poses.PoseCorpus:
        return poses.load_corpus(self.config.data.poses, "val")

    def sources(self) -> dict[str, Any]:
        assert self._val_set is not None  # a missing split shall stop the run now, not at its first evaluation
        return {"poses": poses.PoseSource(poses.load_corpus(self.config.data.poses, "train"), self.config.batch_size, self.config.seed)}

    def batch_shapes(self) -> dict[str, Any]:
        return {"poses": poses.batch_shapes(self.config.batch_size)}

    def prepare(self, frozen: Any, batch: Any) -> dict[str, jax.Array]:
        base, rows = stream(self.config.seed, "augmentation"), batch["poses"]
        augment = lambda pose, number: views.augment_pose(pose, jax.random.fold_in(base, number), self.view)  # noqa: E731
        size = rows["pose"].shape[0]
        return {"rotmats": jax.vmap(augment)(rows["pose"], rows["number"]), "weight": jnp.full(size, 1.0 / size)}

    def loss(self, params: Any, extra: Any, frozen: Any, sample: Any) -> tuple[jax.Array, dict[str, Any]]:
        model, weight, target = nnx.merge(self.graph, params), self.config.loss, sample["rotmats"]
        z = model.encode(target).astype(jnp.float32)
        ids = quantizer.nearest(extra["vectors"], jax.lax.stop_gradient(z))
        zq = extra["vectors"][ids]
        recon = model.decode(quantizer.straight_through(z, zq)).astype(jnp.float32)
        true, mine = smpl_jax.forward(frozen["body"], jnp.zeros(10), target), smpl_jax.forward(frozen["body"], jnp.zeros(10), recon)
        terms = {
            "rotation": losses.row_mean((recon - target) ** 2),
            "vertices": losses.row_mean((mine.vertices - true.vertices) ** 2),
            "joints": losses.row_mean((mine.joints - true.joints) ** 2),
            "commit": losses.row_mean((z - zq) ** 2),
        }
        terms = {name: jnp.sum(sample["weight"] * value) for name, value in terms.items()}
        metrics = {"mpjpe_mm": 1000 * jnp.sum(sample["weight"] * mpjpe(mine.joints, true.joints))}
        carry = {"z": jax.lax.stop_gradient(z), "ids": ids}
        return sum(weight[name] * value for name, value in terms.items()), {"terms": terms, "metrics": metrics, "carry": carry}

    def next_extra(self, extra: Any, carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        weight, ids = self.config.loss, carry["ids"].reshape(-1)
        z = carry["z"].reshape(-1, carry["z"].shape[-1])
        extra = quantizer.ema_update(extra, z, ids, key, decay=weight.codebook_decay, reset_below=weight.reset_below)
        return extra, quantizer.usage(ids, self.spec.codebook_size)

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, extra: Any, frozen: Any, batch: Any) -> tuple[dict[str, jax.Array], jax.Array]:
            model, target = nnx.merge(self.graph, params), self.prepare(frozen, batch)["rotmats"]
            ids = model.tokenize(extra["vectors"], target)
            recon = model.decode(extra["vectors"][ids])
            a, b = (smpl_jax.forward(frozen["body"], jnp.zeros(10), r) for r in (recon, target))
            means = {
                "mpjpe_mm": 1000 * jnp.mean(mpjpe(a.joints, b.joints)),
                "pa_mpjpe_mm": 1000 * jnp.mean(pa_mpjpe(a.joints, b.joints)),
                "angle_deg": jnp.degrees(jnp.mean(rotations.geodesic_angle(recon, target))),
            }
            return means, jnp.zeros(self.spec.codebook_size).at[ids.reshape(-1)].add(1.0)

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Any) -> dict[str, float]:
        """Reconstruction of `config.evaluate_poses` validation poses, spread evenly over the split."""
        n, size = self.config.evaluate_poses, self.config.batch_size
        chosen = np.linspace(0, len(self._val_set.poses) - 1, n // size * size or size).astype(int)
        rows, count = [], 0.0
        for part in np.split(chosen, len(chosen) // size):
            batch = {"poses": {"pose": self._val_set.poses[part], "number": part.astype(np.uint32)}}
            means, used = self._measure(params, extra, frozen, place(batch))
            means, used = place.host((means, used))
            rows.append(means)
            count = count + used
        measured = {f"val_{k}": float(np.mean([r[k] for r in rows])) for k in rows[0]}
        p = count[count > 0] / count.sum()
        return measured | {"val_perplexity": float(np.exp(-np.sum(p * np.log(p)))), "val_codes_used": float(np.mean(count > 0))}

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        meta = {"kind": "tokenizer", "tokenizer": dataclasses.asdict(self.spec), "measured": measured}
        save_params(directory, {"tokenizer": params, "codebook": {"vectors": extra["vectors"]}}, meta)
