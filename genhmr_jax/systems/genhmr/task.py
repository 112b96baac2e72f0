"""Stage 2: the image-conditioned masked transformer, over the frozen tokenizer."""

import copy
import dataclasses
import functools
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

from genhmr_jax.core import encoders, losses, quantizer
from genhmr_jax.core.masking import BINS, random_mask, ratio_bins, visible_tokens
from genhmr_jax.core.tokenizer import TokenizerSpec
from genhmr_jax.data import poses, turns, views
from genhmr_jax.data.image_rows import ImageRows, known_mean, rooted
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.geometry.metrics import distances, masked_mean, mpjpe, pa_mpjpe
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params, save_params
from genhmr_jax.nets.vit import VitSpec, drop_path_factors
from genhmr_jax.systems.genhmr.model import GenHmr, GenHmrSpec
from genhmr_jax.systems.genhmr.system import Networks, sample_bodies, shown
from genhmr_jax.train.optim import still_layers
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import take_over

LABELS = ("rotation", "betas", "camera", "joints3d", "joints2d")


class GenHmrTask:
    """Cross-entropy of the masked tokens + losses of the body that the expected embeddings decode to.

    Args:
      tokenizer: of the frozen tokenizer.
      arrays: {"tokenizer", "codebook": {"vectors"}}; without them the task can be compiled but not run.
    """

    def __init__(self, config: ml_collections.ConfigDict, tokenizer: TokenizerSpec, arrays: dict[str, Any] | None = None):
        self.config = config
        model = config.model.to_dict() | {"tokenizer": dataclasses.asdict(tokenizer)}
        self.spec = GenHmrSpec.from_dict(model)
        still = still_layers(config, VitSpec.named(self.spec.encoder).depth) if self.spec.trains_encoder else 0
        self.networks = dataclasses.replace(Networks.of(self.spec), remat=config.remat, still=still)
        arrays = arrays or {name: self.networks.shapes[name] for name in ("tokenizer", "codebook")}
        self.frozen = arrays | {"body": keypoint_model(load_body(config.data.body))}
        self.view = views.ViewSpec(**config.data.view.to_dict())
        self.turn = turns.TurnSpec(**config.data.turn.to_dict())
        self.images = ImageRows(config, self.spec.encoder if self.spec.encoder_channels else "none", self.spec.keypoints3d)

    @staticmethod
    def from_model(config: ml_collections.ConfigDict) -> "GenHmrTask":
        """The task over the trained tokenizer in the folder `config.tokenizer`: a model of stage 1, or one of stage 2, which has its own.

        Raises:
          InputError: another kind of model.
        """
        meta = load_meta(config.tokenizer)
        if meta.get("kind") == "genhmr":
            networks = Networks.of(GenHmrSpec.from_dict(meta["spec"]))
            spec, shapes = networks.spec.tokenizer, networks.shapes
        elif "tokenizer" in meta:
            spec = TokenizerSpec(**meta["tokenizer"] | {"part_tokens": tuple(meta["tokenizer"]["part_tokens"])})
            shapes = {name: GenHmrTask(config, spec).frozen[name] for name in ("tokenizer", "codebook")}
        else:
            raise InputError(config.tokenizer, "holds no tokenizer", "give the model folder of stage 1 with --config.tokenizer=DIR")
        arrays = load_params(config.tokenizer, shapes)
        return GenHmrTask(config, spec, {name: arrays[name] for name in ("tokenizer", "codebook")})

    def without_remat(self) -> "GenHmrTask":
        task = copy.copy(self)
        task.networks = dataclasses.replace(self.networks, remat="none")
        return task

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, state = nnx.split(GenHmr(self.spec, rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(state), {}

    def warm_start(self, params: Any) -> Any:
        return take_over(self.config.init, params)

    @functools.cached_property
    def _val_set(self) -> poses.PoseCorpus | None:
        return poses.load_corpus(self.config.data.poses, "val") if self.config.batch_size else None

    def sources(self) -> dict[str, Any]:
        config, sources = self.config, {}
        if self._val_set is not None:
            sources["views"] = poses.PoseSource(poses.load_corpus(config.data.poses, "train"), config.batch_size, config.seed)
        if self.images.size:
            sources["images"] = self.images.source()
        return sources

    def batch_shapes(self) -> dict[str, Any]:
        shapes: dict[str, Any] = {}
        if self.config.batch_size:
            shapes["views"] = poses.batch_shapes(self.config.batch_size)
        if self.images.size:
            shapes["images"] = self.images.shapes()
        return shapes

    def prepare(self, frozen: Any, batch: Any) -> Any:
        samples: dict[str, Any] = {}
        for name, rows in (("views", "view_rows"), ("images", "image_rows")):
            if name not in batch:
                continue
            number = batch[name]["number"]
            base = stream(self.config.seed, rows)
            keys = jax.vmap(lambda n, base=base: jax.random.split(jax.random.fold_in(base, n), 5))(number)
            if name == "views":
                of_views = stream(self.config.seed, "views")
                sample = views.make_views(frozen["body"], batch[name]["pose"], number, of_views, self.view)
            else:
                sample = {k: v for k, v in batch[name].items() if k != "number"}
                if self.images.are_photos:
                    sample = self._as_detected(frozen, self._encoded(sample), keys[:, 3])
                elif not self.spec.encoder_channels:
                    sample = jax.vmap(lambda row, key: turns.turn_row(row, jax.random.fold_in(key, 2), self.turn))(sample, keys[:, 3])
                sample = self._drop_contexts(sample, keys[:, 3])
                if self.config.drop_path and self.spec.trains_encoder:
                    sample["drop_path"] = drop_path_factors(keys[:, 4], VitSpec.named(self.spec.encoder).depth, self.config.drop_path)
            samples[name] = sample | self._targets(frozen, sample, keys)
        return samples

    def _encoded(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Rows of photos for a frozen encoder: its maps in place of the photos. Others take the photos as they are."""
        if self.spec.trains_encoder:
            return sample
        pixels = sample["images"].astype(jnp.float32) / 255.0  # for LOOK the crop is the region: see predict
        maps = [m.astype(jnp.float16) for m in encoders.encode(self.spec.encoder, pixels)] if self.spec.encoder_channels else []
        return {name: value for name, value in sample.items() if name != "images"} | ({"maps": maps} if maps else {})

    def _as_detected(self, frozen: Any, sample: dict[str, Any], keys: Array) -> dict[str, Any]:
        """Rows of photos: labelled keypoints get the errors of a detector, like those of simulated views; in 3D where pose is known."""
        known = sample["keypoints"][..., 2:] > 0
        points = jnp.where(known, sample["keypoints"][..., :2], sample["crop"][:, None, :2])
        noise = jax.vmap(lambda points, side, key: views.detector_noise(points, side, jax.random.fold_in(key, 1), self.view))
        sample = sample | {"keypoints": jnp.where(known, noise(points, sample["crop"][:, 2], keys), 0.0)}
        if not self.spec.keypoints3d:
            return sample
        output = smpl_jax.forward(frozen["body"], sample["betas"], sample["rotmats"])
        lift = jax.vmap(lambda points, key: views.lifted_keypoints(points, jax.random.fold_in(key, 3), self.view))
        lifted = lift(keypoint_points(frozen["body"], output, DETECTED), keys)
        return sample | {"keypoints3d": jnp.where(sample["has_rotation"][:, None, None] > 0, lifted, 0.0)}

    def _drop_contexts(self, sample: dict[str, Any], keys: Array) -> dict[str, Any]:
        """Hides the keypoints of some rows and the image of others, never both: one model serves either and both."""
        masking = self.config.masking

        def row(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            k = jax.random.split(key)
            drop = jax.random.bernoulli(k[0], masking.drop_keypoints)
            return drop, jax.random.bernoulli(k[1], masking.drop_image) & ~drop

        no_keypoints, no_image = jax.vmap(row)(keys)
        seen = {n: jnp.where(no_keypoints[:, None, None], 0.0, sample[n]) for n in ("keypoints", "keypoints3d") if n in sample}
        return sample | seen | {"image_weight": 1.0 - no_image.astype(jnp.float32)}

    def _targets(self, frozen: Any, sample: dict[str, Any], keys: Array) -> dict[str, Any]:
        """Tokens, what is seen of them, and the weights of every term: they add up to 1 over the rows that carry the label."""
        masking, spec = self.config.masking, self.spec.tokenizer
        tokenizer = nnx.merge(self.networks.tokenizer, frozen["tokenizer"])
        rotmats, turn = sample["rotmats"], self.networks.turn(encoders.from_stored(sample))
        if turn is not None:  # tokens say the pose in the axes in which the network sees
            rotmats = rotmats.at[:, 0].set(turns.mT @ rotmats[:, 0])
        tokens = tokenizer.tokenize(frozen["codebook"]["vectors"], rotmats)
        rule = {"schedule": masking.schedule, "min_ratio": masking.min_ratio, "all_masked": masking.all_masked}
        mask = random_mask(keys[:, 0], spec.length, **rule)
        visible = visible_tokens(keys[:, 1], tokens, mask, spec.codebook_size, masking.corrupt)
        ones = jnp.ones(tokens.shape[0])
        weights = {name: losses.normalised(sample.get(f"has_{name}", ones)) for name in LABELS}
        unroll = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), masking.unroll))(keys[:, 0])
        kept = jnp.sum(~mask, -1)
        mask = mask | unroll[:, None]
        hidden = mask * sample.get("has_rotation", ones)[:, None]
        targets = {"tokens": tokens, "visible": visible, "mask": mask, "token_weight": losses.normalised(hidden), "weights": weights}
        return targets | {"bins": ratio_bins(mask), "noise_key": keys[:, 2], "unroll": unroll, "kept": kept}

    def loss(self, params: Any, extra: Any, frozen: Any, sample: Any) -> tuple[jax.Array, dict[str, Any]]:
        total, everything = 0.0, {"terms": {}, "metrics": {}}
        for group, rows in sample.items():
            terms, metrics = self.terms(params, frozen, rows)
            total = total + sum(self.config.loss[name] * value for name, value in terms.items())
            prefix = "image_" if group == "images" else ""
            everything["terms"] |= {prefix + name: value for name, value in terms.items()}
            everything["metrics"] |= {prefix + name: value for name, value in metrics.items()}
        return total, everything | {"carry": {}}

    def terms(self, params: Any, frozen: Any, sample: dict[str, Any]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """The terms of the loss for prepared rows, and metrics; all are sums over the rows."""
        weight, w = self.config.loss, sample["weights"]
        everything = {"genhmr": params, "tokenizer": frozen["tokenizer"], "codebook": frozen["codebook"]}
        inputs = encoders.from_stored(sample)
        encoded = self.networks.encode(everything, inputs)
        visible = self._unrolled(everything, sample, encoded) if self.config.masking.unroll else sample["visible"]
        logits = self.networks.logits(everything, visible, encoded)
        tokens, mask = sample["tokens"], sample["mask"]
        terms = {"token": jnp.sum(sample["token_weight"] * losses.token_nll(logits, tokens, weight.label_smoothing))}
        terms["betas"] = jnp.sum(w["betas"] * losses.row_mean((encoded.betas - sample["betas"]) ** 2))
        terms["camera"] = jnp.sum(w["camera"] * losses.row_mean(jnp.abs(encoded.weak_camera - sample["weak_camera"])))
        right = jnp.sum(mask & (jnp.argmax(logits, -1) == tokens), -1)
        metrics = {"accuracy": jnp.sum(sample["token_weight"] * (jnp.argmax(logits, -1) == tokens))}
        by_ratio = jnp.sum(sample["bins"] * right[:, None], 0)
        metrics |= {f"accuracy_masked_to_{100 * (i + 1) // BINS}%": by_ratio[i] for i in range(BINS)}

        if weight.differentiable_sampling != "none":
            vectors = frozen["codebook"]["vectors"]
            soft = self._differentiable_sample(logits, vectors, sample["noise_key"])
            rotmats = self.networks.decoder(everything, inputs)(jnp.where(mask[..., None], soft, vectors[tokens]))
            output = smpl_jax.forward(frozen["body"], encoded.betas, rotmats)
            terms["rotation"] = jnp.sum(w["rotation"] * losses.row_mean((rotmats - sample["rotmats"]) ** 2))
            known = sample.get("joints_confidence", jnp.ones(output.joints.shape[:2]))
            both = rooted(output.joints, known), rooted(sample["joints"], known)
            terms["joints3d"] = jnp.sum(w["joints3d"] * known_mean(jnp.mean(jnp.abs(both[0] - both[1]), -1), known))
            translation = camera.weak_to_translation(encoded.weak_camera, sample["crop"], sample["image_size"], sample["focal"])
            gap, labelled = _gap2d(frozen["body"], output, translation, sample)
            terms["joints2d"] = jnp.sum(w["joints2d"] * known_mean(jnp.mean(jnp.minimum(jnp.abs(gap), 1.0), -1), labelled))
            metrics["mpjpe_mm"] = 1000 * jnp.sum(w["joints3d"] * masked_mean(distances(*both), known))
        return terms, metrics

    def _unrolled(self, everything: Any, sample: dict[str, Any], encoded: Any) -> Array:
        """Visible tokens (B, L); in the rows to unroll those that sampling itself would have kept: the network's most confident guesses.

        So the network learns to go on from, and to revise, what it really sees after the first step of sampling, its own guesses, where
        plain training shows it true tokens (as step-unrolled denoising does, Savinov et al. 2022).
        """
        nothing = jnp.full_like(sample["tokens"], self.spec.tokenizer.codebook_size)
        probability = jax.nn.softmax(jax.lax.stop_gradient(self.networks.logits(everything, nothing, encoded)))
        rank = jnp.argsort(jnp.argsort(-jnp.max(probability, -1), -1), -1)
        own = jnp.where(rank < sample["kept"][:, None], jnp.argmax(probability, -1), nothing)
        return jnp.where(sample["unroll"][:, None], own, sample["visible"])

    def _differentiable_sample(self, logits: Float[Array, "B L N"], vectors: Float[Array, "N D"], keys: Array) -> Float[Array, "B L D"]:
        """Embeddings through which gradients reach the logits: expected, or straight-through Gumbel-softmax (Jang et al. 2017)."""
        if self.config.loss.differentiable_sampling == "expected":
            return jax.nn.softmax(logits) @ vectors
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        noisy = jax.nn.softmax(logits + noise)
        hard = jax.nn.one_hot(jnp.argmax(noisy, -1), logits.shape[-1])
        return quantizer.straight_through(noisy, hard) @ vectors

    def next_extra(self, extra: Any, carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        return extra, {}

    @functools.cached_property
    def _measure(self):
        networks = self.without_remat().networks  # nothing goes backward here

        @functools.partial(jax.jit, static_argnames="rule")
        def measure(params: Any, frozen: Any, sample: dict, iterations: jax.Array, rule: str) -> dict[str, jax.Array]:
            everything = {"genhmr": params, "tokenizer": frozen["tokenizer"], "codebook": frozen["codebook"]}
            inputs = encoders.from_stored(sample)
            encoded = networks.encode(everything, inputs)
            keys = jax.random.split(jax.random.key(0), sample["crop"].shape[0])
            _, embeddings = sample_bodies(networks, everything, encoded, keys, iterations=iterations, rule=rule)
            output = smpl_jax.forward(frozen["body"], encoded.betas, networks.decoder(everything, inputs)(embeddings))
            weight, both = sample["weight"], (output.joints, sample["joints"])
            sums = {"mpjpe": 1000 * mpjpe(*both), "pa_mpjpe": 1000 * pa_mpjpe(*both), "rows": jnp.ones_like(weight)}
            translation = camera.weak_to_translation(encoded.weak_camera, sample["crop"], sample["image_size"], sample["focal"])
            gap, labelled = _gap2d(frozen["body"], output, translation, sample)
            weight2d = sample.get("weight2d", weight)
            sums2d = {"keypoints2d": 50 * known_mean(jnp.linalg.norm(gap, axis=-1), labelled), "rows2d": jnp.ones_like(weight)}
            return {name: jnp.sum(weight * value) for name, value in sums.items()} | {
                name: jnp.sum(weight2d * value) for name, value in sums2d.items()
            }

        return measure

    def _validation_views(self, frozen: Any, place: Any) -> list[dict[str, jax.Array]]:
        base, size = stream(self.config.seed, "validation_views"), self.config.batch_size
        simulate = jax.jit(lambda body, rows: views.make_views(body, rows["pose"], rows["number"], base, self.view))
        count = math.ceil(self.config.evaluate_poses / size)
        chosen = np.split(np.linspace(0, len(self._val_set.poses) - 1, count * size).astype(int), count)
        rows = [{"pose": self._val_set.poses[c], "number": c.astype(np.uint32)} for c in chosen]
        ones = place(np.ones(size, np.float32))
        return [simulate(frozen["body"], place(r)) | {"weight": ones} for r in rows]

    def _validation_images(self, place: Any) -> list[dict[str, Any]]:
        encoded = jax.jit(self._encoded)
        return [encoded(batch) if "images" in batch else batch for batch in self.images.validation(place)]

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Any) -> dict[str, float]:
        """MPJPE and PA-MPJPE in mm on views of validation poses (and on validation images), for decode rules and iterations.

        "keypoints2d" is the mean distance of projected keypoints from labelled ones, in % of the crop's side. What no row has a label for
        is left out.
        """
        measured: dict[str, float] = {}
        groups = {"val": self._validation_views(frozen, place) if self._val_set is not None else []}
        if images := self._validation_images(place):
            groups["val_image"] = images
        if images and self.spec.encoder_channels:
            groups["val_image_only"] = [shown(batch, "image") for batch in images]
            groups["val_keypoints_only"] = [shown(batch, "keypoints") for batch in images]
        if images and self.spec.keypoints3d:
            alone = [shown(batch, "keypoints") for batch in images]
            groups["val_2d_only"] = [{name: value for name, value in batch.items() if name != "keypoints3d"} for batch in alone]
        if not self.spec.num_keypoints:
            groups = {"val_image": groups.get("val_image", [])}  # without keypoints the other groups are the same, or blind
        for group, samples in groups.items():
            for rule, iterations in (("expected", 1), ("expected", 5), ("final", 2), ("final", 5), ("hard", 1), ("hard", 5)):
                rows = [place.host(self._measure(params, frozen, s, jnp.asarray(iterations), rule)) for s in samples]
                for name, count in (("mpjpe", "rows"), ("pa_mpjpe", "rows"), ("keypoints2d", "rows2d")):
                    if total := sum(float(r[count]) for r in rows):
                        measured[f"{group}_{rule}{iterations}_{name}"] = sum(float(r[name]) for r in rows) / total
        return measured

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        meta = {"kind": "genhmr", "spec": dataclasses.asdict(self.spec), "measured": measured, "body": self.config.data.body}
        # Half the size; bfloat16's few mantissa bits also compress. The decoder's outputs are poses: it keeps more of them.
        cast = lambda tree, dtype: jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: E731
        halves = self.frozen["tokenizer"]
        tokenizer = {"encoder": cast(halves["encoder"], jnp.bfloat16), "decoder": cast(halves["decoder"], jnp.float16)}
        save_params(directory, {"genhmr": cast(params, jnp.bfloat16), "tokenizer": tokenizer, "codebook": self.frozen["codebook"]}, meta)


def _gap2d(
    body: smpl_jax.SmplModel, output: smpl_jax.SmplOutput, translation: Float[Array, "B 3"], sample: dict[str, Any]
) -> tuple[Float[Array, "B K 2"], Float[Array, "B K"]]:
    """From labelled keypoints to projected ones in half crop sides, seen by the whole photo's camera, and the labels' confidences."""
    points = keypoint_points(body, output, DETECTED) + translation[:, None]
    projected = camera.project(points, sample["focal"], sample["image_size"] / 2.0)
    gap = camera.to_crop(projected, sample["crop"]) - camera.to_crop(sample["points2d"], sample["crop"])
    return gap, sample.get("points2d_confidence", jnp.ones(gap.shape[:2]))
