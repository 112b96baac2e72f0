"""From crop inputs to bodies: encode once, sample, decode (the network's part of `recover`, and what training evaluates).

Pure and jittable; `Networks` bundles the graph definitions, `params` is {"genhmr", "tokenizer", "codebook": {"vectors"}}.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.core import encoders, sampling
from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.metrics import distances, procrustes
from genhmr_jax.systems.genhmr.model import Encoded, GenHmrSpec, graphs, normalize_keypoints

DRAWS = 16
NEAR = 0.1  # metres
DECODE_RULES = ("expected", "final", "hard")
CONTEXTS = ("all", "image", "keypoints")
"""What a network may be shown of a person, see `shown`."""


@dataclasses.dataclass(frozen=True)
class Networks:
    """Structure of the networks of a spec, without arrays.

    `remat` ("none" or "blocks", see models/remat.py) and `still` (first layers of the encoder without gradient) are for training.
    """

    spec: GenHmrSpec
    model: nnx.GraphDef
    tokenizer: nnx.GraphDef
    shapes: dict[str, Any] = dataclasses.field(compare=False)
    remat: str = "none"
    still: int = 0

    @staticmethod
    def of(spec: GenHmrSpec, remat: str = "none") -> "Networks":
        """Networks of a spec."""
        return Networks(spec, *graphs(spec), remat)

    def decode(self, params: dict[str, Any], embeddings: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
        """Token embeddings -> rotation matrices, by the frozen tokenizer; the root's in the axes in which the network sees, see `turn`."""
        return nnx.merge(self.tokenizer, params["tokenizer"]).decode(embeddings)

    def encode(self, params: dict[str, Any], inputs: dict[str, Any]) -> Encoded:
        """Encodes inputs: keypoints (B, K, 3) px; crop (B, 3); image_size (B, 2); focal (B,).

        Optional inputs: keypoints3d (B, K, 3) metres, maps, image_weight, images, drop_path, as `GenHmr.encode` has them; region (B, 4),
        see `camera.upright`, for a model that sees upright people (`GenHmrSpec.upright`); without it the crop is the region.
        """
        own = self._upright(inputs) if self.spec.upright else inputs
        keypoints = normalize_keypoints(own["keypoints"], own["crop"]) if self.spec.num_keypoints else None
        box = camera.box_information(own["crop"], own["image_size"], own["focal"])
        model = nnx.merge(self.model, params["genhmr"])
        optional = (own.get(name) for name in ("maps", "image_weight", "images"))
        others = {name: own.get(name) for name in ("keypoints3d", "drop_path")}
        encoded = model.encode(keypoints, box, *optional, **others, remat=self.remat, still=self.still)
        if not self.spec.upright:
            return encoded
        translation = camera.weak_to_translation(encoded.weak_camera, own["crop"], own["image_size"], own["focal"])
        translation = jnp.einsum("bij,bj->bi", self.turn(inputs), translation)
        weak = camera.translation_to_weak(translation, inputs["crop"], inputs["image_size"], inputs["focal"])
        return dataclasses.replace(encoded, weak_camera=weak)

    def turn(self, inputs: dict[str, Any]) -> Float[Array, "B 3 3"] | None:
        """The rotation from the axes in which the network sees its people to the camera's; None where these are the same."""
        return camera.upright(_region(inputs), inputs["image_size"])[0] if self.spec.upright else None

    def _upright(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs as a camera sees them that is turned about its axis until the person stands upright, and whose crop is the region."""
        turn, crop = camera.upright(_region(inputs), inputs["image_size"])
        own = inputs | {"crop": crop}
        if self.spec.num_keypoints:
            middle = inputs["image_size"][:, None] / 2.0
            points = (inputs["keypoints"][..., :2] - middle) @ turn[:, :2, :2] + middle
            own["keypoints"] = jnp.concatenate([points, inputs["keypoints"][..., 2:]], -1)
            if inputs.get("keypoints3d") is not None:
                own["keypoints3d"] = inputs["keypoints3d"] @ turn
        return own

    def decoder(self, params: dict[str, Any], inputs: dict[str, Any]) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]]:
        """`decode` for the people of these inputs, into the axes of the camera."""
        turn = self.turn(inputs)
        if turn is None:
            return functools.partial(self.decode, params)

        def decode(embeddings: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
            rotmats = self.decode(params, embeddings)
            return rotmats.at[:, 0].set(turn @ rotmats[:, 0])

        return decode

    @property
    def refine_steps(self) -> int:
        """Steps of the 2D refinement when nobody asks for another number."""
        return RefineSpec.steps

    crops_by_box = False  # the crop follows from the keypoints
    crop = "own"  # one of encoders.CROPS

    @property
    def contexts(self) -> tuple[str, ...]:
        """Which of CONTEXTS it can do with."""
        spec = self.spec
        return ("all", *(["image"] if spec.encoder_channels else []), *(["keypoints"] if spec.num_keypoints else []))

    def sample(self, params: dict[str, Any], encoded: Encoded, keys: Array, **how: Any) -> tuple[sampling.Samples, Array]:
        """`sample_bodies` of these networks."""
        return sample_bodies(self, params, encoded, keys, **how)

    def joint_confidence(
        self,
        params: dict[str, Any],
        encoded: Encoded,
        body: smpl_jax.SmplModel,
        rotmats: Float[Array, "B 24 3 3"],
        keys: Array,
    ) -> Float[Array, "B 24"]:
        """The probability that each joint of an answer lies within NEAR metres of the truth, by the network's own doubt.

        DRAWS poses are drawn from the token probabilities before anything is kept, and aligned to the answer; a joint's mean squared
        distance from them is the variance of a Gaussian, whose share within NEAR is Maxwell's distribution function.

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
            joints = smpl_jax.forward(body, encoded.betas, self.decode(params, vectors[tokens])).joints
            return total + distances(procrustes(joints, answer)(joints), answer) ** 2, None

        total, _ = jax.lax.scan(squared_distance, jnp.zeros(answer.shape[:2]), jnp.arange(DRAWS))
        x = NEAR / jnp.sqrt(total / (3 * DRAWS) + 1e-12)
        return jax.lax.erf(x / np.sqrt(2)) - np.sqrt(2 / np.pi) * x * jnp.exp(-(x**2) / 2)

    def logits(self, params: dict[str, Any], tokens: Array, encoded: Encoded) -> Float[Array, "B L N"]:
        """Logits of every token."""
        return nnx.merge(self.model, params["genhmr"]).logits(tokens, params["codebook"]["vectors"], encoded, remat=self.remat)


def _region(inputs: dict[str, Any]) -> Float[Array, "B 4"]:
    """Where people were looked at; where nobody looked, as in simulated views, the crop."""
    return inputs["region"] if "region" in inputs else jnp.pad(inputs["crop"], ((0, 0), (0, 1)))


def shown(inputs: dict[str, Any], context: str) -> dict[str, Any]:
    """Inputs of `Networks.encode`, or stored rows, of which only a part is shown: the image alone, the 2D pose alone, or all.

    Raises:
      ValueError: unknown context.
    """
    if context not in CONTEXTS:
        raise ValueError(f"unknown context {context!r}: choose among {', '.join(CONTEXTS)}")
    if context == "image":
        return inputs | {name: jnp.zeros_like(inputs[name]) for name in ("keypoints", "keypoints3d") if name in inputs}
    hidden = encoders.STORED if context == "keypoints" else ()
    return {name: value for name, value in inputs.items() if name not in hidden}


def repeat_encoded(encoded: Encoded, times: int) -> Encoded:
    """Each example `times` times in a row (for several hypotheses); the image was encoded once."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, 0), encoded)


def sample_bodies(
    networks: Networks,
    params: dict[str, Any],
    encoded: Encoded,
    keys: Array,
    *,
    iterations: Any = 5,
    temperature: Any = 0.0,
    rule: str = "expected",
    schedule: str = "cosine",
    trace_length: int = 0,
) -> tuple[sampling.Samples, Float[Array, "B L D"]]:
    """Uncertainty-guided sampling; returns the samples and the embeddings to decode.

    Args:
      keys: (B,), one per example.
      rule: "hard" decodes the kept codes; "expected" the expected embedding of the step in which each token was kept; "final" that
        of the last step for every token: what was kept early is revised in the light of all that was kept later.
    """
    if rule not in DECODE_RULES:
        raise ValueError(f"unknown decode rule {rule!r}: choose among {', '.join(DECODE_RULES)}")
    vectors = params["codebook"]["vectors"]
    samples = sampling.sample(
        lambda tokens: networks.logits(params, tokens, encoded),
        vectors,
        keys,
        networks.spec.tokenizer.length,
        iterations=iterations,
        temperature=temperature,
        schedule=schedule,
        trace_length=trace_length,
    )
    return samples, {"expected": samples.expected, "final": samples.final}.get(rule, vectors[samples.tokens])
