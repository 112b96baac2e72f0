"""The inference step on a mesh, from shapes alone: core.solve, as `recover` runs it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.solve import SolveOptions, solve
from genhmr_jax.core.system import PhotoCamera, System
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.hand import hand_keypoint_model, load_hand
from genhmr_jax.geometry.keypoints import surface_model
from genhmr_jax.io.errors import InputError
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.task import Task

ITERATIONS = 5


@dataclasses.dataclass(frozen=True)
class Inference:
    """The inference step of a system.

    Attributes:
      step: jitted (params, body, surface, inputs, numbers) -> core.solve.Solved; `numbers` (rows,)
        are those of the people's random keys.
      shapes: of these five, with shardings.
    """

    step: Any
    shapes: tuple[Any, ...]

    def lower(self) -> jax.stages.Lowered:
        """The step, lowered for the devices of the mesh, which need not exist."""
        return self.step.lower(*self.shapes)


def build(
    task: Task,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    rows: int,
    recovers: str = "people",
) -> Inference:
    """Make the inference step for `rows` people or hands, split over fsdp x data.

    Trained parameters are bfloat16, as in an exported model, and are split by the rules of
    training. Those that training only reads are replicated on every device.

    Args:
      task: of the stage.
      config: of the stage.
      mesh: of the slice.
      rows: of a batch.
      recovers: what its system recovers, "people" or "hands" (systems/registry.py).

    Raises:
      InputError: rows that do not divide over the mesh, or a task without an inference step.
    """
    system = task.system
    if system is None:
        problem = f"a {config.stage} has no inference step"
        raise InputError("--what=infer", problem, "give --what=train")
    field = "image_batch_size" if config.get("image_batch_size") else "batch_size"
    meshes.check_batch(field, rows, mesh)
    whole, split = meshes.replicated(mesh), meshes.batch_sharding(mesh)

    def on(place: Any, tree: Any) -> Any:
        struct = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        return jax.tree.map(struct, tree)

    rules = (*((pattern, tuple(axes)) for pattern, axes in config.sharding_rules), *meshes.RULES)
    bfloat16 = lambda x, place: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=place)

    def of_part(name: str, shapes: Any) -> Any:
        if name in task.frozen:
            return on(whole, shapes)
        places = meshes.param_shardings(shapes, mesh, rules, config.mesh.fsdp_min_size)
        return jax.tree.map(bfloat16, shapes, places)

    params = {name: of_part(name, shapes) for name, shapes in system.shapes.items()}
    if recovers == "hands":
        body, nobody = load_hand(config.data.body), Hands.empty(1)
        surface = hand_keypoint_model(body)
    else:
        body, nobody = load_body(config.data.body), Detections.empty(1)
        surface = surface_model(body)
    inputs = on(split, input_shapes(system, nobody, rows))
    numbers = on(split, jax.ShapeDtypeStruct((rows,), jnp.uint32))
    shapes = (params, on(whole, body), on(whole, surface), inputs, numbers)
    return Inference(jax.jit(make_step(system, mesh), out_shardings=split), shapes)


def input_shapes(system: System, nobody: Detections | Hands, rows: int) -> Inputs:
    """The shapes of the inputs of `rows` people or hands, without silhouettes.

    Args:
      system: any.
      nobody: one empty row of what it recovers.
      rows: of a batch.
    """
    image, camera = np.zeros((64, 64, 3), np.uint8), PhotoCamera(64.0, (32.0, 32.0))
    one = system.prepare(image, nobody, camera, 1)
    one = dataclasses.replace(one, silhouette=None)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), one)


def make_step(system: System, mesh: Mesh) -> Any:
    """The function that `Inference.step` compiles."""
    options = SolveOptions(iterations=ITERATIONS, refine=system.refinement)

    def step(params: Any, body: Any, surface: Any, inputs: Inputs, numbers: jax.Array) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(numbers)
            return solve(system, params, body, surface, inputs, keys, options)

    return step
