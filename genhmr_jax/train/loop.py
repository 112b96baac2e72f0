"""The training loop, for all stages, from one CPU to many hosts.

A stage is a `Task` (tasks.py); step.py is what a step computes, program.py where its arrays live.
The loop owns the rest: input, the order of things, watching for numbers that are none, logging,
evaluation, checkpoints, stopping and export.
"""

import contextlib
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np

from genhmr_jax.data import pipeline
from genhmr_jax.io.errors import InputError, Preempted
from genhmr_jax.io.model_folder import absolute
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program as programs
from genhmr_jax.train.checkpoint import Checkpoints
from genhmr_jax.train.distributed import is_main
from genhmr_jax.train.meters import Meter
from genhmr_jax.train.task import Task
from genhmr_jax.train.writers import Writers

log = logging.getLogger("genhmr_jax")


def train(
    task: Task, config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> dict[str, float]:
    """Trains `task` for `config.steps` steps in `workdir`, resuming if it holds a checkpoint.
    Returns the last evaluation.

    The finished model (moving-average parameters) is exported to `workdir`/model. All processes
    call this alike.

    Raises:
      FloatingPointError: the loss or a gradient is not finite; the last checkpoint, from before, is
        kept.
      InputError: `workdir` holds a run of another config; the mesh does not fit the devices or the
        batch.
      Preempted: the process was told to stop, and has saved.
    """
    with (
        contextlib.ExitStack() as stack
    ):  # whatever ends the run, saves under way are finished and logs written out
        # Mesh, program, and the state: resumed from `workdir` > started from `config.init` > fresh.
        workdir, sources = absolute(workdir), task.sources()
        mesh = meshes.make_mesh(config.mesh)
        program = programs.build(task, config, mesh)
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(workdir, config, task.frozen))
        )
        restored = checkpoints.restore(program.state)
        state = restored[0] if restored else program.init()
        first = restored[1]["next_index"] if restored else 0
        frozen, place = program.place_frozen(), meshes.Placement(mesh)
        _describe(program, first)

        # Input and output.
        rows = meshes.batch_sharding(mesh)
        batches = pipeline.Batches(
            sources, rows, first, config.steps, config.input.threads, config.input.prefetch
        )
        stack.enter_context(contextlib.closing(batches))
        writer = Writers(
            workdir,
            config.steps,
            tensorboard=config.log.tensorboard,
            wandb=config.log.wandb,
            enabled=is_main(),
        )
        stack.enter_context(contextlib.closing(writer))
        if first:
            writer.resumed(first)
        meter = Meter(program.rows, program.model_flops(), mesh.devices.size)

        def evaluate_now(done: int) -> dict[str, float]:
            with meter.paused():
                measured = task.evaluate(state["ema"], state["extra"], frozen, place)
                writer.write(done, measured)
            return measured

        # A step's metrics are looked at when the next one is under way: the device never waits for
        # the host.
        measured, late = {}, None
        for done, batch in enumerate(batches, start=first + 1):
            with jax.transfer_guard("disallow"):
                state, metrics = program.step(state, batch, frozen)
            if late is not None:
                check_finite(done - 1, late)
            late = metrics
            meter.step()
            writer.progress(done)
            if done % config.log_every == 0:
                writer.write(done, flat(metrics) | meter.rates())
            if done % config.evaluate_every == 0 or done == config.steps:
                measured = evaluate_now(done)
            if checkpoints.due(done) or done == config.steps:
                check_finite(done, metrics)  # nothing broken is ever saved
                with meter.paused():
                    checkpoints.save(done, state, batches.state())
            if checkpoints.preempted(done):
                raise Preempted(f"told to stop: saved at step {done} of {config.steps}")

        measured = measured or evaluate_now(config.steps)
        task.export(
            workdir / "model", place.host(state["ema"]), place.host(state["extra"]), measured
        )
        return measured


def evaluate(
    task: Task, config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> dict[str, float]:
    """Evaluates the newest checkpoint of `workdir` as it stands, also of an unfinished run, and
    exports it to `workdir`/model.

    Raises:
      InputError: `workdir` holds no checkpoint, or one of another config.
    """
    workdir = absolute(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise InputError(workdir, "holds no checkpoints", "give the --workdir of a run")
    task.sources()
    mesh = meshes.make_mesh(config.mesh)
    program = programs.build(task, config, mesh)
    checkpoints = Checkpoints(workdir, config, task.frozen)
    restored = checkpoints.restore(program.state)
    checkpoints.close()
    if restored is None:
        raise InputError(
            workdir,
            "holds no finished checkpoint",
            "train longer, or with a smaller --config.checkpoint_every",
        )
    state, place = restored[0], meshes.Placement(mesh)
    measured = task.evaluate(state["ema"], state["extra"], program.place_frozen(), place)
    log.info(
        "step %d  %s",
        restored[1]["next_index"],
        "  ".join(f"{k} {v:.4g}" for k, v in measured.items()),
    )
    task.export(workdir / "model", place.host(state["ema"]), place.host(state["extra"]), measured)
    return measured


def flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """A step's metrics as one level of names: the loss's terms and the rest beside the loss."""
    return (
        {k: v for k, v in metrics.items() if not isinstance(v, dict)}
        | metrics["terms"]
        | metrics["metrics"]
    )


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raises FloatingPointError that names the step and the terms if the loss or the gradient of a
    step is not finite."""
    names = ("loss", *metrics["terms"], "grad_norm")
    values = jax.device_get([flat(metrics)[name] for name in names])
    if broken := [
        f"{name} is {float(value)}"
        for name, value in zip(names, values, strict=True)
        if not np.isfinite(value)
    ]:
        raise FloatingPointError(
            f"step {step}: {', '.join(broken)}; the checkpoints before it are kept"
        )


def _describe(program: programs.Program, first: int) -> None:
    """What is about to run, in one line."""
    count = sum(x.size for x in jax.tree.leaves(program.state["params"]))
    sizes = " x ".join(f"{axis} {n}" for axis, n in program.mesh.shape.items())
    log.info(
        "%s: %.2f M parameters, %d devices (%s) of %d processes, batch %d, from step %d",
        program.config.stage,
        count / 1e6,
        program.mesh.devices.size,
        sizes,
        jax.process_count(),
        program.rows,
        first,
    )
