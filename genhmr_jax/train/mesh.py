"""The device mesh, and the shardings of parameters by path.

Axes: `data` (batch), `fsdp` (batch, and parameters that are gathered where they are used), `tensor`
(parameters split along the dimension in which they are multiplied). The size of any axis may be 1.
Models do not depend on this module.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from genhmr_jax.data.pipeline import check_divides
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets.rows import AXES as BATCH_AXES

AXES = ("data", "fsdp", "tensor")

# Pattern of the parameter's path -> axis of each of its last dimensions (leading ones, such as the
# stacked layers of a ViT, are not split). The first match counts. The first kernel of a block is
# split by columns over `tensor`, the last one by rows: one reduction a block.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(.*/)?(qkv|key_value|up|fc1|value|inp|block_\d+/query)/kernel", ("fsdp", "tensor")),
    (r"(.*/)?(proj|out|down|fc2)/kernel", ("tensor", "fsdp")),
    (r"(.*/)?(embed|code_features)", ("fsdp", None)),
    (r"(.*/)?head/kernel", ("fsdp", "tensor")),
)
Rules = Sequence[tuple[str, Sequence[str | None]]]


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Make the mesh over `devices` (default: all devices of all processes).

    Args:
      sizes: number of devices along "data", "fsdp" and "tensor"; one may be -1, which takes the
        remaining devices. Other keys are ignored.

    Raises:
      InputError: the product of the sizes is not the number of devices; the message has the nearest
        sizes.
    """
    devices = jax.devices() if devices is None else devices
    shape = {axis: int(sizes[axis]) for axis in AXES}
    free = [axis for axis, n in shape.items() if n == -1]
    fixed = math.prod(n for n in shape.values() if n != -1)
    if len(free) > 1 or any(n < 1 and n != -1 for n in shape.values()):
        remedy = "give integers of 1 or more; one axis may be -1"
        raise InputError("--config.mesh", f"{shape} is not a mesh", remedy)
    if len(devices) % fixed or (not free and fixed != len(devices)):
        problem = f"{shape} does not divide {len(devices)} devices"
        remedy = f"nearest that does: {_nearest_sizes(shape, len(devices))}"
        raise InputError("--config.mesh", problem, remedy)
    if free:
        shape[free[0]] = len(devices) // fixed
    return Mesh(_arranged(tuple(shape.values()), devices), AXES, axis_types=(AxisType.Auto,) * 3)


def _nearest_sizes(shape: dict[str, int], devices: int) -> dict[str, int]:
    """Sizes similar to `shape` whose product is the number of devices."""
    nearest = dict(shape)
    for axis in reversed(AXES):  # the axes that split parameters keep their size if possible
        if nearest[axis] != -1:
            others = math.prod(n for a, n in nearest.items() if a != axis and n != -1)
            nearest[axis] = math.gcd(devices // math.gcd(devices, others), nearest[axis])
    left = devices // math.prod(n for n in nearest.values() if n != -1)
    nearest = {a: (left if n == -1 else n) for a, n in nearest.items()}
    nearest["data"] *= devices // math.prod(nearest.values())
    return nearest


def _arranged(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Arrange devices in an array of `shape`, in which neighbours are close in the network.

    Groups that only a slower network connects (several TPU slices, nodes of GPUs) are along `data`,
    the axis with the least communication.
    """
    slices = {getattr(device, "slice_index", 0) for device in devices}
    data, *inner = shape
    if len(slices) > 1 and data % len(slices) and devices[0].platform == "tpu":
        problem = f"data is {data}, but there are {len(slices)} slices of TPUs"
        remedy = f"give a multiple, such as --config.mesh.data={len(slices)}"
        raise InputError("config.mesh", problem, remedy)
    if len(slices) > 1 and data % len(slices) == 0:
        outer = (len(slices), *(1,) * len(inner))
        return mesh_utils.create_hybrid_device_mesh(
            (data // len(slices), *inner), outer, devices, allow_split_physical_axes=True
        )
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def path_name(path: Sequence[Any]) -> str:
    """A tree path as "a/b/c"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def partition_spec(
    name: str, shape: Sequence[int], mesh: Mesh, rules: Rules = RULES, min_size: int = 0
) -> PartitionSpec:
    """The sharding of one parameter.

    Axes of size 1, or whose size does not divide the dimension, are left out. Parameters of two or
    more dimensions that match no rule are split over `fsdp` along their largest divisible
    dimension. Parameters with fewer than `min_size` elements are replicated.
    """
    if len(shape) < 2 or math.prod(shape) < min_size:
        return PartitionSpec()
    fits = lambda size, axis: (
        axis is not None and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0
    )
    for pattern, axes in rules:
        if re.fullmatch(pattern, name) and len(axes) <= len(shape):
            full = (None,) * (len(shape) - len(axes)) + tuple(axes)
            pairs = zip(shape, full, strict=True)
            return PartitionSpec(*(axis if fits(size, axis) else None for size, axis in pairs))
    order = sorted(range(len(shape)), key=lambda i: (-shape[i], -i))
    best = next((i for i in order if fits(shape[i], "fsdp")), None)
    if best is None:
        return PartitionSpec()
    return PartitionSpec(*("fsdp" if i == best else None for i in range(len(shape))))


def param_shardings(shapes: Any, mesh: Mesh, rules: Rules = RULES, min_size: int = 0) -> Any:
    """The sharding of every leaf of a tree of parameters."""

    def sharding(path: Sequence[Any], x: Any) -> NamedSharding:
        spec = partition_spec(path_name(path), x.shape, mesh, rules, min_size)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def follow(tree: Any, params: Any, shardings: Any) -> Any:
    """Shardings of a tree that contains copies of the parameters (an optimiser's moments).

    A leaf is a copy, with its parameter's sharding, if its path ends in the path of a parameter and
    it has that parameter's shape. All other leaves are replicated.
    """
    flat = jax.tree_util.tree_leaves_with_path(params)
    mesh = jax.tree.leaves(shardings)[0].mesh
    known = {
        path_name(path): (x.shape, s)
        for (path, x), s in zip(flat, jax.tree.leaves(shardings), strict=True)
    }

    def find(path: Sequence[Any], x: Any) -> NamedSharding:
        parts = path_name(path).split("/")
        for start in range(len(parts)):
            shape, sharding = known.get("/".join(parts[start:]), (None, None))
            if shape == x.shape:
                return sharding
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(find, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch split over fsdp x data."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(name: str, size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raise InputError unless the batch of a field divides over the mesh and micro-batches."""
    check_divides(size, batch_sharding(mesh), f"--config.{name}", accumulate)


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Make global arrays of this sharding from host arrays, which every process has whole."""

    def one(x: Any) -> jax.Array:
        part = lambda index: np.asarray(x)[index]
        return jax.make_array_from_callback(np.shape(x), sharding, part)

    return jax.tree.map(one, tree)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Transfer of whole arrays between the host and a mesh, for evaluation."""

    mesh: Mesh

    def __call__(self, batch: Any) -> Any:
        """Put a batch on the mesh: rows split over fsdp x data; replicated if that is uneven."""
        parts = math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)
        divides = all(x.shape[0] % parts == 0 for x in jax.tree.leaves(batch))
        return place(batch, batch_sharding(self.mesh) if divides else replicated(self.mesh))

    def host(self, tree: Any) -> Any:
        """Copy global arrays to whole NumPy arrays on every process."""
        if jax.process_count() == 1:
            return jax.device_get(tree)
        return jax.device_get(_gather(self.mesh)(tree))


@functools.cache
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    """A program that replicates arrays; a new function would be compiled at each call."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))
