"""The steps of a masked transformer in training.

A model with feedback is trained over several of its own steps, each with all terms of the loss. The
first step has every token masked. In the later ones a share of the rows goes on from the network's
own guesses, as sampling does; the others see true tokens, so that the network also learns
p(token | visible tokens). Gradients stop between steps.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Int

from genhmr_jax.core import losses
from genhmr_jax.core.feedback import Estimate, Form
from genhmr_jax.core.feedback_networks import Score
from genhmr_jax.core.masking import random_mask, visible_tokens
from genhmr_jax.core.sampling import most_confident, most_probable
from genhmr_jax.core.steps import Steps
from genhmr_jax.geometry.metrics import distances, masked_mean, procrustes
from genhmr_jax.nets.rows import by_rows

Sums = dict[str, jax.Array]
Embed = Callable[[Float[Array, "B L N"], Bool[Array, "B L"], Int[Array, ""]], Float[Array, "B L D"]]
"""From logits, the mask and the number of the step to what is decoded."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskedTokens:
    """The tokens of B true poses, and those that the network is given.

    Attributes:
      tokens: ids of the true pose; `visible`: those that the network is given, else the mask id.
      mask: True where a token must be predicted.
      token_weight: of each token in the cross-entropy; they sum to 1. first_weight: the same in a
        first step, in which every token is masked.
      unroll: whether later steps of the row continue from the network's own guesses; `kept` tokens
        of them.
    """

    tokens: Int[Array, "B L"]
    visible: Int[Array, "B L"]
    mask: Bool[Array, "B L"]
    token_weight: Float[Array, "B L"]
    first_weight: Float[Array, "B L"]
    unroll: Bool[Array, "B"]
    kept: Int[Array, "B"]


class Step(NamedTuple):
    """A step of sampling in training.

    Attributes:
      logits: of all tokens.
      estimate: the mesh that they decode to.
      weight: of each token in the cross-entropy.
      is_first: whether it is the first step of a model with feedback.
    """

    logits: Float[Array, "B L N"]
    estimate: Estimate
    weight: Float[Array, "B L"]
    is_first: Bool[Array, ""]


def masked_tokens(
    keys: Array,
    tokens: Int[Array, "B L"],
    masking: ml_collections.ConfigDict,
    codes: int,
    row_weight: Float[Array, "B"],
    *,
    unroll: bool,
) -> MaskedTokens:
    """Mask a random share of the tokens of each row, and corrupt some of the visible ones.

    Args:
      keys: (B, 3), of the mask, of the corruption, and of whether the row continues from guesses.
      tokens: of the true poses.
      masking: `schedule`, `min_ratio` and `corrupt` of a config, and with `unroll` its `unroll`.
      codes: number of codes.
      row_weight: of each row in the cross-entropy; they need not sum to 1.
      unroll: whether a share of the rows continues from the network's guesses; they must predict
        every token.
    """
    rule = {"schedule": masking.schedule, "min_ratio": masking.min_ratio}
    mask = random_mask(keys[:, 0], tokens.shape[1], **rule)
    visible = visible_tokens(keys[:, 1], tokens, mask, codes, masking.corrupt)
    share = masking.unroll if unroll else 0.0
    continues = jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys[:, 2])
    kept = jnp.sum(~mask, -1)
    mask = mask | continues[:, None]
    weight = row_weight[:, None]
    return MaskedTokens(
        tokens=tokens,
        visible=visible,
        mask=mask,
        token_weight=losses.normalised(mask * weight),
        first_weight=losses.normalised(jnp.ones(mask.shape) * weight),
        unroll=continues,
        kept=kept,
    )


def only_step(steps: Steps, masked: MaskedTokens, embed: Embed) -> Step:
    """The step of a model without feedback: all masked tokens at once."""
    logits, state = steps.predict(masked.visible, steps.start())
    estimate = steps.decoded(embed(logits, masked.mask, jnp.zeros((), int)), state).estimate
    return Step(logits, estimate, masked.token_weight, jnp.zeros((), bool))


def unrolled(
    steps: Steps,
    masked: MaskedTokens,
    count: int,
    embed: Embed,
    terms_of: Callable[[Step], Sums],
) -> tuple[Step, Sums]:
    """`count` steps of a model with feedback: the last one, and the terms of all, stacked."""
    nothing = jnp.full_like(masked.tokens, steps.sizes.codebook_size)

    def run(carry: tuple, number: Int[Array, ""]) -> tuple[tuple, Sums]:
        visible, mask, weight, state = carry
        # 1. Predict, decode, and compute the terms.
        logits, state = steps.predict(visible, state)
        state, confidence = steps.assess(embed(logits, mask, number), state)
        step = Step(logits, state.estimate, weight, number == 0)
        terms = terms_of(step)
        # 2. What the next step sees: the most confident own guesses, or true tokens.
        keep = most_confident(jax.lax.stop_gradient(confidence), masked.kept[:, None])
        own = jnp.where(keep, most_probable(logits), nothing)
        visible = jnp.where(masked.unroll[:, None], own, masked.visible)
        return (visible, masked.mask, masked.token_weight, state), terms

    everything = jnp.ones_like(masked.mask)
    start = by_rows((nothing, everything, masked.first_weight, steps.start()))
    (*_, weight, state), terms = jax.lax.scan(run, start, jnp.arange(count))
    return Step(state.logits, state.estimate, weight, jnp.asarray(count == 1)), terms


def score_gap(
    score: Score,
    joints: Float[Array, "B J 3"],
    truth: Float[Array, "B J 3"],
    known: Float[Array, "B J"],
    form: Form,
) -> Float[Array, "B"]:
    """How wrong the scorer is: cross-entropy of "near", and the log of the errors.

    Args:
      score: of the estimates.
      joints, truth: of the estimates and true, metres, relative to the root.
      known: 1 for joints whose truth is known, else 0.
      form: what is estimated.
    """
    joints = jax.lax.stop_gradient(joints)
    aligned = distances(procrustes(joints, truth, known)(joints), truth)
    from_root = distances(joints, truth)
    near = (aligned[..., None] < jnp.array(form.near)).astype(jnp.float32)
    entropy = jnp.mean(jax.nn.softplus(score.near) - near * score.near, -1)
    errors = jnp.stack([masked_mean(aligned, known), masked_mean(from_root, known)], -1)
    gap = jnp.abs(score.log_error - jnp.log(errors + 1e-3 * form.size))
    return losses.known_mean(entropy, known) + 0.5 * jnp.mean(gap, -1)
