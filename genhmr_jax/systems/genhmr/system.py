"""GenHMR as a core.system.System: encode once, sample tokens, decode them with the frozen
tokenizer.

Pure and jittable. `params` is {"genhmr", "tokenizer", "codebook": {"vectors"}}.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.core import confidence, encoders, sampling, silhouette_term
from genhmr_jax.core.choices import DECODE_RULES
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.core.system import Latents, Params, PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE
from genhmr_jax.geometry.metrics import distances, procrustes
from genhmr_jax.systems.genhmr.model import Encoded, GenHmrSpec, graphs, normalize_keypoints

KIND = "genhmr"
DRAWS = 16  # poses whose spread is the confidence


@dataclasses.dataclass(frozen=True)
class GenHmrSystem:
    """The networks of a spec, without arrays.

    Attributes:
      spec: sizes.
      model, tokenizer: their structure.
      shapes: of the parameters.
      remat: "none" or "blocks" (nets/remat.py), in training.
      frozen_layers: first layers of the encoder that get no gradient, in training.
    """

    spec: GenHmrSpec
    model: nnx.GraphDef
    tokenizer: nnx.GraphDef
    shapes: Params = dataclasses.field(compare=False)
    remat: str = "none"
    frozen_layers: int = 0

    kind = KIND
    needs_box = False  # the crop follows from the keypoints
    samples = True
    refine_steps = RefineSpec.steps

    @staticmethod
    def of(spec: GenHmrSpec, remat: str = "none") -> "GenHmrSystem":
        """The system of a spec."""
        return GenHmrSystem(spec, *graphs(spec), remat)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Which of core.inputs.CONTEXTS it can do with."""
        image = ["image"] if self.spec.encoder_channels else []
        return ("all", *image, *(["keypoints"] if self.spec.num_keypoints else []))

    def prepare(
        self,
        image: np.ndarray,
        people: Detections,
        photo: PhotoCamera,
        rows: int,
        *,
        published_crop: bool = False,
    ) -> Inputs:
        """See core.system.System. The crop is around the seen keypoints."""
        height, width = image.shape[:2]
        people = people.padded(rows)
        seen = np.where(
            people.keypoints[..., 2:] >= MIN_CONFIDENCE, people.keypoints, np.float32(0)
        )
        crop = camera.crop_around(seen[..., :2], seen[..., 2])
        view = photo.of_crops(crop)
        inputs = Inputs(
            view=view,
            keypoints=seen,
            keypoints3d=people.keypoints3d,
            silhouette=silhouette_term.targets(people, crop, width, height),
        )
        if not self.spec.encoder_channels:
            return inputs
        encoder = encoders.find(self.spec.encoder)
        if encoder.upright:
            upright_crop = np.pad(crop, ((0, 0), (0, 1)))
            region = np.where(people.has_features[:, None], people.regions, upright_crop)
            inputs = dataclasses.replace(inputs, view=dataclasses.replace(view, region=region))
        return dataclasses.replace(inputs, **encoder.of_photo(image, people, crop, rows))

    def encode(self, params: Params, inputs: Inputs) -> Encoded:
        """Context tokens, image values, shape and camera."""
        view = inputs.view
        own, turn = inputs, None
        if self.spec.upright:
            turn, own = _upright(inputs)
        keypoints = None
        if self.spec.num_keypoints:
            keypoints = normalize_keypoints(own.keypoints, own.view)
        model = nnx.merge(self.model, params["genhmr"])
        encoded = model.encode(
            keypoints,
            own.view.box_information(),
            own.maps,
            own.image_weight,
            own.images,
            keypoints3d=own.keypoints3d,
            drop_path=own.drop_path,
            remat=self.remat,
            frozen_layers=self.frozen_layers,
        )
        if turn is None:
            return encoded
        # The camera was estimated for the region; the answer is relative to the crop of the photo.
        translation = jnp.einsum("bij,bj->bi", turn, own.view.translation(encoded.weak_camera))
        return dataclasses.replace(encoded, weak_camera=view.weak(translation))

    def logits(
        self, params: Params, tokens: Int[Array, "B L"], encoded: Encoded
    ) -> Float[Array, "B L N"]:
        """Logits of every token, given the visible ones (mask id where masked)."""
        model = nnx.merge(self.model, params["genhmr"])
        return model.logits(tokens, params["codebook"]["vectors"], encoded, remat=self.remat)

    def sample(
        self,
        params: Params,
        encoded: Encoded,
        keys: Array,
        *,
        iterations: Any = 5,
        temperature: Any = 0.0,
        distinct: bool = False,
        rule: str | None = None,
        schedule: str = "cosine",
    ) -> Latents:
        """Uncertainty-guided sampling (core/sampling.py).

        Args:
          rule: "hard" decodes the kept codes; "expected" the expected embedding of the step in
            which each token was kept; "final" that of the last step for every token, so that early
            tokens are revised by all that was kept later. None: hypotheses are hard, because they
            must differ, and one answer is expected, because the mean serves it best.
          schedule: one of sampling.SCHEDULES.

        Raises:
          ValueError: unknown rule or schedule.
        """
        rule = rule or ("hard" if distinct else "expected")
        if rule not in DECODE_RULES:
            raise ValueError(
                f"unknown decode rule {rule!r}: choose among {', '.join(DECODE_RULES)}"
            )
        vectors = params["codebook"]["vectors"]
        samples = sampling.sample(
            lambda tokens: self.logits(params, tokens, encoded),
            vectors,
            keys,
            self.spec.tokenizer.length,
            iterations=iterations,
            temperature=temperature,
            schedule=schedule,
        )
        decoded = {"expected": samples.expected, "final": samples.final}
        return Latents(decoded.get(rule, vectors[samples.tokens]), samples.tokens)

    def pose(
        self, params: Params, embeddings: Float[Array, "B L D"], view: CropCamera
    ) -> Float[Array, "B 24 3 3"]:
        """Embeddings to rotation matrices, by the frozen tokenizer; see core.system.System."""
        rotmats = self.decode(params, embeddings)
        if not self.spec.upright:
            return rotmats
        return rotmats.at[:, 0].set(view.upright()[0] @ rotmats[:, 0])

    def decode(self, params: Params, embeddings: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
        """As `pose`, but the root in the axes in which the network sees the person."""
        return nnx.merge(self.tokenizer, params["tokenizer"]).decode(embeddings)

    def confidence(
        self,
        params: Params,
        encoded: Encoded,
        body: smpl_jax.SmplModel,
        rotmats: Float[Array, "B 24 3 3"],
        keys: Array,
    ) -> Float[Array, "B 24"]:
        """Probability that each joint lies within confidence.NEAR of the truth, from the spread of
        the network's own samples.

        DRAWS poses are drawn from the token probabilities before any token is kept, and aligned to
        the answer; the mean squared distance of a joint from them is taken for its mean squared
        error.

        Args:
          body: a keypoint model, for its joints.
          rotmats: the answer.
          keys: (B,), one per example.
        """
        vectors, length = params["codebook"]["vectors"], self.spec.tokenizer.length
        nothing = jnp.full((rotmats.shape[0], length), vectors.shape[0], jnp.int32)
        logits = self.logits(params, nothing, encoded)
        answer = smpl_jax.forward(body, encoded.betas, rotmats).joints

        def squared_distance(total: jax.Array, draw: jax.Array) -> tuple[jax.Array, None]:
            tokens = jnp.argmax(logits + sampling.gumbel(keys, draw, logits.shape[1:]), -1)
            joints = smpl_jax.forward(
                body, encoded.betas, self.decode(params, vectors[tokens])
            ).joints
            return total + distances(procrustes(joints, answer)(joints), answer) ** 2, None

        total, _ = jax.lax.scan(squared_distance, jnp.zeros(answer.shape[:2]), jnp.arange(DRAWS))
        return confidence.within(total / DRAWS)


def _upright(inputs: Inputs) -> tuple[Float[Array, "B 3 3"], Inputs]:
    """Inputs of a camera that is turned about its axis until the person stands upright, and whose
    crop is the region.

    Also the rotation from its axes to the camera's.
    """
    turn, view = inputs.view.upright()
    own = dataclasses.replace(inputs, view=view)
    if inputs.keypoints is not None:
        middle = view.centre[:, None]
        points = (inputs.keypoints[..., :2] - middle) @ turn[:, :2, :2] + middle
        own = dataclasses.replace(
            own, keypoints=jnp.concatenate([points, inputs.keypoints[..., 2:]], -1)
        )
    if inputs.keypoints3d is not None:
        own = dataclasses.replace(own, keypoints3d=inputs.keypoints3d @ turn)
    return turn, own


def make_system(spec: dict[str, Any]) -> GenHmrSystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return GenHmrSystem.of(GenHmrSpec.from_dict(spec))
