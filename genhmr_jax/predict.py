"""From crop inputs to bodies: encode once, sample, decode (the network's part of `recover`, and what training evaluates).

Pure and jittable; `Networks` bundles the graph definitions, `params` is {"genhmr", "tokenizer", "codebook": {"vectors"}}.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax import camera, sampling
from genhmr_jax.models import genhmr
from genhmr_jax.models.genhmr import GenHmrSpec
from genhmr_jax.refinement import RefineSpec

DECODE_RULES = ("expected", "hard")


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
        return Networks(spec, *genhmr.graphs(spec), remat)

    def decode(self, params: dict[str, Any], embeddings: Float[Array, "B L D"]) -> Float[Array, "B 24 3 3"]:
        """Token embeddings -> rotation matrices, by the frozen tokenizer."""
        return nnx.merge(self.tokenizer, params["tokenizer"]).decode(embeddings)

    def encode(self, params: dict[str, Any], inputs: dict[str, Any]) -> genhmr.Encoded:
        """Encodes inputs: keypoints (B, K, 3) px; crop (B, 3); image_size (B, 2); focal (B,).

        Optional inputs: maps, image_weight, images, drop_path, as `GenHmr.encode` has them.
        """
        keypoints = genhmr.normalize_keypoints(inputs["keypoints"], inputs["crop"]) if self.spec.num_keypoints else None
        box = camera.box_information(inputs["crop"], inputs["image_size"], inputs["focal"])
        model = nnx.merge(self.model, params["genhmr"])
        optional = (inputs.get(name) for name in ("maps", "image_weight", "images"))
        return model.encode(keypoints, box, *optional, drop_path=inputs.get("drop_path"), remat=self.remat, still=self.still)

    @property
    def refine_steps(self) -> int:
        """Steps of the 2D refinement when nobody asks for another number."""
        return RefineSpec.steps

    crops_by_box = False  # the crop follows from the keypoints

    def sample(self, params: dict[str, Any], encoded: genhmr.Encoded, keys: Array, **how: Any) -> tuple[sampling.Samples, Array]:
        """`sample_bodies` of these networks."""
        return sample_bodies(self, params, encoded, keys, **how)

    def joint_confidence(self, confidence: Float[Array, "B L"]) -> Float[Array, "B 24"]:
        """Of each joint: the geometric mean of the confidences of the tokens that decide its rotation."""
        share = np.zeros((self.spec.tokenizer.length, 24), np.float32)
        for token, joints in enumerate(self.spec.tokenizer.token_joints()):
            share[token, list(joints)] = 1.0
        # A convolutional tokenizer names one joint a token; joints without a token of their own take the mean of all.
        share[:, share.sum(0) == 0] = 1.0
        share /= share.sum(0)
        return jnp.exp(jnp.log(jnp.maximum(confidence, 1e-12)) @ share)

    def logits(self, params: dict[str, Any], tokens: Array, encoded: genhmr.Encoded) -> Float[Array, "B L N"]:
        """Logits of every token."""
        return nnx.merge(self.model, params["genhmr"]).logits(tokens, params["codebook"]["vectors"], encoded, remat=self.remat)


def repeat_encoded(encoded: genhmr.Encoded, times: int) -> genhmr.Encoded:
    """Each example `times` times in a row (for several hypotheses); the image was encoded once."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, 0), encoded)


def sample_bodies(
    networks: Networks,
    params: dict[str, Any],
    encoded: genhmr.Encoded,
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
      rule: "hard" decodes the kept codes; "expected" the expected embedding of the step in which each token was kept.
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
    return samples, samples.expected if rule == "expected" else vectors[samples.tokens]
