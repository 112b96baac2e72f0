"""The baselines' stage: HMR2.0 and TokenHMR trained as published, on the same rows of images as stage 2.

Their losses are sums over the batch and over the elements of each label. Here a batch's loss is the same sum divided by its rows, those
without the label too: terms keep the published proportions, and AdamW does not see the common factor. HMR2.0's adversarial term is left
out, as in TokenHMR.
"""

import copy
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

from genhmr_jax.core import encoders, losses
from genhmr_jax.data.image_rows import ImageRows, rooted
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.geometry.metrics import distances, masked_mean, mpjpe, pa_mpjpe
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, save_params, warm_start
from genhmr_jax.nets.vit import drop_path_factors
from genhmr_jax.systems.regressors import model
from genhmr_jax.systems.regressors.heads import Body
from genhmr_jax.systems.regressors.model import KINDS, RegressorSpec
from genhmr_jax.systems.regressors.tokenhmr_tokenizer import CODE_DIM, CODES, TokenDecoder
from genhmr_jax.train.optim import still_layers
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import take_over

RANDOM = "random"  # a tokenizer of random arrays, for trying things out
LABELS = ("joints3d", "joints2d", "rotation", "betas")
READ_OUTS = ("pose", "orient", "hands", "betas", "camera")
CROP_PX, CROP_FOCAL = 256.0, 5000.0  # the crop camera of HMR and its descendants


class RegressorTask:
    """A regressor's own losses: 3D joints, 2D keypoints, rotations, shape.

    TokenHMR's token decoder and codebook are no parameters: they stay as they were trained, in float32.

    Args:
      tokenizer: {"tokenizer": the decoder's arrays, "codebook": (2048, 256)}, for TokenHMR; without them the task can be compiled but not
        run.
    """

    def __init__(self, config: ml_collections.ConfigDict, tokenizer: dict[str, Any] | None = None):
        self.config = config
        try:
            self.spec = RegressorSpec.from_dict(config.model.to_dict() | {"crop": "own"})  # of its rows
        except ValueError as error:
            raise InputError("--config.model", str(error), "choose a kind and an encoder of these") from error
        self.graph, shapes = model.graph(self.spec)
        self.frozen: dict[str, Any] = {"body": keypoint_model(load_body(config.data.body))}
        if self.spec.kind == "tokenhmr":
            self.frozen |= tokenizer or {"tokenizer": shapes["head"]["tokens"], "codebook": shapes["head"]["codebook"]}
        self.images, self.remat, self.terms = ImageRows(config, self.spec.encoder), config.remat, []
        loose = config.loss.loose
        for name, count in (("points2d", len(DETECTED)), ("angles", 24)):
            if len(loose[name]) != count:
                raise InputError(f"--config.loss.loose.{name}", f"has {len(loose[name])} numbers", f"give {count}")

    @staticmethod
    def from_models(config: ml_collections.ConfigDict) -> "RegressorTask":
        """The task over the models in the folders `config.tokenizer` and `config.init`.

        Raises:
          InputError: a folder is no such model, or TokenHMR has no tokenizer.
        """
        tokenizer = None
        if config.model.kind == "tokenhmr":
            tokenizer = _random_tokenizer(config.seed) if config.tokenizer == RANDOM else _tokenizer(config.tokenizer)
        task, used = RegressorTask(config, tokenizer), {config.init, "" if config.tokenizer == RANDOM else config.tokenizer}
        metas = {folder: load_meta(folder) for folder in sorted(used - {""})}
        if config.init and metas[config.init].get("kind") not in ("vit", "genhmr", *KINDS):
            raise InputError(config.init, "has no image encoder", "give a folder that `genhmr convert` made, or the model of a training")
        layout = metas[config.init]["spec"].get("layout") if config.init else None
        if task.spec.kind == "hmr2" and layout not in (None, task.spec.layout):
            raise InputError(config.init, f"has 6D rotations as {layout}", f"give --config.model.layout={layout}")
        task.terms = sorted({terms for meta in metas.values() if (terms := meta.get("terms"))})
        return task

    def without_remat(self) -> "RegressorTask":
        task = copy.copy(self)
        task.remat = "none"
        return task

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """New parameters, whose first answer is the mean body, nearly: a far one would throw the 2D term out of the picture."""
        params = model.init(self.spec, key)
        head = {name: part for name, part in params["head"].items() if name not in ("tokens", "codebook")}
        for name in READ_OUTS:
            if name in head:
                head[name] = head[name] | {"kernel": 0.01 * head[name]["kernel"]}
        head["mean"] = head["mean"] | {"pose": self._mean_pose()}
        return params | {"head": head}, {}

    def _mean_pose(self) -> Float[Array, "144"]:
        """The mean pose, upright before the camera, as 6D; for TokenHMR zero where the tokens speak, so that their pose is the answer."""
        matrices = rotations.axis_angle_to_matrix(jnp.asarray(MEAN_POSE_72).reshape(24, 3))
        if self.spec.kind == "hmr2":
            return rotations.matrix_to_rot6d(matrices, self.spec.layout).reshape(144)
        return rotations.matrix_to_rot6d(matrices, "rows").at[1:22].set(0.0).reshape(144)

    def warm_start(self, params: Any) -> Any:
        mean_pose = params["head"]["mean"]["pose"]
        params = take_over(self.config.init, params)
        if self.config.init and load_meta(self.config.init)["kind"] != self.spec.kind:
            params["head"]["mean"]["pose"] = mean_pose  # another kind's is in another layout of 6D
        return params

    def sources(self) -> dict[str, Any]:
        source = self.images.source()
        return {"images": Trusted(source, self._exact(source)) if self.images.are_photos else source}

    def _exact(self, source: Any) -> Float[np.ndarray, "datasets"]:
        """1 for each dataset of the mixture whose bodies are exact, 0 for one whose bodies were fitted to 2D keypoints."""
        return np.array([dataset.name in self.config.loss.loose.exact for dataset in source.datasets], np.float32)

    def batch_shapes(self) -> dict[str, Any]:
        exact = {"exact": jax.ShapeDtypeStruct((self.images.size,), jnp.float32)} if self.images.are_photos else {}
        return {"images": self.images.shapes() | exact}

    def prepare(self, frozen: Any, batch: Any) -> Any:
        rows, size = batch["images"], self.images.size
        ones = jnp.ones(size)
        exact = rows.get("exact", ones) if self.is_loose else ones
        sample = {name: rows[name] for name in ("images", "rotmats", "betas", "joints")} | {"exact": exact}
        sample["points2d"] = camera.to_crop(rows["points2d"], rows["crop"]) / 2.0
        for name, count in (("joints", 24), ("points2d", len(DETECTED))):
            sample[f"{name}_confidence"] = rows.get(f"{name}_confidence", jnp.ones((size, count)))
        sample["weights"] = {name: rows.get(f"has_{name}", ones) / size for name in LABELS}
        for name in ("joints3d", "betas"):  # tokenhmr/lib/models/tokenhmr.py, L227 and L240
            sample["weights"][name] *= exact
        sample["measured"] = losses.normalised(sample["weights"]["joints3d"])
        if self.config.drop_path:
            seeds = stream(self.config.seed, "drop_path")
            keys = jax.vmap(lambda number: jax.random.fold_in(seeds, number))(rows["number"])
            sample["drop_path"] = drop_path_factors(keys, self.spec.vit.depth, self.config.drop_path)
        return sample

    @property
    def is_loose(self) -> bool:
        """Whether small errors count less (TokenHMR)."""
        return self.config.loss.loose.weight < 1

    def bodies(self, params: Any, frozen: Any, sample: Any) -> Body:
        """What the network says of prepared rows."""
        head = jax.tree.map(lambda x: x, params["head"])
        head["mean"] = jax.lax.stop_gradient(head["mean"])  # it came with the checkpoint, and stays
        if self.spec.kind == "tokenhmr":
            head |= {"tokens": frozen["tokenizer"], "codebook": frozen["codebook"]}
        images = encoders.from_stored(sample)["images"]
        still = still_layers(self.config, self.spec.vit.depth)
        return nnx.merge(self.graph, params | {"head": head})(images, sample.get("drop_path"), self.remat, still)

    def loss(self, params: Any, extra: Any, frozen: Any, sample: Any) -> tuple[jax.Array, dict[str, Any]]:
        body, weights, loose = self.bodies(params, frozen, sample), sample["weights"], self.config.loss.loose
        output = smpl_jax.forward(frozen["body"], body.betas, body.rotmats)
        known, seen = sample["joints_confidence"], sample["points2d_confidence"]
        joints = rooted(output.joints, known), rooted(sample["joints"], known)
        points = in_crop(keypoint_points(frozen["body"], output, DETECTED), body.weak_camera)
        angle_weight = jnp.ones(seen.shape[:1] + (24,))
        if self.is_loose:
            # Times the confidence, as published (tokenhmr/lib/models/tokenhmr.py, L218).
            squared = seen * jnp.sum((points - sample["points2d"]) ** 2, -1)
            seen = seen * loosened(squared, jnp.array(loose.points2d) ** 2, loose.weight)
            angles = rotations.geodesic_angle(body.rotmats, sample["rotmats"])
            angle_weight = loosened(angles, jnp.array(loose.angles), jnp.where(sample["exact"] > 0, 1.0, loose.weight)[:, None])
        turned = angle_weight * jnp.sum((body.rotmats - sample["rotmats"]) ** 2, (-1, -2))
        rows = {
            "joints3d": weights["joints3d"] * jnp.sum(known * jnp.sum(jnp.abs(joints[0] - joints[1]), -1), -1),
            "joints2d": weights["joints2d"] * jnp.sum(seen * jnp.sum(jnp.abs(points - sample["points2d"]), -1), -1),
            "orient": weights["rotation"] * turned[:, 0],
            "pose": weights["rotation"] * jnp.sum(turned[:, 1:], -1),
            "betas": weights["betas"] * jnp.sum((body.betas - sample["betas"]) ** 2, -1),
        }
        terms = {name: jnp.sum(values) for name, values in rows.items()}
        metrics = {"mpjpe_mm": 1000 * jnp.sum(sample["measured"] * masked_mean(distances(*joints), known))}
        total = sum(self.config.loss[name] * value for name, value in terms.items())
        return total, {"terms": terms, "metrics": metrics, "carry": {}}

    def next_extra(self, extra: Any, carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        return extra, {}

    @functools.cached_property
    def _measure(self):
        task = self.without_remat()

        @jax.jit
        def measure(params: Any, frozen: Any, sample: dict) -> dict[str, jax.Array]:
            body = task.bodies(params, frozen, {"images": sample["images"]})
            joints, weight = smpl_jax.forward(frozen["body"], body.betas, body.rotmats).joints, sample["weight"]
            both = joints, sample["joints"]
            sums = {"mpjpe": 1000 * mpjpe(*both), "pa_mpjpe": 1000 * pa_mpjpe(*both), "rows": jnp.ones_like(weight)}
            return {name: jnp.sum(weight * value) for name, value in sums.items()}

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Any) -> dict[str, float]:
        """MPJPE and PA-MPJPE of the 24 joints in mm, of the network's one answer; nothing without validation rows."""
        names = ("images", "joints", "weight")
        batches = ({name: batch[name] for name in names} for batch in self.images.validation(place))
        sums = [place.host(self._measure(params, frozen, batch)) for batch in batches]
        people = sum(part["rows"] for part in sums)
        return {f"val_{name}_mm": float(sum(part[name] for part in sums) / people) for name in ("mpjpe", "pa_mpjpe") if people}

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        """The model in the form that `genhmr convert` gives, with the terms of the weights that it was made from."""
        head = dict(params["head"])
        if self.spec.kind == "tokenhmr":
            head |= {"tokens": self.frozen["tokenizer"], "codebook": self.frozen["codebook"]}
        meta = {"kind": self.spec.kind, "spec": dataclasses.asdict(self.spec), "measured": measured, "body": self.config.data.body}
        save_params(directory, {"genhmr": params | {"head": head}}, meta | ({"terms": "; ".join(self.terms)} if self.terms else {}))


@dataclasses.dataclass(frozen=True)
class Trusted:
    """Rows of a mixture with "exact" (b,) float32: whether the body of each is one of a dataset that knows it.

    Attributes:
      source: data.people.PeopleSource.
      exact: for each of its datasets.
    """

    source: Any
    exact: Float[np.ndarray, "datasets"]

    @property
    def size(self) -> int:
        """Rows of the global batch."""
        return self.source.size

    def load(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """The samples with these global numbers (b,)."""
        return self.source.load(numbers) | {"exact": self.exact[self.source.draw(np.asarray(numbers))[0]]}

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one sample."""
        return self.source.shapes() | {"exact": jax.ShapeDtypeStruct((), np.float32)}


def in_crop(points: Float[Array, "B K 3"], weak_camera: Float[Array, "B 3"]) -> Float[Array, "B K 2"]:
    """Body points (metres, relative to the model's origin) seen by the crop camera, in crop sides from the crop's middle.

    HMR's crop camera: a picture of 256 x 256 px under a focal length of 5000 px, so nearly without perspective; the translation is
    [tx, ty, 2 f / (256 s)].
    """
    rows = weak_camera.shape[0]
    side = jnp.full((rows,), CROP_PX)
    view = jnp.stack([side / 2, side / 2, side], -1), jnp.stack([side, side], -1), jnp.full((rows,), CROP_FOCAL)
    translation = camera.weak_to_translation(weak_camera, *view)
    projected = camera.project(points + translation[:, None], view[2], view[1] / 2.0)
    return camera.to_crop(projected, view[0]) / 2.0


def loosened(error: Float[Array, "B K"], threshold: Float[Array, "K"], weight: Any) -> Float[Array, "B K"]:
    """What TokenHMR's threshold-adaptive loss scaling multiplies terms with: `weight` where the error is below its threshold, else 1.

    A body need not follow a label more closely than the label, or the crop camera, is right (Dwivedi et al. 2024, §3.2).
    """
    return jnp.where(error < threshold, weight, 1.0)


def _tokenizer(folder: str) -> dict[str, Any]:
    """Token decoder and codebook of the TokenHMR in a model folder, float32."""
    remedy = "give --config.tokenizer=DIR, a folder of TokenHMR that `genhmr convert` or a training made"
    if not folder:
        raise InputError("--config.tokenizer", "is not given, and TokenHMR speaks in the codes of a trained tokenizer", remedy)
    if (kind := load_meta(folder).get("kind")) != "tokenhmr":
        raise InputError(folder, f"is a {kind!r} model and holds no TokenHMR tokenizer", remedy)
    shapes = model.graph(RegressorSpec("tokenhmr", "vit_s"))[1]["head"]
    like = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), {name: shapes[name] for name in ("tokens", "codebook")})
    params, report = warm_start(folder, {"head": like})
    if wrong := report["missing"] + report["misfit"]:
        raise InputError(folder, f"its tokenizer is not whole ({wrong[0]})", "convert or export it again")
    return {"tokenizer": params["head"]["tokens"], "codebook": params["head"]["codebook"]}


def _random_tokenizer(seed: int) -> dict[str, Any]:
    keys = jax.random.split(stream(seed, "random_tokenizer"))
    decoder = nnx.to_pure_dict(nnx.split(TokenDecoder(rngs=nnx.Rngs(keys[0])))[1])
    return {"tokenizer": decoder, "codebook": jax.random.normal(keys[1], (CODES, CODE_DIM))}
