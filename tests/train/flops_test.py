"""FLOPs of traced functions against numbers worked out by hand, and against XLA's count where that
is right (no loops)."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from genhmr_jax.train.flops import function_flops

A, B = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((5, 7), jnp.float32)
SQUARE = jax.ShapeDtypeStruct((4, 4), jnp.float32)
PRODUCT = 2 * 4**3


def test_a_product_by_hand():
    assert function_flops(jnp.matmul, A, B) == 2 * 3 * 5 * 7


def test_a_batched_product_by_hand():
    left, right = (
        jax.ShapeDtypeStruct((2, 6, 3, 5), jnp.bfloat16),
        jax.ShapeDtypeStruct((2, 6, 5, 7), jnp.bfloat16),
    )
    assert (
        function_flops(lambda a, b: jnp.einsum("abij,abjk->abik", a, b), left, right)
        == 12 * 2 * 3 * 5 * 7
    )


def test_the_gradient_of_a_product_costs_two_more():
    assert (
        function_flops(
            jax.value_and_grad(lambda a, b: jnp.sum(jnp.sin(a @ b)), argnums=(0, 1)), A, B
        )
        == 3 * 2 * 3 * 5 * 7
    )


def test_loops_count_their_turns():
    assert (
        function_flops(
            lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=9)[0], SQUARE
        )
        == 9 * PRODUCT
    )
    assert (
        function_flops(lambda x: jax.lax.fori_loop(2, 7, lambda i, c: c @ c, x), SQUARE)
        == 5 * PRODUCT
    )
    twice = lambda c: jax.lax.fori_loop(0, 2, lambda i, d: d @ d, c)
    assert (
        function_flops(lambda x: jax.lax.fori_loop(0, 5, lambda i, c: twice(c), x), SQUARE)
        == 10 * PRODUCT
    )


def test_a_while_counts_one_turn():
    count = jax.ShapeDtypeStruct((), jnp.int32)
    assert (
        function_flops(lambda x, n: jax.lax.fori_loop(0, n, lambda i, c: c @ c, x), SQUARE, count)
        == PRODUCT
    )


def test_the_costliest_branch_counts():
    def choose(x):
        return jax.lax.cond(x[0, 0] > 0, lambda v: v @ v @ v, lambda v: v + 1, x)

    assert function_flops(choose, SQUARE) == 2 * PRODUCT


def test_what_is_wrapped_counts_once():
    assert function_flops(jax.jit(jax.checkpoint(lambda x: x @ x)), SQUARE) == PRODUCT
    with_vjp = jax.custom_vjp(lambda x: x @ x)
    with_vjp.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    with_jvp = jax.custom_jvp(lambda x: x @ x)
    with_jvp.defjvp(lambda primals, tangents: (with_jvp(primals[0]), tangents[0] @ primals[0]))
    assert function_flops(with_vjp, SQUARE) == function_flops(with_jvp, SQUARE) == PRODUCT
    assert function_flops(jax.grad(lambda x: jnp.sum(with_vjp(x))), SQUARE) == 3 * PRODUCT


def test_rematerialisation_shows():
    def loss(x):
        return jnp.sum(jax.checkpoint(lambda v: jnp.sin(v @ v) @ v)(x))

    plain = function_flops(jax.grad(lambda x: jnp.sum(jnp.sin(x @ x) @ x)), SQUARE)
    assert function_flops(jax.grad(loss), SQUARE) > plain


def test_a_shard_map_counts_every_device():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")
    mapped = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=rows, out_specs=rows)
    assert function_flops(mapped, SQUARE) == PRODUCT


CONVOLUTIONS = {
    "same": {"window_strides": (1, 1), "padding": "SAME"},
    "strided": {"window_strides": (2, 2), "padding": "VALID"},
    "dilated kernel": {
        "window_strides": (1, 1),
        "padding": [(2, 2), (2, 2)],
        "rhs_dilation": (2, 2),
    },
    "transposed": {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)], "lhs_dilation": (2, 2)},
    "in groups": {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolutions_as_xla_counts_them(options):
    groups = options.get("feature_group_count", 1)
    image, kernel = (
        jax.ShapeDtypeStruct((2, 9, 9, 4), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 4 // groups, 6), jnp.float32),
    )

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    assert (
        function_flops(convolve, image, kernel)
        == jax.jit(convolve).lower(image, kernel).cost_analysis()["flops"]
    )


def test_a_patch_convolution_by_hand():
    image, kernel = (
        jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32),
        jax.ShapeDtypeStruct((4, 4, 3, 10), jnp.float32),
    )

    def patches(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert function_flops(patches, image, kernel) == 2 * (2 * 2 * 2 * 10) * (4 * 4 * 3)
    # Its gradient in the kernel alone is the same number of products over again.
    assert (
        function_flops(jax.grad(lambda k, x: jnp.sum(jnp.sin(patches(x, k)))), kernel, image)
        == 2 * 2 * 80 * 48
    )


def test_a_small_network_as_xla_counts_it():
    def network(x, w1, w2):
        return jax.nn.relu(x @ w1) @ w2

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((32, 64), (64, 256), (256, 64))]
    counted = function_flops(network, *shapes)
    assert counted == 2 * 32 * (64 * 256 + 256 * 64)
    assert counted == pytest.approx(
        jax.jit(network).lower(*shapes).cost_analysis()["flops"], rel=0.01
    )
