"""The converted 2D networks: a pure function evaluates a list of TensorFlow operations.

It can be jitted, batched and differentiated. A network file (tools/build_eyes.py and
tools/build_hands.py write it) is an npz of float16 weights and the graph as JSON. Computations are
in float32. Values that depend only on shapes stay NumPy arrays while the graph is traced, so that
reshapes and ranges are static.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from genhmr_jax.detect.shifted_sum import shifted_sum

ASSETS = Path(__file__).parents[1] / "assets" / "eyes"
DTYPES = {"DT_FLOAT": np.float32, "DT_INT32": np.int32, "DT_BOOL": np.bool_}
ACTIVATIONS = {"Relu": jax.nn.relu, "Relu6": jax.nn.relu6}


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation. Its inputs are names of nodes; "name:1" is the second output of a node."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A network: its nodes, ordered so that the inputs of a node precede it.

    It can be a static argument of jitted functions. Its identity is `digest`, the SHA-256 hash of
    its description.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Graph({self.digest})"

    def needed(self, names: Sequence[str], given: Collection[str] = ()) -> list[Node]:
        """The nodes that the named values depend on, in order.

        Args:
          given: nodes whose values are known: they and what only they depend on are left out.

        Raises:
          ValueError: an unknown name.
        """
        wanted = {name.split(":")[0] for name in names}
        if unknown := (wanted | set(given)) - {node.name for node in self.nodes}:
            raise ValueError(f"the graph has no value named {', '.join(sorted(unknown))}")
        kept = []
        for node in reversed(self.nodes):
            if node.name in wanted and node.name not in given:
                wanted.update(parent.split(":")[0] for parent in node.inputs)
                kept.append(node)
        return kept[::-1]


@functools.cache
def load(name: str) -> tuple[Graph, dict[str, Array]]:
    """Load a network and its weights (float32); they are cached.

    Args:
      name: of a network in genhmr_jax/assets/eyes ("blazepose-full"), or the path of such a file.

    Raises:
      FileNotFoundError: there is no such file; the message has the command that makes it.
      ValueError: the file was not written by tools/build_eyes.py or tools/build_hands.py.
    """
    path = Path(name) if str(name).endswith(".npz") else ASSETS / f"{name}.npz"
    is_hand = path.stem.startswith(("hand", "palm"))
    tool = "tools/build_hands.py" if is_hand else "tools/build_eyes.py"
    if not path.is_file():
        command = f"python {tool} --models {path.stem}"
        raise FileNotFoundError(f"{path}: no such network; make it with `{command}`")
    try:
        with np.load(path, allow_pickle=False) as file:
            text = file["graph"].tobytes()
            description = json.loads(text)
            names = [key for key in file.files if key != "graph"]
            # Concrete arrays, even if the first call is inside a jitted function.
            with jax.ensure_compile_time_eval():
                # Converted by NumPy: jnp would compile a program for each shape.
                weights = jax.device_put({key: file[key].astype(np.float32) for key in names})
        nodes = tuple(
            Node(name, op, tuple(inputs), attributes)
            for name, op, inputs, attributes in description["nodes"]
        )
        if unknown := {node.op for node in nodes} - {*OPERATIONS, "Placeholder", "Weight", "Const"}:
            raise ValueError(f"operations {', '.join(sorted(unknown))} are not supported")
        digest = hashlib.sha256(text).hexdigest()
        inputs, outputs = tuple(description["inputs"]), description["outputs"]
        return Graph(nodes, inputs, outputs, digest), weights
    except (KeyError, TypeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        remedy = f"make it again with {tool}"
        raise ValueError(f"{path}: not a network file ({error}); {remedy}") from error


def run(
    graph: Graph,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Evaluate a network.

    Args:
      graph, weights: of `load`.
      inputs: by name; images are (B, H, W, 3). MoveNet requires B = 1. An inner node can be given
        too: nothing is then computed for it.
      outputs: names of outputs or of inner nodes; default: all outputs. Only the nodes that they
        depend on are evaluated.
    """
    wanted = graph.outputs if outputs is None else outputs
    names = {name: graph.outputs.get(name, name) for name in wanted}
    values: dict[str, Any] = dict(inputs)
    for node in graph.needed(list(names.values()), inputs):
        if node.op == "Weight":
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
        # On a CPU a matrix product is faster than XLA's convolution; elsewhere there is no
        # difference. Of two axes: the derivative by the kernel is then three times faster.
        flat = x.reshape(-1, x.shape[-1])
        y = jnp.matmul(flat, kernel[0, 0], precision=lax.Precision.HIGHEST)
        y = y.reshape(*x.shape[:-1], -1)
    else:
        y = _xla_convolution(x, kernel, strides[1:3], padding, rhs_dilation=dilations[1:3])
    return _finish(y, bias, fused_ops)


def _xla_convolution(x: Array, kernel: Array, strides, padding: str, **options) -> Array:
    options |= {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": lax.Precision.HIGHEST}
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


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
        y = shifted_sum(x, kernel[..., 0], strides, padding)
    else:
        kernel = kernel.reshape(rows, columns, 1, channels)
        y = _xla_convolution(x, kernel, strides, padding, feature_group_count=channels)
    return _finish(y, bias, fused_ops)


def _finish(y: Array, bias: Array | None, fused_ops: Sequence[str]) -> Array:
    """Bias and activation of a fused convolution."""
    for op in fused_ops:
        y = y + bias if op == "BiasAdd" else ACTIVATIONS[op](y)
    return y


def _matrix_product(x: Array, kernel: Array, bias: Array, *, fused_ops=()) -> Array:
    return _finish(jnp.matmul(x, kernel, precision=lax.Precision.HIGHEST), bias, fused_ops)


def _max_pool(x: Array, *, ksize, strides, padding: str) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, tuple(ksize), tuple(strides), padding)


def _resize_bilinear(
    x: Array, size: np.ndarray, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> Array:
    convention = (align_corners, half_pixel_centers)
    rows = _interpolation(x.shape[1], int(size[0]), *convention)
    columns = _interpolation(x.shape[2], int(size[1]), *convention)
    return jnp.einsum("yh,bhwc,xw->byxc", rows, x, columns, precision=lax.Precision.HIGHEST)


def _interpolation(
    size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool
) -> Float[np.ndarray, "out in"]:
    """Weights of linear interpolation along one axis, in TensorFlow's three conventions."""
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
    slices = zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)
    for i, (first, last, step) in enumerate(slices):
        bit = 1 << i
        if ellipsis_mask & bit:
            index.append(...)
        elif new_axis_mask & bit:
            index.append(None)
        elif shrink_axis_mask & bit:
            index.append(first)
        else:
            first = None if begin_mask & bit else first
            index.append(slice(first, None if end_mask & bit else last, step))
    result = x[tuple(index)]
    return np.asarray(result) if isinstance(x, np.ndarray) else result


def _either(function):
    """Wrap function(xp, ...): xp is NumPy if all values are known while tracing, else jax.numpy.

    The result of NumPy is then known while tracing too.
    """

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
    "_FusedMatMul": _matrix_product,
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
    "Mean": lambda x, axis, keep_dims: jnp.mean(x, _axes(axis), keepdims=keep_dims),
    "ArgMax": lambda x, axis: jnp.argmax(x, int(axis)).astype(jnp.int32),
    # Elementwise.
    "Cast": lambda x, DstT: x.astype(DTYPES[DstT]),  # noqa: N803
    "Sigmoid": jax.nn.sigmoid,
    "Relu": jax.nn.relu,
    "Relu6": jax.nn.relu6,
    # TensorFlow Lite's: a slope for each channel.
    "Prelu": lambda x, slope: jnp.where(x < 0, x * slope, x),
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
