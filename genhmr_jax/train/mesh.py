"""Where arrays live: the device mesh, and one table from parameter paths to shardings. Models know
nothing of it.

Axes: `data` (batch), `fsdp` (batch, and parameters split to be gathered where they are used),
`tensor` (parameters split along the dimension in which they are multiplied). Any may be 1.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from genhmr_jax.io.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Pattern of the parameter's path -> axis of each of its last dimensions (leading ones, such as the
# stacked layers of a ViT, stay whole). The first that matches counts. What enters a block is split
# by columns over `tensor`, what leaves it by rows: one reduction a block.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(.*/)?(qkv|key_value|up|fc1|value|inp)/kernel", ("fsdp", "tensor")),
    (r"(.*/)?(proj|out|down|fc2)/kernel", ("tensor", "fsdp")),
    (r"(.*/)?(embed|code_features)", ("fsdp", None)),
    (r"(.*/)?head/kernel", ("fsdp", "tensor")),
)
Rules = Sequence[tuple[str, Sequence[str | None]]]


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all of all processes).

    Args:
      sizes: number of devices along "data", "fsdp" and "tensor"; one may be -1, which takes what is
        left. Other keys are ignored.

    Raises:
      InputError: the sizes do not multiply to the number of devices; the nearest that do are named.
    """
    devices = jax.devices() if devices is None else devices
    shape = {axis: int(sizes[axis]) for axis in AXES}
    free = [axis for axis, n in shape.items() if n == -1]
    fixed = math.prod(n for n in shape.values() if n != -1)
    if len(free) > 1 or any(n < 1 and n != -1 for n in shape.values()):
        raise InputError(
            "--config.mesh",
            f"{shape} is no mesh",
            "give whole numbers of 1 or more; one axis may be -1",
        )
    if len(devices) % fixed or (not free and fixed != len(devices)):
        nearest = dict(shape)
        for axis in reversed(AXES):  # keep what the mesh splits most finely, as far as it goes
            others = math.prod(n for a, n in nearest.items() if a != axis and n != -1)
            nearest[axis] = (
                math.gcd(len(devices) // math.gcd(len(devices), others), nearest[axis])
                if nearest[axis] != -1
                else -1
            )
        left = len(devices) // math.prod(n for n in nearest.values() if n != -1)
        nearest = {a: (left if n == -1 else n) for a, n in nearest.items()}
        nearest["data"] *= len(devices) // math.prod(nearest.values())
        raise InputError(
            "--config.mesh",
            f"{shape} does not divide {len(devices)} devices",
            f"nearest that does: {nearest}",
        )
    if free:
        shape[free[0]] = len(devices) // fixed
    return Mesh(_arranged(tuple(shape.values()), devices), AXES, axis_types=(AxisType.Auto,) * 3)


def _arranged(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of `shape`: neighbours in it are neighbours in the network. Slices
    that are joined by a slower network only (several TPU slices, nodes of GPUs) lie along `data`,
    where the least is sent."""
    slices = {getattr(device, "slice_index", 0) for device in devices}
    data, *inner = shape
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
    """The sharding of one parameter. Axes that do not divide their dimension, or of size 1, fall
    away.

    Parameters of two and more dimensions that no rule names are split over `fsdp` along their
    largest dimension that divides.
    """
    if len(shape) < 2 or math.prod(shape) < min_size:
        return PartitionSpec()
    fits = lambda size, axis: (
        axis is not None and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0
    )
    for pattern, axes in rules:
        if re.fullmatch(pattern, name) and len(axes) <= len(shape):
            full = (None,) * (len(shape) - len(axes)) + tuple(axes)
            return PartitionSpec(
                *(
                    axis if fits(size, axis) else None
                    for size, axis in zip(shape, full, strict=True)
                )
            )
    order = sorted(range(len(shape)), key=lambda i: (-shape[i], -i))
    best = next((i for i in order if fits(shape[i], "fsdp")), None)
    return (
        PartitionSpec(*("fsdp" if i == best else None for i in range(len(shape))))
        if best is not None
        else PartitionSpec()
    )


def param_shardings(shapes: Any, mesh: Mesh, rules: Rules = RULES, min_size: int = 0) -> Any:
    """The sharding of every leaf of a tree of parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: NamedSharding(
            mesh, partition_spec(path_name(path), x.shape, mesh, rules, min_size)
        ),
        shapes,
    )


def follow(tree: Any, params: Any, shardings: Any) -> Any:
    """Shardings of a tree that holds copies of the parameters somewhere inside (an optimiser's
    moments): each copy like its parameter.

    A leaf is a copy when its path ends in the path of a parameter and it has that parameter's
    shape; all others are replicated.
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
    """Rows of a batch split over data x fsdp."""
    return NamedSharding(mesh, BATCH)


def check_batch(name: str, size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises InputError when a batch of `size` rows does not divide over the mesh and the
    micro-batches; names the nearest that does."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
    if size % parts:
        near = sorted({max(size // parts, 1) * parts, -(-size // parts) * parts})
        raise InputError(
            f"--config.{name}",
            f"{size} rows do not divide by data x fsdp x accumulate = {mesh.shape['data']} x {mesh.shape['fsdp']} x {accumulate}",
            f"nearest that do: {' or '.join(map(str, near))}",
        )


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays that every process has whole -> global arrays with this sharding."""
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(
            np.shape(x), sharding, lambda index: np.asarray(x)[index]
        ),
        tree,
    )


@dataclasses.dataclass(frozen=True)
class Placement:
    """Between the host and a mesh, for evaluation: every process has the whole of what it places
    and gets."""

    mesh: Mesh

    def __call__(self, batch: Any) -> Any:
        """A batch with its rows split over data x fsdp; replicated where they do not divide."""
        rows = {x.shape[0] for x in jax.tree.leaves(batch)}
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return place(
            batch,
            replicated(self.mesh) if any(n % parts for n in rows) else batch_sharding(self.mesh),
        )

    def host(self, tree: Any) -> Any:
        """Global arrays -> whole NumPy arrays on every process."""
        if jax.process_count() == 1:
            return jax.device_get(tree)
        return jax.device_get(jax.jit(lambda t: t, out_shardings=replicated(self.mesh))(tree))
