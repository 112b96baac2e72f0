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

from genhmr_jax import losses
from genhmr_jax.body import load_body
from genhmr_jax.body.keypoints import keypoint_model
from genhmr_jax.data import poses, views
from genhmr_jax.model_files import save_params
from genhmr_jax.models import quantizer
from genhmr_jax.models.tokenizer import PoseTokenizer, TokenizerSpec


class TokenizerTask:
    """Autoencoding of corpus poses: 20 rotations + 100 vertices + 100 joints + 1 commitment (TokenHMR's weights, MSE)."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = TokenizerSpec(**config.model.to_dict())
        self.view = views.ViewSpec(**config.data.view.to_dict())
        self.body = keypoint_model(load_body(config.data.body))
        self.graph, _ = nnx.split(nnx.eval_shape(lambda: PoseTokenizer(self.spec, rngs=nnx.Rngs(0))))
        self.train_set = poses.load_corpus(config.data.poses, "train")
        self.val_set = poses.load_corpus(config.data.poses, "val")
        self.source = poses.batches(self.train_set, config.batch_size, config.seed)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        model = PoseTokenizer(self.spec, rngs=nnx.Rngs(key))
        _, state = nnx.split(model)
        return nnx.to_pure_dict(state), quantizer.init_codebook(key, self.spec.codebook_size, self.spec.code_dim)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        return self.source[step]

    def _rotmats(self, batch: dict) -> jax.Array:
        base = jax.random.key(self.config.seed + 2)
        return jax.vmap(lambda p, n: views.augment_pose(p, jax.random.fold_in(base, n), self.view))(batch["pose"], batch["number"])

    def loss(self, params: Any, extra: Any, batch: dict, key: jax.Array) -> tuple[jax.Array, tuple[dict, Any]]:
        model, weight = nnx.merge(self.graph, params), self.config.loss
        target = self._rotmats(batch)
        z = model.encode(target)
        ids = quantizer.nearest(extra["vectors"], jax.lax.stop_gradient(z))
        zq = extra["vectors"][ids]
        recon = model.decode(quantizer.straight_through(z, zq))
        true, mine = smpl_jax.forward(self.body, jnp.zeros(10), target), smpl_jax.forward(self.body, jnp.zeros(10), recon)
        commit = jnp.mean((z - zq) ** 2)
        terms = {
            "rotation": jnp.mean((recon - target) ** 2),
            "vertices": jnp.mean((mine.vertices - true.vertices) ** 2),
            "joints": jnp.mean((mine.joints - true.joints) ** 2),
            "commit": commit,
        }
        total = sum(weight[name] * value for name, value in terms.items())
        flat = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1]))
        extra = quantizer.ema_update(extra, flat, ids.reshape(-1), key, decay=weight.codebook_decay, reset_below=weight.reset_below)
        metrics = (
            terms | {"mpjpe_mm": 1000 * jnp.mean(losses.mpjpe(mine.joints, true.joints))} | quantizer.usage(ids, self.spec.codebook_size)
        )
        return total, (metrics, extra)

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, extra: Any, batch: dict) -> dict:
            model, target = nnx.merge(self.graph, params), self._rotmats(batch)
            ids = model.tokenize(extra["vectors"], target)
            recon = model.decode(extra["vectors"][ids])
            a, b = smpl_jax.forward(self.body, jnp.zeros(10), recon), smpl_jax.forward(self.body, jnp.zeros(10), target)
            return {
                "mpjpe_mm": 1000 * losses.mpjpe(a.joints, b.joints),
                "pa_mpjpe_mm": 1000 * losses.pa_mpjpe(a.joints, b.joints),
                "angle_deg": jnp.degrees(jnp.mean(rotations.geodesic_angle(recon, target), -1)),
            }, ids

        return measure

    def evaluate(self, params: Any, extra: Any) -> dict[str, float]:
        """Reconstruction of `config.evaluate_poses` validation poses, spread evenly over the split."""
        n, size = self.config.evaluate_poses, self.config.batch_size
        chosen = np.linspace(0, len(self.val_set.poses) - 1, n // size * size or size).astype(int)
        rows, tokens = [], []
        for part in np.split(chosen, len(chosen) // size):
            values, ids = self._measure(params, extra, {"pose": self.val_set.poses[part], "number": part.astype(np.uint32)})
            rows.append(jax.device_get(values))
            tokens.append(np.asarray(ids))
        measured = {f"val_{k}": float(np.mean([r[k] for r in rows])) for k in rows[0]}
        used = quantizer.usage(jnp.asarray(np.concatenate(tokens)), self.spec.codebook_size)
        return measured | {f"val_{k}": float(v) for k, v in used.items()}

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        meta = {"kind": "tokenizer", "tokenizer": dataclasses.asdict(self.spec), "measured": measured}
        save_params(directory, {"tokenizer": params, "codebook": {"vectors": extra["vectors"]}}, meta)
