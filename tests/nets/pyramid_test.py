"""Feature pyramids: sizes, what each level looks at, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.nets.pyramid import ProjectLevels, SimplePyramid
from support.numpy_layers import layer_norm, linear, with_random_arrays

RUN = nnx.jit(lambda model, maps: model(maps))


def test_simple_pyramid_sizes_of_a_vit_map():
    """The map of ViT-H for a 256 x 192 crop."""
    graph, state = nnx.split(
        nnx.eval_shape(lambda: SimplePyramid(1280, 192, SimplePyramid.SCALES, rngs=nnx.Rngs(0)))
    )
    out = jax.eval_shape(
        lambda s, x: nnx.merge(graph, s)([x]),
        state,
        jax.ShapeDtypeStruct((2, 16, 12, 1280), jnp.float32),
    )
    assert [m.shape for m in out] == [
        (2, 64, 48, 192),
        (2, 32, 24, 192),
        (2, 16, 12, 192),
        (2, 8, 6, 192),
    ]


def test_levels_lie_over_each_other():
    """A change of one pixel of the map reaches the same place of every level, and one pixel around
    it (the 3x3 convolution)."""
    model = with_random_arrays(lambda: SimplePyramid(4, 3, SimplePyramid.SCALES, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(1, 8, 6, 4)).astype(np.float32)
    changed = x.copy()
    changed[0, 4, 2] += 20.0
    before, after = RUN(model, [x]), RUN(model, [changed])
    reach = {
        4.0: (15, 20, 7, 12),
        2.0: (7, 10, 3, 6),
        1.0: (3, 5, 1, 3),
        0.5: (1, 3, 0, 2),
    }  # first and last row, column
    for scale, a, b in zip(SimplePyramid.SCALES, before, after, strict=True):
        rows, columns = np.nonzero(np.abs(np.asarray(b - a))[0].max(-1) > 1e-6)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == reach[scale], scale


def test_pyramid_reads_the_last_map():
    model = with_random_arrays(lambda: SimplePyramid(4, 3, (1.0,), rngs=nnx.Rngs(0)))
    x = jnp.ones((1, 2, 2, 4))
    np.testing.assert_array_equal(RUN(model, [jnp.zeros((1, 4, 4, 2)), x])[0], RUN(model, [x])[0])


@pytest.mark.parametrize(
    "scales", [(0.5,), (2.0,), (4.0, 0.5), (0.5, 4.0, 1.0), (1.0, 0.5, 2.0, 4.0)]
)
def test_any_scales_come_out_finest_first(scales):
    graph, state = nnx.split(nnx.eval_shape(lambda: SimplePyramid(4, 3, scales, rngs=nnx.Rngs(0))))
    out = jax.eval_shape(
        lambda s, x: nnx.merge(graph, s)([x]),
        state,
        jax.ShapeDtypeStruct((1, 8, 6, 4), jnp.float32),
    )
    assert [m.shape for m in out] == [
        (1, int(8 * s), int(6 * s), 3) for s in sorted(scales, reverse=True)
    ]


@pytest.mark.parametrize("scales", [(), (2.0, 2.0)])
def test_no_scale_or_one_twice(scales):
    with pytest.raises(ValueError, match="choose one or more among .*, each once"):
        SimplePyramid(4, 3, scales, rngs=nnx.Rngs(0))


def test_unknown_scale():
    with pytest.raises(ValueError, match=r"\[3.0\]: choose among \(4.0, 2.0, 1.0, 0.5\)"):
        SimplePyramid(4, 3, (2.0, 3.0), rngs=nnx.Rngs(0))


def test_project_levels_against_numpy():
    model = with_random_arrays(lambda: ProjectLevels((5, 2), 3, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    maps = [rng.normal(2.0, 3.0, (2, 4, 6, 5)), rng.normal(size=(2, 2, 3, 2))]
    found = RUN(model, [jnp.asarray(m, jnp.float32) for m in maps])
    assert len(found) == 2
    for i, m in enumerate(maps):
        level = model.levels[f"level_{i}"]
        wanted = layer_norm(level["norm"], linear(level["proj"], layer_norm(level["norm_in"], m)))
        np.testing.assert_allclose(found[i], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [(4,), tuple(range(1, 13))])
def test_project_levels_of_any_number_of_maps(channels):
    """Twelve levels: their names must not be taken in the order of the alphabet."""
    model = with_random_arrays(lambda: ProjectLevels(channels, 3, rngs=nnx.Rngs(0)))
    maps = [jnp.ones((1, 2, 2, c)) for c in channels]
    assert [m.shape for m in RUN(model, maps)] == [(1, 2, 2, 3)] * len(channels)
    with pytest.raises(
        ValueError,
        match=f"{len(channels) + 1} feature maps, but this pyramid has {len(channels)} levels",
    ):
        model([*maps, maps[0]])


def test_project_levels_wants_the_channels_it_was_made_for():
    model = with_random_arrays(lambda: ProjectLevels((5, 2), 3, rngs=nnx.Rngs(0)))
    with pytest.raises((TypeError, ValueError)):
        model([jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 5))])
