"""The baselines' stage: HMR2.0 and TokenHMR trained as published, on the image rows of stage 2."""

import copy
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float, UInt
from smpl_jax import rotations

from genhmr_jax.data.image_rows import ImageRows, with_maps
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, save_params, warm_start
from genhmr_jax.systems.regressors import model, objective
from genhmr_jax.systems.regressors.heads import Body
from genhmr_jax.systems.regressors.model import KINDS, RegressorSpec
from genhmr_jax.systems.regressors.multi_query_system import MultiQuerySystem
from genhmr_jax.systems.regressors.objective import Sample
from genhmr_jax.systems.regressors.system import RegressorSystem
from genhmr_jax.systems.regressors.tokenhmr_tokenizer import CODE_DIM, CODES, TokenDecoder
from genhmr_jax.train.optim import frozen_layers
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place, Task, take_over
from genhmr_jax.train.validation import means, pose_errors

RANDOM = "random"  # a tokenizer of random arrays, for trying things out
READ_OUTS = ("pose", "orient", "hands", "betas", "camera")


class RegressorTask(Task):
    """A regressor's own losses: 3D joints, 2D keypoints, rotations, shape.

    TokenHMR's token decoder and codebook are no parameters: they stay as they were trained, in
    float32.

    Args:
      config: of stage "regressor".
      tokenizer: {"tokenizer": the decoder's arrays, "codebook": (2048, 256)}, for TokenHMR; without
        them the task can be compiled but not run.
      terms: of the weights from which the training starts; they go into the exported model.

    Raises:
      InputError: a model or a loss that the config does not describe correctly.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        tokenizer: dict[str, Any] | None = None,
        terms: tuple[str, ...] = (),
    ):
        self.config, self.terms, self.remat = config, terms, config.remat
        values = config.model.to_dict() | {"crop": "own"}  # of its rows
        queries = values.pop("queries")
        if config.model.kind == "mqhmr":
            values["decoder"] = queries
        self.spec = RegressorSpec.from_dict(values)
        make = MultiQuerySystem if self.spec.kind == "mqhmr" else RegressorSystem
        self.system = make(self.spec)
        self.frozen: dict[str, Any] = {"body": keypoint_model(load_body(config.data.body))}
        if self.spec.kind == "tokenhmr":
            head = self.system.shapes["genhmr"]["head"]
            shapes = {"tokenizer": head["tokens"], "codebook": head["codebook"]}
            self.frozen |= tokenizer or shapes
        self.images = ImageRows(config, self.spec.encoder)
        for name, count in (("points2d", len(DETECTED)), ("angles", 24)):
            given = len(config.loss.loose[name])
            if given != count:
                where = f"--config.loss.loose.{name}"
                raise InputError(where, f"has {given} numbers", f"give {count}")

    def without_remat(self) -> "RegressorTask":
        task = copy.copy(self)
        task.remat = "none"
        return task

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """New parameters, whose first answer is nearly the mean body.

        With another one, the 2D term would move the body out of the picture.
        """
        params = model.init(self.spec, key)
        head = {n: part for n, part in params["head"].items() if n not in ("tokens", "codebook")}
        for name in READ_OUTS:
            if name in head:
                head[name] = head[name] | {"kernel": 0.01 * head[name]["kernel"]}
        head["mean"] = head["mean"] | {"pose": self._mean_pose()}
        return params | {"head": head}, {}

    def _mean_pose(self) -> Float[Array, "144"]:
        """The mean pose, upright before the camera, as 6D.

        For TokenHMR zero for the joints of the tokens, so that the tokens' pose is the answer.
        """
        matrices = rotations.axis_angle_to_matrix(jnp.asarray(MEAN_POSE_72).reshape(24, 3))
        if self.spec.kind == "hmr2":
            return rotations.matrix_to_rot6d(matrices, self.spec.layout).reshape(144)
        rows = rotations.matrix_to_rot6d(matrices, "rows")
        return (rows.at[1:22].set(0.0) if self.spec.kind == "tokenhmr" else rows).reshape(144)

    def warm_start(self, params: Any) -> Any:
        mean_pose = params["head"]["mean"]["pose"]
        params = take_over(self.config.init, params, "genhmr")
        if self.config.init and load_meta(self.config.init)["kind"] != self.spec.kind:
            # Another kind's mean pose is in another layout of 6D.
            params["head"]["mean"]["pose"] = mean_pose
        return params

    def sources(self) -> dict[str, Any]:
        return {"images": self.images.source(self.config.loss.loose.exact)}

    def batch_shapes(self) -> dict[str, Any]:
        return {"images": self.images.shapes(exact=True)}

    def prepare(self, frozen: Any, batch: dict[str, Rows]) -> Sample:
        rows = _in_own_axes(batch["images"], self.spec)
        return objective.prepare(rows, self.config, self.spec.depth)

    def bodies(
        self,
        params: Any,
        frozen: Any,
        images: UInt[Array, "B 256 256 3"] | None,
        drop_path: Float[Array, "B depth 2"] | None = None,
        maps: list[Float[Array, "B H W _"]] | None = None,
    ) -> Body:
        """The network's answers for crops, or maps of a frozen encoder."""
        head = jax.tree.map(lambda x: x, params["head"])
        head["mean"] = jax.lax.stop_gradient(head["mean"])  # it came with the checkpoint, and stays
        if self.spec.kind == "tokenhmr":
            head |= {"tokens": frozen["tokenizer"], "codebook": frozen["codebook"]}
        network = nnx.merge(self.system.model, params | {"head": head})
        if maps is not None:
            return network(None, remat=self.remat, maps=[m.astype(jnp.float32) for m in maps])
        frozen_first = frozen_layers(self.config, self.spec.depth)
        return network(images.astype(jnp.float32) / 255.0, drop_path, self.remat, frozen_first)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Sample
    ) -> tuple[jax.Array, dict[str, Any]]:
        body = self.bodies(params, frozen, sample.images, sample.drop_path, sample.maps)
        terms, metrics = objective.terms(frozen["body"], body, sample, self.config)
        total = sum(self.config.loss[name] * value for name, value in terms.items())
        return total, {"terms": terms, "metrics": metrics, "carry": {}}

    @functools.cached_property
    def _measure(self):
        task = self.without_remat()

        @jax.jit
        def measure(params: Any, frozen: Any, rows: Rows) -> dict[str, jax.Array]:
            rows = _in_own_axes(rows, task.spec)
            body = task.bodies(params, frozen, rows.images, maps=rows.maps)
            joints = smpl_jax.forward(frozen["body"], body.betas, body.rotmats).joints
            return pose_errors(joints, rows.joints, rows.weight)

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """MPJPE and PA-MPJPE of the 24 joints in mm; nothing without validation rows."""
        sums = [
            place.host(self._measure(params, frozen, rows))
            for rows in self.images.validation(place)
        ]
        return {f"val_{name}_mm": value for name, value in means(sums).items()}

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        """The model in the form that `genhmr convert` gives, with the terms of its weights."""
        head = dict(params["head"])
        if self.spec.kind == "tokenhmr":
            head |= {"tokens": self.frozen["tokenizer"], "codebook": self.frozen["codebook"]}
        meta = {
            "kind": self.spec.kind,
            "spec": dataclasses.asdict(self.spec),
            "measured": measured,
            "body": self.config.data.body,
        }
        if self.terms:
            meta["terms"] = "; ".join(self.terms)
        save_params(directory, {"genhmr": params | {"head": head}}, meta)


def make_task(config: ml_collections.ConfigDict) -> RegressorTask:
    """The task over the models in the folders `config.tokenizer` and `config.init`.

    Raises:
      InputError: a folder is no such model, or TokenHMR has no tokenizer.
    """
    tokenizer, is_random = None, config.tokenizer == RANDOM
    if config.model.kind == "tokenhmr":
        tokenizer = _random_tokenizer(config.seed) if is_random else _tokenizer(config.tokenizer)
    used = {config.init, "" if is_random else config.tokenizer} - {""}
    metas = {folder: load_meta(folder) for folder in sorted(used)}
    if config.init:
        _check_start(config, metas[config.init])
    terms = sorted({terms for meta in metas.values() if (terms := meta.get("terms"))})
    return RegressorTask(config, tokenizer, tuple(terms))


def abstract_task(
    config: ml_collections.ConfigDict, *_: ml_collections.ConfigDict
) -> RegressorTask:
    """The task with shapes in place of TokenHMR's trained tokenizer."""
    return RegressorTask(config)


def _in_own_axes(rows: Rows, spec: RegressorSpec) -> Rows:
    """The rows with the maps of a frozen encoder, and with the labels in the axes of the maps."""
    rows = with_maps(rows, spec.encoder)
    if not spec.upright:
        return rows
    inputs = rows.inputs()
    return dataclasses.replace(rows.turned(*inputs.view.upright()), maps=inputs.maps)


def _check_start(config: ml_collections.ConfigDict, meta: dict[str, Any]) -> None:
    """Raises InputError where the model to start from does not fit the config."""
    if meta.get("kind") not in ("vit", "genhmr", *KINDS):
        remedy = "give a folder that `genhmr convert` made, or the model of a training"
        raise InputError(config.init, "has no image encoder", remedy)
    layout = meta["spec"].get("layout")
    if config.model.kind == "hmr2" and layout not in (None, config.model.layout):
        remedy = f"give --config.model.layout={layout}"
        raise InputError(config.init, f"has 6D rotations as {layout}", remedy)


def _tokenizer(folder: str) -> dict[str, Any]:
    """Token decoder and codebook of the TokenHMR in a model folder, float32."""
    remedy = (
        "give --config.tokenizer=DIR, a folder of TokenHMR that `genhmr convert` or a training made"
    )
    if not folder:
        problem = "is not given, and TokenHMR predicts the codes of a trained tokenizer"
        raise InputError("--config.tokenizer", problem, remedy)
    if (kind := load_meta(folder).get("kind")) != "tokenhmr":
        raise InputError(folder, f"is a {kind!r} model and holds no TokenHMR tokenizer", remedy)
    shapes = model.graph(RegressorSpec("tokenhmr", "vit_s"))[1]["head"]
    names = ("tokens", "codebook")
    like = {n: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[n]) for n in names}
    params, report = warm_start(folder, {"head": like}, "genhmr")
    if wrong := report["missing"] + report["misfit"]:
        problem = f"its tokenizer is incomplete ({wrong[0]})"
        raise InputError(folder, problem, "convert or export it again")
    return {"tokenizer": params["head"]["tokens"], "codebook": params["head"]["codebook"]}


def _random_tokenizer(seed: int) -> dict[str, Any]:
    keys = jax.random.split(stream(seed, "random_tokenizer"))
    decoder = nnx.to_pure_dict(nnx.split(TokenDecoder(rngs=nnx.Rngs(keys[0])))[1])
    return {"tokenizer": decoder, "codebook": jax.random.normal(keys[1], (CODES, CODE_DIM))}
