"""The decoder against its formulas in float64 NumPy, and what it reads."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate
from genhmr_jax.systems.posturehmr.model import Decoder, Surface
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec

V, M, B = 12, 5, 3
MESH2D = Mesh2dSpec(vertices=V, markers=M, encoder_channels=(), point_width=2)
SPEC = PostureSpec(MESH2D, width=8, layers=2, heads=2, keys="markers", whole_width=6, whole_rank=4)


def decoder(spec):
    """A decoder in which no array is zero."""
    graph, state = nnx.split(Decoder(spec, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    noisy = lambda x: x + jnp.float32(0.2 * rng.normal(size=x.shape))
    return nnx.merge(graph, jax.tree.map(noisy, state))


@pytest.fixture(scope="module")
def given():
    """The arguments of a call."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.float32(rng.normal(size=shape))
    condition = Mesh2dEstimate(
        points=draw(B, MESH2D.points, 2),
        spread=draw(B, MESH2D.points),
        features=draw(B, MESH2D.points * MESH2D.point_width),
        vertices=draw(B, V, 2),
    )
    surface = Surface(jnp.float32(rng.random((V, V))), jnp.array([7, 0, 3, 11, 4]))
    return draw(B, V, 3), jnp.float32([0.0, 0.3, 0.9]), condition, draw(B, 3), surface


def affine(layer, x):
    return x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])


def layer_norm(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * np.float64(layer.scale[...]) + np.float64(layer.bias[...])


def gelu(x):
    """The form with tanh (Hendrycks and Gimpel 2016), jax.nn.gelu's default."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def graph_block(block, x, adjacency):
    relu = lambda y: np.maximum(y, 0)
    y = affine(block.down, relu(layer_norm(block.norm_down, x)))
    y = relu(layer_norm(block.norm_conv, y)) @ np.float64(block.conv.kernel[...])
    y = adjacency @ y + np.float64(block.bias[...])
    return x + affine(block.up, relu(layer_norm(block.norm_up, y)))


def reference(net, mesh, share, condition, box, surface):
    """The velocities of one row."""
    spec, markers = net.spec, np.asarray(surface.markers)
    angle = np.pi * share * 2.0 ** np.arange(6)
    step = np.concatenate([np.sin(angle), np.cos(angle)])
    tokens = np.concatenate([mesh, condition], -1)
    x = affine(net.inp, tokens) + np.float64(net.position[...])
    x = x + affine(net.step, step) + affine(net.box, box)
    head = spec.width // spec.heads
    for _, block in sorted(net.blocks.items()):
        y = layer_norm(block.norm, x)
        keys = affine(block.key_value, y[markers] if spec.keys == "markers" else y)
        queries, mixed = affine(block.query, y), []
        for first in range(0, spec.width, head):
            part = slice(first, first + head)
            k, v = keys[:, : spec.width][:, part], keys[:, spec.width :][:, part]
            weight = np.exp(queries[:, part] @ k.T / math.sqrt(head))
            mixed.append(weight / weight.sum(-1, keepdims=True) @ v)
        x = x + affine(block.out, np.concatenate(mixed, -1))
        x = graph_block(block.graph, x, np.float64(surface.adjacency))
        x = x + affine(block.down, gelu(affine(block.up, layer_norm(block.norm_mlp, x))))
    velocity = affine(net.velocity, layer_norm(net.norm, x))
    if not spec.whole_width:
        return velocity
    y = affine(net.whole.inp, np.concatenate([tokens[markers].ravel(), step, box]))
    for _, block in sorted(net.whole.blocks.items()):
        y = y + affine(block["down"], gelu(affine(block["up"], layer_norm(block["norm"], y))))
    factors = affine(net.whole.factors, gelu(layer_norm(net.whole.norm, y))).reshape(-1, 3)
    return velocity + np.float64(net.whole.fields[...]) @ factors


@pytest.mark.parametrize("changed", [{}, {"keys": "vertices", "whole_width": 0}])
def test_the_decoder_is_its_formula(given, changed):
    net = decoder(dataclasses.replace(SPEC, **changed))
    mesh, share, condition, box, surface = given
    found = net(mesh, share, condition, box, surface)
    for row in range(B):
        parts = (mesh, share, condition.vertices, box)
        own = (np.float64(part[row]) for part in parts)
        np.testing.assert_allclose(found[row], reference(net, *own, surface), atol=2e-5)


def test_without_layers_the_mlp_is_alone(given):
    """It reads the markers, and no other vertex."""
    net = decoder(dataclasses.replace(SPEC, layers=0))
    mesh, *rest = given
    found = net(mesh, *rest)
    assert np.abs(found).min() > 0
    others = np.setdiff1d(np.arange(V), np.asarray(rest[-1].markers))
    np.testing.assert_array_equal(net(mesh.at[:, others].add(1.0), *rest), found)
    assert np.abs(net(mesh.at[:, 7].add(1.0), *rest) - found).max() > 1e-3


def test_a_global_condition_replaces_the_2d_mesh(given):
    net = decoder(dataclasses.replace(SPEC, condition="global"))
    mesh, share, condition, box, surface = given
    found = net(mesh, share, condition, box, surface)
    elsewhere = dataclasses.replace(condition, vertices=condition.vertices + 1)
    np.testing.assert_array_equal(net(mesh, share, elsewhere, box, surface), found)
    other = dataclasses.replace(condition, features=condition.features + 1)
    assert np.abs(net(mesh, share, other, box, surface) - found).max() > 1e-3


def test_a_new_decoder_leaves_the_mesh_where_it_is(given):
    """The first velocity is zero, also beside an MLP."""
    np.testing.assert_array_equal(Decoder(SPEC, rngs=nnx.Rngs(0))(*given), np.zeros((B, V, 3)))


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="keys 'faces': choose among vertices, markers"):
        PostureSpec(MESH2D, keys="faces")
