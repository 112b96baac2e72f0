"""The optimiser's groups: decay on matrices, slower encoder, layer-wise decay, frozen parts; the
first step of AdamW by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.io.errors import InputError
from genhmr_jax.train import defaults
from genhmr_jax.train.optim import decays, learning_rate, make_optimizer

PARAMS = {
    "encoder": {
        "patch": {"kernel": jnp.ones((2, 2, 3, 4)), "bias": jnp.ones(4)},
        "blocks": {"fc1": {"kernel": jnp.ones((3, 4, 4)), "bias": jnp.ones((3, 4))}},
        "norm": {"scale": jnp.ones(4)},
    },
    "transformer": {"head": {"kernel": jnp.ones((4, 5))}},
}


def config(**overrides):
    c = defaults.optimizer()
    c.learning_rate, c.warmup, c.weight_decay, c.clip_norm = 0.1, 0, 0.0, 1e9
    c.update(overrides)
    return c


def first_update(c, params=PARAMS):
    optimizer = make_optimizer(c, 10, params)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    return updates, state


def test_first_step_is_the_learning_rate():
    """Adam's first step is the rate times the sign of the gradient, whatever its size."""
    for update in jax.tree.leaves(first_update(config())[0]):
        np.testing.assert_allclose(update, -0.1, rtol=1e-5)


def test_decay_on_matrices_only():
    updates, _ = first_update(config(weight_decay=0.5))
    np.testing.assert_allclose(updates["transformer"]["head"]["kernel"], -0.1 * 1.5, rtol=1e-5)
    np.testing.assert_allclose(
        updates["encoder"]["blocks"]["fc1"]["bias"], -0.1, rtol=1e-5
    )  # stacked: two dimensions, still a bias
    wanted = {"kernel": True, "bias": False, "scale": False}
    jax.tree_util.tree_map_with_path(
        lambda path, x: decays(path, x) == wanted[path[-1].key] or pytest.fail(str(path)), PARAMS
    )


def test_groups_and_layer_decay():
    updates, _ = first_update(config(groups=(("encoder/.*", 0.5),), layer_decay=0.8))
    encoder = updates["encoder"]
    np.testing.assert_allclose(encoder["patch"]["kernel"], -0.05 * 0.8**4, rtol=1e-5)
    np.testing.assert_allclose(
        encoder["blocks"]["fc1"]["kernel"][:, 0, 0], -0.05 * 0.8 ** np.array([3, 2, 1]), rtol=1e-5
    )
    np.testing.assert_allclose(encoder["norm"]["scale"], -0.05, rtol=1e-5)
    np.testing.assert_allclose(updates["transformer"]["head"]["kernel"], -0.1, rtol=1e-5)


def test_frozen_parts_stay_and_carry_no_moments():
    updates, state = first_update(config(frozen=("encoder/.*",)))
    assert not any(np.any(x) for x in jax.tree.leaves(updates["encoder"]))
    np.testing.assert_allclose(updates["transformer"]["head"]["kernel"], -0.1, rtol=1e-5)
    shapes = [x.shape for x in jax.tree.leaves(state) if x.ndim]
    assert shapes == [(4, 5), (4, 5)]


def test_clipping_and_schedule():
    c = config(learning_rate=1.0, warmup=4, final=0.1)
    rate = learning_rate(c, 20)
    np.testing.assert_allclose(
        [rate(0), rate(2), rate(4), rate(12), rate(20)], [0, 0.5, 1, 0.55, 0.1], atol=1e-6
    )
    assert learning_rate(c, 1)(0) == 1.0  # a single step has no warm-up
    optimizer = make_optimizer(
        config(clip_norm=1e-12), 10, PARAMS
    )  # so small that Adam's epsilon shows
    updates, _ = optimizer.update(
        jax.tree.map(jnp.ones_like, PARAMS), optimizer.init(PARAMS), PARAMS
    )
    assert max(np.abs(x).max() for x in jax.tree.leaves(updates)) < 1e-4


@pytest.mark.parametrize("field", ["frozen", "groups"])
def test_patterns_without_a_match(field):
    value = ("encodr/.*",) if field == "frozen" else (("encodr/.*", 0.1),)
    with pytest.raises(InputError, match=rf"--config.optim.{field}: 'encodr/.\*' matches no para"):
        make_optimizer(config(**{field: value}), 10, PARAMS)
