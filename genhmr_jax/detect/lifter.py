"""Use of the shipped lifter (lifter_net.py) on the outputs of BlazePose."""

import functools
import importlib.resources
import pathlib
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.detect.blazepose import LANDMARKS, SIZE, Landmarks, Region
from genhmr_jax.detect.detections import CHANNELS, GRID
from genhmr_jax.detect.lifter_net import Lifter, LifterSpec
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.io.program_store import remembered_shapes, stored

FOLDER = pathlib.Path(str(importlib.resources.files("genhmr_jax") / "assets" / "lifter"))
"""A model folder of the stage "lifter" (configs/lifter/rendered_people.py)."""


def keypoints(
    found: Landmarks, region: Region
) -> tuple[Float[np.ndarray, "23 2"], Float[np.ndarray, "23 3"]]:
    """Estimate the DETECTED keypoints of our body.

    For a network on which the lifter was not trained, they are BlazePose's own landmarks.

    Returns:
      px of the image; metres from mid-hip: x right, y down, z away from the camera.
    """
    evidence = found.evidence
    if not evidence.inner.size:
        return found.named(DETECTED)[:, :2], found.named_world(DETECTED)
    arrays = (evidence.landmarks, evidence.world, evidence.heat, evidence.inner)
    inputs = [np.asarray(array, np.float32)[None] for array in arrays]
    lifted = _lift(_params(), *inputs, _spec())
    points2d, points3d = (np.asarray(points[0], np.float64) for points in lifted)
    points3d = np.concatenate([points3d[:, :2] @ region.axes().T, points3d[:, 2:]], -1)
    return region.to_image((points2d + 0.5) * SIZE), points3d


def preload() -> None:
    """Read the stored program."""
    shapes = (LANDMARKS, 5), (LANDMARKS, 3), (LANDMARKS, 6), (GRID, GRID, CHANNELS)
    _lift.preload(_params(), *(np.zeros((1, *shape), np.float32) for shape in shapes), _spec())


@functools.cache
def _spec() -> LifterSpec:
    """The sizes of the shipped lifter."""
    return LifterSpec(**load_meta(FOLDER)["spec"])


@functools.cache
def _graph(spec: LifterSpec) -> tuple[nnx.GraphDef, Any]:
    """The graph of the network, and the shapes of its parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Lifter(spec, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


@functools.cache
def _params() -> Any:
    """The shipped parameters."""
    shapes = remembered_shapes("lifter", _spec(), lambda: _graph(_spec())[1])
    return load_params(FOLDER, {"lifter": shapes})["lifter"]


@stored("spec")
def _lift(
    params: Any,
    landmarks: Float[Array, "B 39 5"],
    world: Float[Array, "B 39 3"],
    heat: Float[Array, "B 39 6"],
    inner: Float[Array, "B 8 8 288"],
    spec: LifterSpec,
) -> tuple[Array, Array]:
    """The 2D and 3D keypoints of the network."""
    return nnx.merge(_graph(spec)[0], params)(landmarks, world, heat, inner)
