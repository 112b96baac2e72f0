"""Use of the shipped lifter (lifter_net.py) on the outputs of BlazePose."""

import dataclasses
import functools
import importlib.resources
import pathlib
import types
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.detect import trunks
from genhmr_jax.detect.blazepose import (
    EARLY,
    EARLY_SHAPE,
    INNER,
    LANDMARKS,
    NETWORK,
    SIZE,
    Landmarks,
    Region,
)
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.io.program_store import remembered_shapes, stored
from genhmr_jax.io.quantised import quantised_shapes, restored
from genhmr_jax.nets.sizes import check_sizes

FOLDER = pathlib.Path(str(importlib.resources.files("genhmr_jax") / "assets" / "lifter"))
"""A model folder of the stage "lifter" (configs/lifter/rendered_people.py)."""
TRUNK = trunks.Trunk(NETWORK, EARLY, INNER)
"""16x16x88 -> 8x8x288."""


@dataclasses.dataclass(frozen=True)
class LifterSpec:
    """Sizes of the lifter. drop: share of the inputs that dropout hides in training."""

    map_channels: int = 32
    map_features: int = 256
    width: int = 512
    depth: int = 2
    drop: float = 0.2

    def __post_init__(self) -> None:
        check_sizes(self, "map_channels", "map_features", "width")
        check_sizes(self, "depth", least=0)
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop is {self.drop}: a share below 1 is needed")


UNKNOWN = 0.01
"""Expected error of the keypoints of other networks, in sides of the region."""


def estimates(
    found: Landmarks, region: Region
) -> tuple[Float[np.ndarray, "23 2"], Float[np.ndarray, "23 3"], Float[np.ndarray, "23"]]:
    """Estimate the DETECTED keypoints of our body.

    For a network on which the lifter was not trained, they are BlazePose's own landmarks.

    Returns:
      px of the image; metres from mid-hip: x right, y down, z away from the camera; the expected
      absolute error of a coordinate in 2D, in sides of the region.
    """
    evidence = found.evidence
    if not found.early.size:
        unknown = np.full(len(DETECTED), UNKNOWN)
        return found.named(DETECTED)[:, :2], found.named_world(DETECTED), unknown
    arrays = (evidence.landmarks, evidence.world, evidence.heat, found.early)
    inputs = [np.asarray(array, np.float32)[None] for array in arrays]
    lifted = _lift(_params(), *inputs, _spec())
    points2d, points3d, spread = (np.asarray(points[0], np.float64) for points in lifted)
    points3d = np.concatenate([points3d[:, :2] @ region.axes().T, points3d[:, 2:]], -1)
    return region.to_image((points2d + 0.5) * SIZE), points3d, spread


def preload(make: bool = False) -> None:
    """Read the stored program; with `make`, compile a missing one."""
    shapes = (LANDMARKS, 5), (LANDMARKS, 3), (LANDMARKS, 6), EARLY_SHAPE
    arrays = (np.zeros((1, *shape), np.float32) for shape in shapes)
    _lift.preload(_params(), *arrays, _spec(), make=make)


@functools.cache
def _spec() -> LifterSpec:
    """The sizes of the shipped lifter."""
    return LifterSpec(**load_meta(FOLDER)["spec"])


@functools.cache
def _params() -> Any:
    """The shipped parameters: those of the head, and the weights of the trunk."""
    head = remembered_shapes(
        "lifter", _spec(), lambda: _network().head_graph(_network().BODY, _spec())[1]
    )
    return shipped_params(FOLDER, head, TRUNK)


def shipped_params(folder: pathlib.Path, head: Any, trunk: trunks.Trunk) -> dict[str, Any]:
    """The parameters of a lifter's model folder: those of the head, and the trunk's weights.

    Args:
      head: shapes of the head's parameters.
    """
    own = {name: np.asarray(array) for name, array in trunk.own_weights().items()}
    found = trained_params(folder, head, trunk)
    return jax.device_put(found | {"trunk": trunks.changed(own, found["trunk"])})


def trained_params(folder: pathlib.Path, head: Any, trunk: trunks.Trunk) -> dict[str, Any]:
    """The parameters as they are trained: with the changes of the trunk's weights."""
    shapes = {"head": head, "trunk": trunk.change_shapes()}
    return restored(load_params(folder, quantised_shapes(shapes)))


@stored("spec")
def _lift(
    params: Any,
    landmarks: Float[Array, "B 39 5"],
    world: Float[Array, "B 39 3"],
    heat: Float[Array, "B 39 6"],
    early: Float[Array, "B 16 16 88"],
    spec: LifterSpec,
) -> tuple[Array, Array, Array]:
    """The 2D and 3D keypoints of the network, and their expected errors in 2D."""
    return _network().lift(spec, params["head"], params["trunk"], landmarks, world, heat, early)


def _network() -> types.ModuleType:
    """The module of the network: with stored programs it is not imported, nor is flax."""
    from genhmr_jax.detect import lifter_net

    return lifter_net
