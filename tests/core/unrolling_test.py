"""The steps of a masked transformer in training: what each of them sees."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.core.steps import State
from genhmr_jax.core.unrolling import MaskedTokens, unrolled


def test_unrolled_rows_see_their_own_most_confident_guesses():
    logits = jnp.broadcast_to(jax.random.normal(jax.random.key(3), (30, 8)), (3, 30, 8))
    confidence, seen = jax.random.uniform(jax.random.key(4), (3, 30)), []

    def predict(tokens, state):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), tokens, ordered=True)
        return logits, State(state.estimate, logits)

    steps = types.SimpleNamespace(
        sizes=TokenizerSpec(codebook_size=8),
        start=lambda: State(jnp.zeros(3), jnp.zeros((3, 30, 8))),
        predict=predict,
        assess=lambda embeddings, state: (state, confidence),
    )
    masked = MaskedTokens(
        tokens=jnp.zeros((3, 30), int),
        visible=jnp.full((3, 30), 5),
        mask=jnp.zeros((3, 30), bool),
        kept=jnp.array([0, 4, 7]),
        unroll=jnp.array([True, True, False]),
        first_weight=jnp.full((), 2.0),
        token_weight=jnp.full((), 3.0),
    )
    embed, terms_of = lambda logits, mask, number: logits, lambda step: {"weight": step.weight}
    _, terms = unrolled(steps, masked, 2, embed, terms_of)
    jax.effects_barrier()
    assert len(seen) == 2 and (seen[0] == 8).all()  # the first step sees nothing
    np.testing.assert_array_equal(terms["weight"], [2.0, 3.0])
    assert (seen[1][0] == 8).all() and (seen[1][2] == 5).all()  # nothing kept; true tokens
    surest = np.sort(np.argsort(-np.asarray(confidence[1]))[:4])
    np.testing.assert_array_equal(np.nonzero(seen[1][1] != 8)[0], surest)
    np.testing.assert_array_equal(seen[1][1][surest], np.asarray(logits[1]).argmax(-1)[surest])
