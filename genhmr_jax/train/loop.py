"""The training loop for all stages, from one CPU to many hosts.

A stage is a `Task` (task.py). step.py computes a step, program.py places its arrays. The loop does
the rest: input, checks for NaN and Inf, logging, evaluation, checkpoints, stopping and export.
"""

import contextlib
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from genhmr_jax.data import pipeline
from genhmr_jax.io.errors import InputError, Preempted
from genhmr_jax.io.model_folder import absolute
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program as programs
from genhmr_jax.train.checkpoint import Checkpoints
from genhmr_jax.train.distributed import is_main
from genhmr_jax.train.meters import Meter
from genhmr_jax.train.task import Task
from genhmr_jax.train.watchdog import watching
from genhmr_jax.train.writers import Writers

log = logging.getLogger("genhmr_jax")


def train(
    task: Task, config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> dict[str, float]:
    """Train `task` for `config.steps` steps in `workdir`, or resume from its checkpoint.

    The finished model (moving-average parameters) is exported to `workdir`/model. All processes
    must call this function.

    Returns:
      the last evaluation.

    Raises:
      FloatingPointError: the loss or a gradient is not finite. Earlier checkpoints are kept.
      InputError: `workdir` holds a run of another config; the mesh does not fit the devices or the
        batch.
      Preempted: the job was preempted, and its state is saved.
    """
    # The stack finishes saves and closes logs, also after an error.
    with contextlib.ExitStack() as stack:
        # 1. Mesh, program, and the state: resumed from `workdir`, else started from `config.init`,
        # else new.
        dog = stack.enter_context(watching(config.hang_after))
        workdir, sources = absolute(workdir), task.sources()
        mesh = meshes.make_mesh(config.mesh)
        program = programs.build(task, config, mesh)
        checkpoints = Checkpoints(workdir, config, task.frozen)
        stack.push(checkpoints.finish)
        dog.at("the restore")
        restored = checkpoints.restore(program.state)
        dog.at("the start of the steps")
        state = restored[0] if restored else program.init()
        first = restored[1]["next_index"] if restored else 0
        frozen, place = program.place_frozen(), meshes.Placement(mesh)
        _describe(program, first)

        # 2. Input and logs.
        rows = meshes.batch_sharding(mesh)
        batches = pipeline.Batches(
            sources, rows, first, config.steps, config.input.threads, config.input.prefetch
        )
        stack.enter_context(contextlib.closing(batches))
        to = {"tensorboard": config.log.tensorboard, "wandb": config.log.wandb}
        writer = Writers(workdir, config.steps, **to, enabled=is_main())
        stack.enter_context(contextlib.closing(writer))
        if first:
            writer.resumed(first)
        meter = Meter(program.rows, program.model_flops(), mesh.devices.size)

        def evaluate_now(done: int) -> dict[str, float]:
            dog.at(f"the evaluation after step {done}")
            with meter.paused():
                measured = task.evaluate(state["ema"], state["extra"], frozen, place)
                writer.write(done, measured)
            return measured

        # 3. Steps. The metrics of a step are checked while the next one runs, so that the device
        # does not wait for the host.
        measured, previous = {}, None
        dog.at(f"the batch of step {first + 1}")
        for done, batch in enumerate(batches, start=first + 1):
            dog.at(f"step {done}")
            with jax.transfer_guard("disallow"):
                state, metrics = program.step(state, batch, frozen)
            if previous is not None:
                check_finite(done - 1, previous)
            previous = metrics
            meter.step()
            writer.progress(done)
            if done % config.log_every == 0:
                writer.write(done, flat(metrics) | meter.rates())
            if done % config.evaluate_every == 0 or done == config.steps:
                measured = evaluate_now(done)
            if checkpoints.due(done) or done == config.steps:
                check_finite(done, metrics)  # before the save
                dog.at(f"the save of step {done}")
                with meter.paused():
                    checkpoints.save(done, state, batches.state())
            if checkpoints.preempted(done):
                raise Preempted(f"preempted: saved at step {done} of {config.steps}")
            dog.at(f"the batch of step {done + 1}")

        # 4. The model.
        measured = measured or evaluate_now(config.steps)
        dog.at("the export of the model")
        params, extra = place.host(state["ema"]), place.host(state["extra"])
        task.export(workdir / "model", params, extra, measured)
        return measured


def evaluate(
    task: Task, config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> dict[str, float]:
    """Evaluate the newest checkpoint of `workdir`, and export it to `workdir`/model.

    The run may be unfinished. Without a run in `workdir`, the model of `config.init` is evaluated
    as it is, and nothing is exported.

    Raises:
      InputError: `workdir` holds no checkpoint, or one of another config.
    """
    workdir = absolute(workdir)
    has_run = (workdir / "checkpoints").is_dir()
    if not has_run and not config.get("init"):
        remedy = "give the --workdir of a run, or a model folder as --config.init"
        raise InputError(workdir, "holds no checkpoints", remedy)
    with watching(config.hang_after) as dog:
        mesh = meshes.make_mesh(config.mesh)
        program, place = programs.build(task, config, mesh), meshes.Placement(mesh)
        dog.at("the restore")
        if has_run:
            state, done = _newest(program, Checkpoints(workdir, config, task.frozen), workdir)
        else:
            log.info("%s holds no run: the model of config.init, %s", workdir, config.init)
            state, done = program.init(), 0
        dog.at("the evaluation")
        measured = task.evaluate(state["ema"], state["extra"], program.place_frozen(), place)
        text = "  ".join(f"{name} {value:.4g}" for name, value in measured.items())
        log.info("step %d  %s", done, text)
        if has_run:
            dog.at("the export of the model")
            params, extra = place.host(state["ema"]), place.host(state["extra"])
            task.export(workdir / "model", params, extra, measured)
        return measured


def _newest(
    program: programs.Program, checkpoints: Checkpoints, workdir: epath.Path
) -> tuple[Any, int]:
    """The state of the newest checkpoint, and its step."""
    restored = checkpoints.restore(program.state)
    checkpoints.close()
    if restored is None:
        remedy = "train longer, or with a smaller --config.checkpoint_every"
        raise InputError(workdir, "holds no finished checkpoint", remedy)
    state, data = restored
    return state, data["next_index"]


def flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a step with all names on one level."""
    top = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
    return top | metrics["terms"] | metrics["metrics"]


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raise FloatingPointError, with step and terms, if loss or gradient are not finite."""
    names = ("loss", *metrics["terms"], "grad_norm")
    values = jax.device_get([flat(metrics)[name] for name in names])
    pairs = zip(names, values, strict=True)
    broken = ", ".join(f"{name} is {float(v)}" for name, v in pairs if not np.isfinite(v))
    if broken:
        raise FloatingPointError(f"step {step}: {broken}; the checkpoints before it are kept")


def _describe(program: programs.Program, first: int) -> None:
    """Log the run in one line."""
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
