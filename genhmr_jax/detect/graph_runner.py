"""Runs the converted 2D networks: a pure function over a list of TensorFlow operations, to be
jitted, batched and differentiated.

A network file (`tools/build_eyes.py` writes it) is an npz of float16 weights plus the graph as
JSON. Weights are computed with in float32. Values that depend on shapes only stay NumPy arrays
while the graph is traced, so reshapes and ranges are static.
"""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

ASSETS = Path(__file__).parents[1] / "assets" / "eyes"
DTYPES = {"DT_FLOAT": np.float32, "DT_INT32": np.int32, "DT_BOOL": np.bool_}
ACTIVATIONS = {"Relu": jax.nn.relu, "Relu6": jax.nn.relu6}


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation: its inputs are names of nodes, "name:1" is the second output of a node."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes in an order in which inputs come first."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]

    def needed(self, names: Sequence[str]) -> list[Node]:
        """The nodes that the named values need, in order. Raises ValueError for an unknown name."""
        wanted = {name.split(":")[0] for name in names}
        if unknown := wanted - {node.name for node in self.nodes}:
            raise ValueError(f"the graph has no value named {', '.join(sorted(unknown))}")
        kept = []
        for node in reversed(self.nodes):
            if node.name in wanted:
                wanted.update(parent.split(":")[0] for parent in node.inputs)
                kept.append(node)
        return kept[::-1]


@functools.cache
def load(name: str) -> tuple[Graph, dict[str, Array]]:
    """A network and its weights (float32), read once.

    Args:
      name: of a network in genhmr_jax/assets/eyes ("blazepose-full"), or the path of such a file.

    Raises:
      FileNotFoundError: there is no such file; the message says how to make it.
      ValueError: the file is not one that tools/build_eyes.py writes.
    """
    path = Path(name) if str(name).endswith(".npz") else ASSETS / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such network; make it with `python tools/build_eyes.py --models {path.stem}`"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            description = json.loads(file["graph"].tobytes())
            with (
                jax.ensure_compile_time_eval()
            ):  # real arrays, also if a function under `jit` is the first to ask
                weights = {
                    key: jnp.asarray(file[key], jnp.float32) for key in file.files if key != "graph"
                }
        nodes = tuple(
            Node(name, op, tuple(inputs), attributes)
            for name, op, inputs, attributes in description["nodes"]
        )
        if unknown := {node.op for node in nodes} - {*OPERATIONS, "Placeholder", "Weight", "Const"}:
            raise ValueError(f"operations {', '.join(sorted(unknown))} are not supported")
        return Graph(nodes, tuple(description["inputs"]), description["outputs"]), weights
    except (KeyError, TypeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not a network file ({error}); make it again with tools/build_eyes.py"
        ) from error


def run(
    graph: Graph,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Values of a network.

    Args:
      graph, weights: of `load`.
      inputs: by name; images are (B, H, W, 3), where MoveNet takes B = 1 only.
      outputs: names of outputs or of inner nodes; default: all outputs. Only what they need is
        computed.
    """
    names = {
        name: graph.outputs.get(name, name)
        for name in (graph.outputs if outputs is None else outputs)
    }
    values: dict[str, Any] = {}
    for node in graph.needed(list(names.values())):
        if node.op == "Placeholder":
            result = inputs[node.name]
        elif node.op == "Weight":
            result = weights[node.name]
        elif node.op == "Const":
            result = np.asarray(node.attributes["value"], node.attributes["dtype"])
        else:
            result = OPERATIONS[node.op](*(values[name] for name in node.inputs), **node.attributes)
        several = isinstance(result, (list, tuple))
        for i, value in enumerate(result if several else [result]):
            values[f"{node.name}:{i}" if i else node.name] = value
    return {name: values[node] for name, node in names.items()}


def _convolution(
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    strides,
    padding: str,
    dilations=(1, 1, 1, 1),
    fused_ops=(),
) -> Array:
    if kernel.shape[:2] == (1, 1) and tuple(strides) == (1, 1, 1, 1):
        # On a CPU a matrix product is faster than XLA's convolution; elsewhere it is the same.
        y = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0], precision=lax.Precision.HIGHEST)
    else:
        y = _xla_convolution(x, kernel, strides[1:3], padding, rhs_dilation=dilations[1:3])
    return _finish(y, bias, fused_ops)


def _xla_convolution(x: Array, kernel: Array, strides, padding: str, **options) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=layout,
        precision=lax.Precision.HIGHEST,
        **options,
    )


def _depthwise(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides,
    padding: str,
    dilations=(1, 1, 1, 1),
    fused_ops=(),
) -> Array:
    rows, columns, channels, multiplier = kernel.shape
    if multiplier != 1 or tuple(dilations) != (1, 1, 1, 1):
        raise ValueError(
            "depthwise convolutions with a channel multiplier or a dilation are not supported"
        )
    strides = tuple(strides[1:3])
    if jax.default_backend() == "cpu":
        y = _shifted_sum(x, kernel[..., 0], strides, padding)
    else:
        y = _xla_convolution(
            x,
            kernel.reshape(rows, columns, 1, channels),
            strides,
            padding,
            feature_group_count=channels,
        )
    return _finish(y, bias, fused_ops)


def _shifted_sum(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "R S C"],
    strides: tuple[int, int],
    padding: str,
) -> Array:
    """A depthwise convolution as a sum of shifted slices: XLA's own is about ten times slower on a
    CPU."""
    shape = kernel.shape[:2]
    if padding == "SAME":
        sums = [
            max((-(-n // stride) - 1) * stride + window - n, 0)
            for n, window, stride in zip(x.shape[1:3], shape, strides, strict=True)
        ]
        x = jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in sums), (0, 0)))
    height, width = (
        (n - window) // stride + 1
        for n, window, stride in zip(x.shape[1:3], shape, strides, strict=True)
    )
    total = 0.0
    for i in range(shape[0]):
        for j in range(shape[1]):
            rows, columns = (
                slice(at, at + (n - 1) * s + 1, s)
                for at, n, s in ((i, height, strides[0]), (j, width, strides[1]))
            )
            total += x[:, rows, columns] * kernel[i, j]
    return total


def _finish(y: Array, bias: Array | None, fused_ops: Sequence[str]) -> Array:
    """Bias and activation of a fused convolution."""
    for op in fused_ops:
        y = y + bias if op == "BiasAdd" else ACTIVATIONS[op](y)
    return y


def _max_pool(x: Array, *, ksize, strides, padding: str) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, tuple(ksize), tuple(strides), padding)


def _resize_bilinear(
    x: Array, size: np.ndarray, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> Array:
    rows, columns = (
        _interpolation(n, int(m), align_corners, half_pixel_centers)
        for n, m in zip(x.shape[1:3], size, strict=True)
    )
    return jnp.einsum("yh,bhwc,xw->byxc", rows, x, columns, precision=lax.Precision.HIGHEST)


def _interpolation(
    size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool
) -> Float[np.ndarray, "out in"]:
    """Weights of linear interpolation along one axis, by TensorFlow's three conventions of where
    samples lie."""
    at = np.arange(size_out, dtype=np.float64)
    if align_corners and size_out > 1:
        at *= (size_in - 1) / (size_out - 1)
    elif half_pixel_centers:
        at = (at + 0.5) * size_in / size_out - 0.5
    else:
        at *= size_in / size_out
    at = np.clip(at, 0, size_in - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size_in))).astype(np.float32)


def _strided_slice(
    x,
    begin,
    end,
    strides,
    *,
    begin_mask=0,
    end_mask=0,
    ellipsis_mask=0,
    new_axis_mask=0,
    shrink_axis_mask=0,
):
    index: list[Any] = []
    for i, (first, last, step) in enumerate(
        zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)
    ):
        bit = 1 << i
        if ellipsis_mask & bit:
            index.append(...)
        elif new_axis_mask & bit:
            index.append(None)
        elif shrink_axis_mask & bit:
            index.append(first)
        else:
            index.append(
                slice(None if begin_mask & bit else first, None if end_mask & bit else last, step)
            )
    result = x[tuple(index)]
    return np.asarray(result) if isinstance(x, np.ndarray) else result


def _either(function):
    """Calls function(xp, ...) with xp = NumPy where all values are known while tracing, so that the
    result is known too, else jax.numpy."""

    def apply(*values, **attributes):
        known = all(isinstance(value, (np.ndarray, np.generic)) for value in values)
        return function(np if known else jnp, *values, **attributes)

    return apply


def _elementwise(name: str):
    return _either(lambda xp, *values: getattr(xp, name)(*values))


def _axes(axis: np.ndarray) -> tuple[int, ...]:
    return tuple(int(n) for n in np.atleast_1d(axis))


def _top_k(x: Array, k: np.ndarray) -> tuple[Array, Array]:
    values, indices = lax.top_k(x, int(k))
    return values, indices.astype(jnp.int32)


OPERATIONS = {
    "_FusedConv2D": _convolution,
    "FusedDepthwiseConv2dNative": _depthwise,
    "DepthwiseConv2dNative": _depthwise,
    "MaxPool": _max_pool,
    "ResizeBilinear": _resize_bilinear,
    "StridedSlice": _strided_slice,
    "TopKV2": _top_k,
    "GatherNd": lambda x, indices: x[tuple(jnp.moveaxis(indices, -1, 0))],
    "Pad": lambda x, widths: jnp.pad(x, widths),
    # Shapes, and arrays made of them.
    "Shape": lambda x: np.asarray(x.shape, np.int32),
    "Size": lambda x: np.asarray(x.size, np.int32),
    "Range": lambda start, stop, step: np.arange(start, stop, step, start.dtype),
    "Fill": lambda shape, value: np.full(shape, value),
    "Reshape": lambda x, shape: x.reshape(tuple(int(n) for n in shape)),
    "Squeeze": lambda x, squeeze_dims: x.squeeze(tuple(squeeze_dims)),
    "ExpandDims": _either(lambda xp, x, axis: xp.expand_dims(x, int(axis))),
    "Tile": _either(lambda xp, x, times: xp.tile(x, tuple(int(n) for n in times))),
    "Pack": _either(lambda xp, *parts, axis: xp.stack(parts, axis)),
    "Unpack": _either(lambda xp, x, num, axis: [xp.take(x, i, axis) for i in range(num)]),
    "Split": _either(lambda xp, axis, x, num_split: xp.split(x, num_split, int(axis))),
    "ConcatV2": _either(lambda xp, *parts: xp.concatenate(parts[:-1], int(parts[-1]))),
    # Reductions.
    "Max": lambda x, axis, keep_dims: jnp.max(x, _axes(axis), keepdims=keep_dims),
    "Sum": lambda x, axis, keep_dims: jnp.sum(x, _axes(axis), keepdims=keep_dims),
    "ArgMax": lambda x, axis: jnp.argmax(x, int(axis)).astype(jnp.int32),
    # Elementwise.
    "Cast": lambda x, DstT: x.astype(DTYPES[DstT]),  # noqa: N803
    "Sigmoid": jax.nn.sigmoid,
    "Relu": jax.nn.relu,
    "Relu6": jax.nn.relu6,
    "SquaredDifference": lambda x, y: jnp.square(x - y),
    "AddN": lambda *values: functools.reduce(jnp.add, values),
    "AddV2": _elementwise("add"),
    "Sub": _elementwise("subtract"),
    "Mul": _elementwise("multiply"),
    "RealDiv": _elementwise("true_divide"),
    "FloorDiv": _elementwise("floor_divide"),
    "Minimum": _elementwise("minimum"),
    "Maximum": _elementwise("maximum"),
    "Less": _elementwise("less"),
    "Greater": _elementwise("greater"),
    "GreaterEqual": _elementwise("greater_equal"),
    "Equal": _elementwise("equal"),
    "LogicalAnd": _elementwise("logical_and"),
    "Select": _elementwise("where"),
    "Abs": _elementwise("abs"),
    "Exp": _elementwise("exp"),
    "Sqrt": _elementwise("sqrt"),
    "Reciprocal": _elementwise("reciprocal"),
}
