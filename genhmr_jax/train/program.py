"""A task on a mesh: the jitted step, and the shape and sharding of every array.

Training runs the step. `genhmr aot` compiles it for absent chips.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh

from genhmr_jax.nets.rows import by_rows
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import step as steps
from genhmr_jax.train.flops import function_flops
from genhmr_jax.train.once import jit_once
from genhmr_jax.train.optim import make_optimizer
from genhmr_jax.train.task import Task


@dataclasses.dataclass(frozen=True)
class Program:
    """The program of a task on a mesh.

    Attributes:
      step: jitted (state, batch, frozen) -> (state, metrics); it donates the state.
      state, batch, frozen: its arguments as ShapeDtypeStructs with shardings.
    """

    task: Task
    config: ml_collections.ConfigDict
    mesh: Mesh
    optimizer: optax.GradientTransformation
    step: Any
    state: Any
    batch: Any
    frozen: Any

    @property
    def rows(self) -> int:
        """Number of rows of a batch, all parts together."""
        return sum(jax.tree.leaves(part)[0].shape[0] for part in self.batch.values())

    def lower(self) -> jax.stages.Lowered:
        """Lower the step for the devices of the mesh, which need not exist."""
        return self.step.lower(self.state, self.batch, self.frozen)

    def init(self) -> Any:
        """Make the state before the first step, each array on its devices."""
        make = functools.partial(steps.init_state, self.task, self.optimizer, self.config.seed)
        state = jit_once(make, out_shardings=shardings(self.state))()
        params = self.task.warm_start(state["params"])
        # The step donates its input, and a buffer cannot be donated twice: the average is a copy.
        ema = jax.jit(lambda p: jax.tree.map(jnp.copy, p))(params)
        return state | {"params": params, "ema": ema}

    def place_frozen(self) -> Any:
        """Put the task's frozen arrays on the mesh."""
        return meshes.place(self.task.frozen, meshes.replicated(self.mesh))

    def model_flops(self) -> int:
        """Count the matrix FLOPs of loss and gradient of a batch, without rematerialisation."""
        task = self.task.without_remat()
        plain = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        sample = jax.eval_shape(task.prepare, plain(self.frozen), plain(self.batch))
        grad = steps.value_and_grad(task, self.config)
        state = plain(self.state)
        return function_flops(grad, state["params"], state["extra"], plain(self.frozen), sample)


def shardings(shapes: Any) -> Any:
    """The shardings that a tree of shapes carries."""
    return jax.tree.map(lambda x: x.sharding, shapes)


def build(task: Task, config: ml_collections.ConfigDict, mesh: Mesh) -> Program:
    """Make the program of a task on a mesh.

    Raises:
      InputError: a batch that does not divide over the mesh and the micro-batches.
    """
    # 1. The shape and the sharding of every array.
    for name, part in task.batch_shapes().items():
        field = "image_batch_size" if name == "images" else "batch_size"
        meshes.check_batch(field, jax.tree.leaves(part)[0].shape[0], mesh, config.accumulate)
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    optimizer = make_optimizer(config.optim, config.steps, params)
    rules = (*((pattern, tuple(axes)) for pattern, axes in config.sharding_rules), *meshes.RULES)
    placed = meshes.param_shardings(params, mesh, rules, config.mesh.fsdp_min_size)
    state = jax.eval_shape(functools.partial(steps.init_state, task, optimizer, config.seed))
    rows, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    on = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    state = jax.tree.map(on, state, meshes.follow(state, params, placed))
    batch = jax.tree.map(lambda x: on(x, rows), task.batch_shapes())
    frozen = jax.tree.map(lambda x: on(x, whole), task.frozen)

    # 2. The jitted step.
    run = steps.make_step(task, optimizer, config, by_rows)

    def on_mesh(state: Any, batch: Any, frozen: Any) -> tuple[Any, dict]:
        # The mesh that `by_rows` uses, here and in the models.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return run(state, batch, frozen)

    step = jax.jit(
        on_mesh,
        in_shardings=(shardings(state), rows, whole),
        out_shardings=(shardings(state), whole),
        donate_argnums=0,
    )
    return Program(task, config, mesh, optimizer, step, state, batch, frozen)
