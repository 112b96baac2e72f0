"""The answers of GenHMR after each step of sampling, for pictures."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core import sampling
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.systems.genhmr.model import Encoded

if TYPE_CHECKING:
    from genhmr_jax.systems.genhmr.system import GenHmrSystem


def trace(
    system: "GenHmrSystem",
    params: Params,
    body: smpl_jax.SmplModel,
    encoded: Encoded,
    keys: Array,
    iterations: int,
) -> tuple[Latents, Float[Array, "T B L"] | None]:
    """The answer after each of `iterations` steps, and the confidences of all tokens.

    The keypoints keep their detected names, and a token that is masked again has the mask id.

    Args:
      system: with or without feedback; without it there are no confidences.
      body: a keypoint model.
      iterations: T, not traced.
    """
    steps = system.steps(params, body, encoded)
    has_feedback, confidences = system.spec.feedback, []
    plain = steps.feedback(commit=False)

    def assess(embeddings: jax.Array, state: Any) -> tuple:
        state, confidence = plain.assess(embeddings, state)
        confidences.append(confidence)
        return state, confidence

    vectors, length = params["codebook"]["vectors"], system.spec.tokenizer.length
    how = {"iterations": iterations, "temperature": 0.0, "schedule": "cosine"}
    how["feedback"] = sampling.Feedback(plain.start, assess) if has_feedback else None
    carry, step = sampling.loop(steps.logits, vectors, keys, length, **how)
    found = []
    for number in range(iterations):
        carry = step(jnp.asarray(number), carry)
        embeddings = carry.final if has_feedback else carry.expected
        estimate = carry.state.estimate if has_feedback else plain.start.estimate
        weak = system.photo_camera(encoded, estimate)
        found.append(Latents(embeddings, estimate.betas, weak, carry.tokens))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *found)
    return stacked, jnp.stack(confidences) if confidences else None
