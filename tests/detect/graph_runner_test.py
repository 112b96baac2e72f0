"""The graph interpreter: its operations against plain NumPy, the networks against what
TensorFlow.js gave for the same input."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.detect import blazepose, graph_runner
from genhmr_jax.detect.shifted_sum import shifted_sum
from support.detect_figure import figure
from support.paths import SUPPORT

REFERENCE = json.loads((SUPPORT / "detect_reference.json").read_text())


def outputs(network):
    """All outputs of a network for the drawn figure."""
    description, weights = graph_runner.load(network)
    image = figure(256)[None]
    image = (
        image.astype(np.int32)
        if network.startswith("movenet")
        else image.astype(np.float32) / np.float32(255)
    )
    return jax.jit(
        lambda weights, x: graph_runner.run(description, weights, {description.inputs[0]: x})
    )(weights, image)


def test_multipose_equals_tensorflow_js():
    ours = np.asarray(outputs("movenet-multipose")["output_0"]).ravel()
    reference = np.array(REFERENCE["movenet-multipose"]["output_0"])
    assert reference.reshape(6, 56)[0, 55] > 0.5, (
        "the reference shall be of a picture in which somebody is found"
    )
    # Shares of 256 px: 5e-5 are 0.013 px. Only the person: the order of five guesses of nothing is
    # chance.
    np.testing.assert_allclose(ours[:56], reference[:56], atol=5e-5)


def test_blazepose_equals_tensorflow_js():
    found, reference = outputs("blazepose-full"), REFERENCE["blazepose-full"]
    ours, theirs = (
        np.asarray(found["ld_3d"]).reshape(39, 5),
        np.array(reference["ld_3d"]).reshape(39, 5),
    )
    np.testing.assert_allclose(ours[:, :2], theirs[:, :2], atol=0.015)
    np.testing.assert_allclose(ours[:, 2:], theirs[:, 2:], atol=0.03)
    np.testing.assert_allclose(
        np.asarray(found["world_3d"]).ravel(), reference["world_3d"], atol=4e-5
    )
    np.testing.assert_allclose(
        np.asarray(found["output_poseflag"]).ravel(), reference["output_poseflag"], atol=1e-5
    )


def naive_convolution(x, kernel, stride, padding, depthwise):
    """A 2D convolution of float64 arrays by loops: TensorFlow's SAME puts the odd pixel of padding
    at the end."""
    rows, columns = kernel.shape[:2]
    if padding == "SAME":
        totals = [
            max((-(-n // stride) - 1) * stride + k - n, 0)
            for n, k in zip(x.shape[1:3], (rows, columns), strict=True)
        ]
        x = np.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in totals), (0, 0)))
    height, width = (
        (n - k) // stride + 1 for n, k in zip(x.shape[1:3], (rows, columns), strict=True)
    )
    y = np.zeros((len(x), height, width, kernel.shape[2] if depthwise else kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + rows, j * stride : j * stride + columns]
            y[:, i, j] = (
                (window * kernel[..., 0]).sum((1, 2))
                if depthwise
                else np.einsum("brsc,rsco->bo", window, kernel)
            )
    return y


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [((8, 7), 3, 1), ((8, 7), 3, 2), ((9, 6), 5, 2), ((6, 5), 1, 1), ((6, 6), 2, 1)],
)
def test_convolutions(depthwise, padding, size, window, stride):
    rng = np.random.default_rng(window)
    x = rng.normal(size=(2, *size, 3))
    kernel = rng.normal(size=(window, window, 3, 1 if depthwise else 4))
    bias = rng.normal(size=kernel.shape[2] if depthwise else 4)
    op = graph_runner.OPERATIONS["FusedDepthwiseConv2dNative" if depthwise else "_FusedConv2D"]
    options = dict(strides=[1, stride, stride, 1], padding=padding, fused_ops=["BiasAdd", "Relu6"])
    ours = jax.jit(lambda *arrays: op(*arrays, **options))(x, kernel, bias)
    np.testing.assert_allclose(
        ours,
        np.clip(naive_convolution(x, kernel, stride, padding, depthwise) + bias, 0, 6),
        atol=2e-5,
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "window", "stride"), [((8, 7), 3, 1), ((8, 7), 3, 2), ((9, 6), 5, 2), ((6, 6), 2, 2)]
)
def test_derivatives_of_depthwise_convolutions(padding, size, window, stride):
    """Those that are written by hand are those of XLA's own convolution."""
    rng = np.random.default_rng(window)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(window, window, 3)), jnp.float32)
    strides = (stride, stride)

    def of_xla(x, kernel):
        kernel = kernel[:, :, None]
        return graph_runner._xla_convolution(x, kernel, strides, padding, feature_group_count=3)

    def ours(x, kernel):
        return shifted_sum(x, kernel, strides, padding)

    slope = jnp.asarray(rng.normal(size=of_xla(x, kernel).shape), jnp.float32)
    theirs = jax.vjp(of_xla, x, kernel)[1](slope)
    for mine, their in zip(jax.vjp(ours, x, kernel)[1](slope), theirs, strict=True):
        np.testing.assert_allclose(mine, their, atol=5e-5)


def naive_resize(x, size, align_corners, half_pixel_centers):
    """Bilinear resizing of one channel by loops, as TensorFlow defines it."""
    y = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            at = []
            for k, n, m in ((i, x.shape[0], size[0]), (j, x.shape[1], size[1])):
                if align_corners:
                    at.append(k * (n - 1) / (m - 1))
                else:
                    at.append((k + 0.5) * n / m - 0.5 if half_pixel_centers else k * n / m)
            (top, left), total = np.floor(at).astype(int), 0.0
            for r, wr in ((top, 1 - (at[0] - top)), (top + 1, at[0] - top)):
                for c, wc in ((left, 1 - (at[1] - left)), (left + 1, at[1] - left)):
                    total += (
                        wr * wc * x[np.clip(r, 0, x.shape[0] - 1), np.clip(c, 0, x.shape[1] - 1)]
                    )
            y[i, j] = total
    return y


@pytest.mark.parametrize("flags", [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("size", [(8, 10), (7, 3)])
def test_resize(flags, size):
    x = np.random.default_rng(0).normal(size=(4, 5))
    options = dict(align_corners=flags[0], half_pixel_centers=flags[1])
    ours = graph_runner.OPERATIONS["ResizeBilinear"](
        jnp.array(x, jnp.float32)[None, :, :, None], np.array(size), **options
    )
    np.testing.assert_allclose(ours[0, :, :, 0], naive_resize(x, size, *flags), atol=1e-5)


def test_strided_slice_with_masks():
    x = np.arange(24).reshape(2, 3, 4)
    op = graph_runner.OPERATIONS["StridedSlice"]
    given = [np.array(v, np.int32) for v in ([1, 0, 0, 9], [9, 0, 0, 9], [1, 1, 1, 2])]
    # x[1:, newaxis, ..., ::2]: end of axis 0 open, a new axis, an ellipsis, the last axis open on
    # both sides.
    ours = op(x, *given, begin_mask=8, end_mask=1 | 8, new_axis_mask=2, ellipsis_mask=4)
    np.testing.assert_array_equal(ours, x[1:, None, ..., ::2])
    one = [np.array([v], np.int32) for v in (1, 2, 1)]
    np.testing.assert_array_equal(op(x, *one, shrink_axis_mask=1), x[1])


def test_feature_maps_do_not_depend_on_the_batch():
    crops = jnp.array(np.stack([figure(256), figure(256)[:, ::-1]]) / 255.0, jnp.float32)
    maps = blazepose.feature_maps(crops)
    assert [m.shape for m in maps] == [(2, 32, 32, 80), (2, 16, 16, 136), (2, 8, 8, 288)]
    for both, alone in zip(maps, blazepose.feature_maps(crops[1:]), strict=True):
        np.testing.assert_allclose(both[1:], alone, atol=1e-4)


def test_gradients_through_a_network_are_finite_and_right():
    description, weights = graph_runner.load("blazepose-full")
    image = jnp.array(figure(256)[None] / 255.0, jnp.float32)

    @jax.jit
    def loss(
        x,
    ):  # the first eight blocks of the encoder: padding, strides, both kinds of convolution, sums
        return jnp.square(
            graph_runner.run(description, weights, {description.inputs[0]: x}, ["model/add_1/add"])[
                "model/add_1/add"
            ]
        ).mean()

    gradient = jax.grad(loss)(image)
    assert np.isfinite(gradient).all()
    direction = gradient / jnp.linalg.norm(gradient)
    slope = (
        loss(image + 0.002 * direction) - loss(image - 0.002 * direction)
    ) / 0.004  # small: many kinks of ReLU6 are near
    np.testing.assert_allclose(slope, jnp.linalg.norm(gradient), rtol=0.02)


def test_only_what_an_output_needs_is_run():
    description, _ = graph_runner.load("blazepose-full")
    assert (
        len(description.needed(["model/add_1/add"]))
        < len(description.needed([description.outputs["ld_3d"]]))
        < len(description.nodes)
    )
    with pytest.raises(ValueError, match="no value named nonsense"):
        description.needed(["nonsense"])


def test_missing_and_broken_network_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="build_eyes.py"):
        graph_runner.load("blazepose-enormous")
    with pytest.raises(ValueError, match="unknown BlazePose 'huge'"):
        blazepose.feature_maps(jnp.zeros((1, 256, 256, 3)), "huge")
    for name, content in (("text", b"not an archive"), ("empty", b"")):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.npz: not a network file"):
            graph_runner.load(str(tmp_path / f"{name}.npz"))
    nodes = [["x", "Placeholder", [], {}], ["y", "Fancy", ["x"], {}]]
    description = json.dumps({"inputs": ["x"], "outputs": {"y": "y"}, "nodes": nodes}).encode()
    np.savez(tmp_path / "new.npz", graph=np.frombuffer(description, np.uint8))
    with pytest.raises(ValueError, match="Fancy"):
        graph_runner.load(str(tmp_path / "new.npz"))
