"""Stage 2: the image-conditioned masked transformer, over the frozen tokenizer."""

import dataclasses
import functools
import logging
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax import camera, losses
from genhmr_jax.body import load_body
from genhmr_jax.body.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.data import poses, views
from genhmr_jax.errors import InputError
from genhmr_jax.model_files import load_meta, load_params, save_params, warm_start
from genhmr_jax.models import quantizer
from genhmr_jax.models.genhmr import GenHmr, GenHmrSpec
from genhmr_jax.predict import Networks, sample_bodies

log = logging.getLogger("genhmr_jax")


def random_mask(key: jax.Array, batch: int, length: int, *, min_ratio: float, all_masked: float) -> Float[Array, "B L"]:
    """1 where a token is masked: ceil(cos(pi tau / 2) L) random positions, tau ~ U(0, 1), ratio at least `min_ratio`.

    A share `all_masked` of the samples has every position masked.
    """
    k = jax.random.split(key, 3)
    ratio = jnp.maximum(jnp.cos(jnp.pi / 2 * jax.random.uniform(k[0], (batch,))), min_ratio)
    ratio = jnp.where(jax.random.bernoulli(k[1], all_masked, (batch,)), 1.0, ratio)
    rank = jnp.argsort(jax.random.uniform(k[2], (batch, length)), -1)
    return (rank < jnp.ceil(ratio * length)[:, None]).astype(jnp.float32)


def as_inputs(sample: dict[str, Any]) -> dict[str, Any]:
    """Stored image features (float16 maps, or uint8 crops) as the network takes them."""
    if "images" in sample:
        return sample | {"images": sample["images"].astype(jnp.float32) / 255.0}
    return sample | {"maps": [m.astype(jnp.float32) for m in sample["maps"]]}


class GenHmrTask:
    """Cross-entropy of the masked tokens + losses of the body that the expected embeddings decode to."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        meta = load_meta(config.tokenizer)
        if "tokenizer" not in meta:
            raise InputError(config.tokenizer, "holds no tokenizer", "give the model folder of stage 1 with --config.tokenizer=DIR")
        model = config.model.to_dict()
        self.spec = GenHmrSpec.from_dict(model | {"tokenizer": meta["tokenizer"]})
        self.networks = Networks.of(self.spec)
        self.frozen = load_params(config.tokenizer, {k: self.networks.shapes[k] for k in ("tokenizer", "codebook")})
        self.view = views.ViewSpec(**config.data.view.to_dict())
        self.body = keypoint_model(load_body(config.data.body))
        self.val_set = poses.load_corpus(config.data.poses, "val")
        self.source = self.images = self.val_images = None
        if config.batch_size:
            self.source = poses.batches(poses.load_corpus(config.data.poses, "train"), config.batch_size, config.seed)
        if config.data.images:
            from genhmr_jax.train.features import FeatureSet

            self.images = FeatureSet(pathlib.Path(config.data.images) / "train")
            self.val_images = FeatureSet(pathlib.Path(config.data.images) / "val")
        elif config.image_batch_size:
            raise InputError("--config.image_batch_size", "asks for images but there are none", "give --config.data.images=DIR")

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(GenHmr(self.spec, rngs=nnx.Rngs(key)))
        params = nnx.to_pure_dict(state)
        if self.config.init:
            params, report = warm_start(self.config.init, params)
            log.info("from %s: %s", self.config.init, ", ".join(f"{len(names)} {kind}" for kind, names in report.items()))
            for kind in ("missing", "misfit", "unused"):
                log.info("%s: %s", kind, " ".join(report[kind]) or "none")
        return params, {}

    def batch(self, step: int) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if self.source is not None:
            batch["views"] = self.source[step]
        if self.images is not None and self.config.image_batch_size:
            batch["images"] = self.images.batch(step, self.config.image_batch_size, self.config.seed)
        return batch

    def _simulate(self, batch: dict, seed: int) -> dict[str, jax.Array]:
        return views.make_views(self.body, batch["pose"], batch["number"], seed, self.view)

    def loss(self, params: Any, extra: Any, batch: dict, key: jax.Array) -> tuple[jax.Array, tuple[dict, Any]]:
        keys, total, metrics = jax.random.split(key, 3), 0.0, {}
        if "views" in batch:
            view = self._simulate(batch["views"], self.config.seed + 3)
            value, metrics = self.terms(params, view, keys[0])
            total = total + value
        if "images" in batch:
            sample, masking = dict(batch["images"]), self.config.masking
            size = sample["crop"].shape[0]
            drop = jax.random.bernoulli(keys[2], masking.drop_keypoints, (size, 1, 1))
            sample["keypoints"] = jnp.where(drop, 0.0, sample["keypoints"])
            sample["image_weight"] = 1.0 - jax.random.bernoulli(keys[2], masking.drop_image, (size,)) * (1.0 - drop[:, 0, 0])
            sample = as_inputs(sample)
            value, found = self.terms(params, sample, keys[1])
            total = total + value
            metrics = metrics | {f"image_{k}": v for k, v in found.items()}
        return total, (metrics, extra)

    def terms(self, params: Any, sample: dict[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of samples (inputs and labels as data/views.py gives them, maybe with maps) and its terms."""
        weight, masking, spec = self.config.loss, self.config.masking, self.spec.tokenizer
        batch, k = sample["crop"].shape[0], jax.random.split(key, 5)
        vectors = self.frozen["codebook"]["vectors"]
        tokenizer = nnx.merge(self.networks.tokenizer, self.frozen["tokenizer"])
        tokens = tokenizer.tokenize(vectors, sample["rotmats"])
        mask = random_mask(k[0], batch, spec.length, min_ratio=masking.min_ratio, all_masked=masking.all_masked)
        corrupt = jax.random.bernoulli(k[1], masking.corrupt * jax.random.uniform(k[2], (batch, 1)), tokens.shape)
        visible = jnp.where(corrupt, jax.random.randint(k[3], tokens.shape, 0, spec.codebook_size), tokens)
        visible = jnp.where(mask > 0, spec.codebook_size, visible)

        everything = {"genhmr": params} | self.frozen
        encoded = self.networks.encode(everything, sample)
        logits = self.networks.logits(everything, visible, encoded)
        terms = {"token": losses.token_cross_entropy(logits, tokens, mask, weight.label_smoothing)}
        translation = camera.weak_to_translation(encoded.weak_camera, sample["crop"], sample["image_size"], sample["focal"])
        terms["betas"] = jnp.mean((encoded.betas - sample["betas"]) ** 2)
        terms["camera"] = jnp.mean(jnp.abs(encoded.weak_camera - sample["weak_camera"]))
        metrics = {"accuracy": losses.masked_mean((jnp.argmax(logits, -1) == tokens).astype(jnp.float32), mask)}

        if weight.differentiable_sampling != "none":
            soft = self._differentiable_sample(logits, vectors, k[4])
            embeddings = jnp.where(mask[..., None] > 0, soft, vectors[tokens])
            rotmats = self.networks.decode(everything, embeddings)
            output = smpl_jax.forward(self.body, encoded.betas, rotmats)
            terms["rotation"] = jnp.mean((rotmats - sample["rotmats"]) ** 2)
            terms["joints3d"] = jnp.mean(jnp.abs(losses.pelvis_aligned(output.joints) - losses.pelvis_aligned(sample["joints"])))
            points = keypoint_points(self.body, output, DETECTED) + translation[:, None]
            projected = camera.project(points, sample["focal"], sample["image_size"] / 2.0)
            gap = camera.to_crop(projected, sample["crop"]) - camera.to_crop(sample["points2d"], sample["crop"])
            terms["joints2d"] = jnp.mean(jnp.minimum(jnp.abs(gap), 1.0))
            metrics["mpjpe_mm"] = 1000 * jnp.mean(losses.mpjpe(output.joints, sample["joints"]))
        return sum(weight[name] * value for name, value in terms.items()), terms | metrics

    def _differentiable_sample(self, logits: Float[Array, "B L N"], vectors: Float[Array, "N D"], key: jax.Array) -> Float[Array, "B L D"]:
        """Embeddings through which gradients reach the logits: expected, or straight-through Gumbel-softmax (Jang et al. 2017)."""
        if self.config.loss.differentiable_sampling == "expected":
            return jax.nn.softmax(logits) @ vectors
        noisy = jax.nn.softmax(logits + jax.random.gumbel(key, logits.shape))
        hard = jax.nn.one_hot(jnp.argmax(noisy, -1), logits.shape[-1])
        return quantizer.straight_through(noisy, hard) @ vectors

    @functools.cached_property
    def _measure(self):
        @functools.partial(jax.jit, static_argnames="rule")
        def measure(params: Any, sample: dict, iterations: jax.Array, rule: str) -> dict[str, jax.Array]:
            everything = {"genhmr": params} | self.frozen
            encoded = self.networks.encode(everything, sample)
            keys = jax.random.split(jax.random.key(0), sample["crop"].shape[0])
            _, embeddings = sample_bodies(self.networks, everything, encoded, keys, iterations=iterations, rule=rule)
            joints = smpl_jax.forward(self.body, encoded.betas, self.networks.decode(everything, embeddings)).joints
            return {"mpjpe": 1000 * losses.mpjpe(joints, sample["joints"]), "pa_mpjpe": 1000 * losses.pa_mpjpe(joints, sample["joints"])}

        return measure

    def _validation_views(self) -> list[dict[str, jax.Array]]:
        simulate = jax.jit(functools.partial(self._simulate, seed=self.config.seed + 4))
        size = max(self.config.batch_size, 1)
        count = math.ceil(self.config.evaluate_poses / size)
        chosen = np.linspace(0, len(self.val_set.poses) - 1, count * size).astype(int)
        return [simulate({"pose": self.val_set.poses[c], "number": c.astype(np.uint32)}) for c in np.split(chosen, count)]

    def evaluate(self, params: Any, extra: Any) -> dict[str, float]:
        """MPJPE and PA-MPJPE in mm on views of validation poses (and on validation images), for decode rules and iterations."""
        measured: dict[str, float] = {}
        groups = {"val": self._validation_views() if self.source is not None else []}
        if self.val_images is not None:
            groups["val_image"] = [as_inputs(b) for b in self.val_images.all_batches(50)]
            groups["val_image_only"] = [b | {"keypoints": jnp.zeros_like(b["keypoints"])} for b in groups["val_image"]]
            groups["val_keypoints_only"] = [{k: v for k, v in b.items() if k not in ("maps", "images")} for b in groups["val_image"]]
        for group, samples in groups.items():
            for rule, iterations in (("expected", 1), ("expected", 5), ("hard", 1), ("hard", 5)):
                rows = [jax.device_get(self._measure(params, s, jnp.asarray(iterations), rule)) for s in samples]
                for name in rows[0] if rows else ():
                    measured[f"{group}_{rule}{iterations}_{name}"] = float(np.mean(np.concatenate([r[name] for r in rows])))
        return measured

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        meta = {"kind": "genhmr", "spec": dataclasses.asdict(self.spec), "measured": measured, "body": self.config.data.body}
        # Half the size; bfloat16's few mantissa bits also compress. The decoder's outputs are poses: it keeps more of them.
        cast = lambda tree, dtype: jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: E731
        halves = self.frozen["tokenizer"]
        tokenizer = {"encoder": cast(halves["encoder"], jnp.bfloat16), "decoder": cast(halves["decoder"], jnp.float16)}
        save_params(directory, {"genhmr": cast(params, jnp.bfloat16), "tokenizer": tokenizer, "codebook": self.frozen["codebook"]}, meta)
