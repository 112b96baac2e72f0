"""The main job: photo -> people. `load().recover(image)` detects, crops, encodes once, samples, refines and poses the body."""

import dataclasses
import functools
import importlib.resources
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from smpl_jax import rotations

from genhmr_jax.core.refinement import RefineSpec, refine, reprojection
from genhmr_jax.detect.observed import Observed, can_recover, observe
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, keypoint_points, surface_model
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.recover.people import People
from genhmr_jax.systems.genhmr.model import GenHmrSpec
from genhmr_jax.systems.genhmr.system import CONTEXTS, Networks, repeat_encoded, shown
from genhmr_jax.systems.regressors.model import KINDS, RegressorSpec
from genhmr_jax.systems.regressors.system import RegressorNetworks

ITERATIONS = 5
"""Of sampling, as in the paper."""
DRAWING = 2**16
"""Folded into a key for the draws that measure confidence: sampling folds in its steps, which are fewer."""


@dataclasses.dataclass(frozen=True)
class RecoverOptions:
    """How to recover. The defaults are those under which the model card was measured.

    Attributes:
      iterations: T of uncertainty-guided sampling. None: ITERATIONS for hypotheses, which must each hang together; 1 for one answer,
        since the mean that it decodes is nearest to the truth when nothing is conditioned on a guess (docs/evaluation.md).
      temperature: 0 takes the most probable tokens; several hypotheses need more than 0 (then 1 is taken).
      hypotheses: K samples per person; the one of the lowest refined loss comes first.
      refine_steps: gradient steps on the token embeddings; 0 for none; None for the model's own number (regressors: 0).
      focal: focal length in px, or None.
      fov: field of view in degrees over the longer side, if `focal` is None; if both are None, the image diagonal is the focal length.
      principal_point: x, y in px; None is the middle of the image.
      seed: of the random draws.
      max_people: the most people, those of the largest score times box side; None is 10 whom the detector finds, or all who are given.
      context: what the network is shown (predict.CONTEXTS): "all", or "image" or "keypoints" alone. The refinement meets the keypoints
        whatever it is.
    """

    iterations: int | None = None
    temperature: float = 0.0
    hypotheses: int = 1
    refine_steps: int | None = None
    focal: float | None = None
    fov: float | None = None
    principal_point: tuple[float, float] | None = None
    seed: int = 0
    max_people: int | None = None
    context: str = "all"

    def __post_init__(self) -> None:
        for name, low in (("iterations", 1), ("temperature", 0), ("hypotheses", 1), ("refine_steps", 0), ("max_people", 1)):
            if getattr(self, name) is not None and not getattr(self, name) >= low:
                raise ValueError(f"{name} is {getattr(self, name)}: at least {low} is needed")
        if self.context not in CONTEXTS:
            raise ValueError(f"context is {self.context!r}: choose among {', '.join(CONTEXTS)}")
        if self.focal is not None and not 0 < self.focal < np.inf:
            raise ValueError(f"focal is {self.focal}: a positive number of pixels is needed")
        if self.fov is not None and not 0 < self.fov < 180:
            raise ValueError(f"fov is {self.fov}: degrees between 0 and 180 are needed")
        if self.principal_point is not None and not np.isfinite(self.principal_point).all():
            raise ValueError(f"principal_point is {self.principal_point}: two finite numbers of pixels are needed")

    def focal_length(self, width: int, height: int) -> float:
        """Focal length in px for an image of this size."""
        if self.focal is not None:
            return float(self.focal)
        return camera.focal_from_fov(self.fov, width, height) if self.fov is not None else camera.default_focal(width, height)

    def principal(self, width: int, height: int) -> tuple[float, float]:
        """Principal point in px for an image of this size."""
        return self.principal_point if self.principal_point is not None else (width / 2.0, height / 2.0)


def default_checkpoint() -> pathlib.Path:
    """The folder of the shipped model."""
    return pathlib.Path(str(importlib.resources.files("genhmr_jax") / "assets" / "default"))


def load(checkpoint: str | pathlib.Path | None = None, body: str | pathlib.Path = "neutral", model: str | None = None) -> "Recoverer":
    """The recoverer of a checkpoint (default: the shipped one) with a body.

    Args:
      checkpoint: model folder (config.json and params), as training or `genhmr convert` makes it.
      body: "neutral", "male", "female", "lite" (the free body), or the path of an SMPL file.
      model: "genhmr", "hmr2" or "tokenhmr": what the checkpoint must be. None: whatever it is.

    Raises:
      InputError, ValueError, FileNotFoundError: with one line that says which file is wrong and what to do.
    """
    if checkpoint is None and model not in (None, "genhmr"):
        remedy = "make one with `genhmr convert FILE --out DIR`, or train one (configs/regressor.py), and give it with --checkpoint DIR"
        raise InputError(f"--model {model}", "no checkpoint of it comes with the package", remedy)
    directory = pathlib.Path(checkpoint) if checkpoint is not None else default_checkpoint()
    meta = load_meta(directory)
    kind = meta.get("kind")
    if kind not in ("genhmr", *KINDS):
        remedy = "start a training from it with --config.init" if kind == "vit" else "give the model folder of stage 2"
        raise InputError(directory, f"is a {kind!r} model", remedy)
    if model not in (None, kind):
        raise InputError(directory, f"is a {kind} model, not {model}", f"give the checkpoint of a {model}, or --model {kind}")
    try:
        if kind == "genhmr":
            networks = Networks.of(GenHmrSpec.from_dict(meta["spec"]))
        else:
            networks = RegressorNetworks.of(RegressorSpec.from_dict(meta["spec"]))
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(directory / "config.json", f"does not describe a model ({error})", "export the model again") from error
    return Recoverer(networks, load_params(directory, networks.shapes), load_body(body))


@dataclasses.dataclass(frozen=True)
class Recoverer:
    """A model and a body, ready for photos."""

    networks: Networks | RegressorNetworks
    params: dict[str, Any]
    body: smpl_jax.SmplModel

    @functools.cached_property
    def _surface_body(self) -> smpl_jax.SmplModel:
        return surface_model(self.body)

    def recover(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        keypoints: np.ndarray | None = None,
        options: RecoverOptions = RecoverOptions(),
    ) -> People:
        """The people of one photo.

        Args:
          image: uint8 (H, W, 3), RGB.
          boxes: (P, 4) xyxy px, in place of person detection. No rows mean that nobody is there: the detector is not asked.
          keypoints: (P, 23, 3) px and confidence in the order of DETECTED, in place of 2D pose estimation. With boxes: of the same people,
            in the same order.

        Returns:
          the people of whom enough is seen (4 keypoints, or a box for regressors). `given_index` says which of the given they are.

        Raises:
          ValueError: `image` is no uint8 (H, W, 3) array; boxes or keypoints of another shape, not finite, or of different numbers of
            people; a box outside the image.
        """
        seen = self.see(image, boxes, keypoints, options)
        height, width = image.shape[:2]
        seen = seen.only(can_recover(seen.keypoints) | self.networks.crops_by_box)
        boxes, keypoints = seen.boxes, seen.keypoints
        count = len(keypoints)
        padded = 1 << max(count - 1, 0).bit_length()  # few shapes, few compilations; results do not depend on the padding
        focal, principal = options.focal_length(width, height), options.principal(width, height)
        inputs = self.encode(self.view(image, seen, focal, padded, principal))
        found = jax.tree.map(lambda x: np.asarray(x)[:count], self.solve(inputs, np.arange(padded), options))
        return People(
            boxes=boxes,
            given_index=seen.given,
            left_out=np.int32(seen.left_out),
            keypoints2d=keypoints,
            keypoint_names=np.array(DETECTED),
            focal_length=np.float32(focal),
            principal_point=np.array(principal),
            image_size=np.array([width, height]),
            faces=np.asarray(self.body.faces),
            joint_names=np.array(self.body.joint_names),
            **found,
        )

    def view(
        self,
        image: np.ndarray,
        people: Observed,
        focal: float,
        rows: int,
        principal: tuple[float, float] | None = None,
        blur: bool = True,
    ) -> dict[str, np.ndarray]:
        """What the networks see of the people of one photo, before any network: `rows` rows, empty ones after the people's.

        Views of several photos can be joined, row by row.

        Args:
          image: uint8 (H, W, 3), RGB.
          people: of `see`; keypoints below MIN_CONFIDENCE count as not seen. Boxes are for networks that crop by them (regressors).
          focal: px.
          rows: at least P.
          principal: principal point, px; None is the middle of the image.
          blur: of published regressors' crops, see models/baselines/crop.py.
        """
        seen, lifted = np.zeros((2, rows, len(DETECTED), 3), np.float32)
        seen[: len(people)] = np.where(people.keypoints[..., 2:] >= MIN_CONFIDENCE, people.keypoints, 0.0)
        lifted[: len(people)] = people.keypoints3d
        view = {
            "keypoints": seen,
            "keypoints3d": lifted,
            "crop": np.array(camera.crop_around(jnp.asarray(seen[..., :2]), jnp.asarray(seen[..., 2]))),
            "image_size": np.tile(camera.centred_size(principal or (image.shape[1] / 2, image.shape[0] / 2)), (rows, 1)),
            "focal": np.full(rows, focal, np.float32),
        }
        for row, box in enumerate(people.boxes if self.networks.crops_by_box else ()):
            if (box[2:] > box[:2]).all():  # not of Observed.nobody, which is no person
                view["crop"][row] = camera.square_around(box)
        masks = people.masks.padded(rows)
        view |= masks.targets(seen, view["crop"], image.shape[1], image.shape[0])
        if self.networks.spec.upright:
            looks = people.looks.padded(rows)
            looked = looks.inner.any((1, 2, 3, 4))
            region = np.where(looked[:, None], looks.regions, np.pad(view["crop"], ((0, 0), (0, 1))))
            view |= {"inner": looks.inner, "region": region, "image_weight": looked.astype(np.float32)}
        elif self.networks.spec.encoder_channels:
            from genhmr_jax.core import encoders

            crops, how = view["crop"][: len(people)], self.networks.crop
            view["pixels"] = np.asarray(encoders.crop_images(image, crops, rows, how, blur))
        return view

    def encode(self, view: dict[str, np.ndarray]) -> dict[str, Any]:
        """Views as inputs of `solve`: a frozen image encoder has run, so that solving again costs nothing for it."""
        from genhmr_jax.core import encoders

        inputs = {name: jnp.asarray(value) for name, value in view.items()}
        if "inner" in inputs:
            inputs["maps"] = encoders.maps_of_looks(inputs.pop("inner"))
        if "pixels" in inputs:
            pixels = inputs.pop("pixels")
            if self.networks.spec.trains_encoder:
                inputs["images"] = pixels
            else:
                inputs["maps"] = encoders.encode(self.networks.spec.encoder, pixels)
        return inputs

    def solve(self, inputs: dict[str, Any], numbers: np.ndarray, options: RecoverOptions) -> dict[str, jax.Array]:
        """The recovered fields of `People` for each row of the inputs.

        Args:
          inputs: of `encode`.
          numbers: one for each row: its random draws follow from the seed and this number, whatever the other rows are.
          options: its focal length and principal point are not used (the inputs have theirs).

        Raises:
          InputError: the network cannot do with the options' context.
        """
        if options.context not in self.networks.contexts:
            raise InputError(f"--context {options.context}", "is not what this model sees", f"choose {' or '.join(self.networks.contexts)}")
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(options.seed)))(jnp.asarray(numbers))
        several = options.hypotheses > 1
        temperature = options.temperature if options.temperature or not several else 1.0
        return _solve(
            self.networks,
            self.params,
            self.body,
            self._surface_body,
            inputs,
            keys,
            jnp.asarray(options.iterations or (ITERATIONS if several else 1)),
            jnp.asarray(temperature, jnp.float32),
            options.hypotheses,
            RefineSpec(steps=self.networks.refine_steps if options.refine_steps is None else options.refine_steps),
            options.context,
        )

    def see(self, image: np.ndarray, boxes: np.ndarray | None, keypoints: np.ndarray | None, options: RecoverOptions) -> Observed:
        """Boxes and keypoints: the user's own, or the detector's. Raises ValueError as `recover` does."""
        lift = self.networks.spec.keypoints3d or self.networks.spec.upright
        return observe(image, boxes, keypoints, max_people=options.max_people, lift=lift)


@functools.partial(jax.jit, static_argnames=("networks", "hypotheses", "spec", "context"))
def _solve(
    networks: Networks | RegressorNetworks,
    params: dict[str, Any],
    body: smpl_jax.SmplModel,
    keypoint_body: smpl_jax.SmplModel,
    inputs: dict[str, Any],
    keys: jax.Array,
    iterations: jax.Array,
    temperature: jax.Array,
    hypotheses: int,
    spec: RefineSpec,
    context: str,
) -> dict[str, jax.Array]:
    """Inputs of B crops -> the arrays of `People`, K hypotheses inside."""
    batch, k = keys.shape[0], hypotheses
    encoded = networks.encode(params, shown(inputs, context))
    seen = ("crop", "image_size", "focal", "region", "outline", "outside", "trust")
    view = {name: jnp.repeat(inputs[name], k, 0) for name in seen if name in inputs}
    keypoints = jnp.repeat(inputs["keypoints"], k, 0)
    keys = jax.vmap(lambda key: jax.random.split(key, k))(keys).reshape(-1)
    many = repeat_encoded(encoded, k)
    # The mean of a distribution serves one answer best; several hypotheses shall differ, so they decode the codes drawn.
    rule = "expected" if k == 1 else "hard"
    samples, embeddings = networks.sample(params, many, keys, iterations=iterations, temperature=temperature, rule=rule)
    decode = networks.decoder(params, view)
    sampled = reprojection(keypoint_body, decode(embeddings), many.betas, many.weak_camera, view)
    refined = refine(decode, keypoint_body, embeddings, many.betas, many.weak_camera, keypoints, view, spec)

    rotmats = decode(refined.embeddings)
    output = smpl_jax.forward(body, refined.betas, rotmats)
    translation = camera.weak_to_translation(refined.weak_camera, view["crop"], view["image_size"], view["focal"])
    joints, vertices = output.joints + translation[:, None], output.vertices + translation[:, None]
    centre = view["image_size"] / 2.0  # the principal point, see camera.centred_size
    points = keypoint_points(body, output, DETECTED) + translation[:, None]
    final_loss = jnp.min(refined.loss, 0).reshape(batch, k)
    best = jnp.argmin(final_loss, 1)

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x.reshape(batch, k, *x.shape[1:]), best.reshape(-1, *[1] * x.ndim), 1)[:, 0]

    axis_angle = rotations.matrix_to_axis_angle(rotmats)
    drawing = jax.vmap(lambda key: jax.random.fold_in(key, DRAWING))(keys)
    confidence = networks.joint_confidence(params, many, keypoint_body, decode(embeddings), drawing)
    found = {
        "global_orient": pick(axis_angle[:, 0]),
        "body_pose": pick(axis_angle[:, 1:].reshape(-1, 69)),
        "betas": pick(refined.betas),
        "weak_camera": pick(refined.weak_camera),
        "translation": pick(translation),
        "vertices": pick(vertices),
        "joints": pick(joints),
        "joints2d": pick(camera.project(joints, view["focal"], centre)),
        "joint_confidence": pick(confidence),
        "projected_keypoints": pick(camera.project(points, view["focal"], centre)),
        "sampled_keypoints": pick(sampled),
        "tokens": pick(samples.tokens),
        "refine_loss": pick(refined.loss.T),
    }
    if k > 1:
        aligned = (output.vertices - output.joints[:, :1]).reshape(batch, k, -1, 3)
        spread = jnp.sqrt(jnp.sum(jnp.var(aligned, 1), -1))
        order = jnp.argsort(final_loss, 1)
        ranked = lambda x: jnp.take_along_axis(x.reshape(batch, k, *x.shape[1:]), order.reshape(batch, k, *[1] * (x.ndim - 1)), 1)  # noqa: E731
        found["vertex_std"] = 1000.0 * spread
        found["hypothesis_global_orient"] = ranked(axis_angle[:, 0])
        found["hypothesis_body_pose"] = ranked(axis_angle[:, 1:].reshape(-1, 69))
        found["hypothesis_joints"] = ranked(joints)
        found["hypothesis_confidence"] = ranked(confidence)
    return found
