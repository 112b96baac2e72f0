"""The training loop, for both stages.

A stage is a `Task`: it makes its variables, states its loss, names its batches and evaluates itself. The loop owns the rest: the jitted
step (loss, gradient, AdamW, moving average of the parameters), logging, evaluation, checkpoints, resuming and export.
"""

import hashlib
import json
import logging
import pathlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from genhmr_jax.errors import InputError
from genhmr_jax.train.checkpoint import Checkpoints
from genhmr_jax.train.optim import make_optimizer

log = logging.getLogger("genhmr_jax")
State = dict[str, Any]


class Task(Protocol):
    """What a training stage is to the loop."""

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """(params, extra): trained arrays, and state that the loss itself carries on (a codebook), both pytrees of dicts."""

    def loss(self, params: Any, extra: Any, batch: dict, key: jax.Array) -> tuple[jax.Array, tuple[dict, Any]]:
        """-> loss, (metrics, next extra). Pure; traced once."""

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step: a pure function of the step, so that a resumed run sees what the unbroken one saw."""

    def evaluate(self, params: Any, extra: Any) -> dict[str, float]:
        """Measures on the validation split."""

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        """Writes the model for use."""


def make_step(
    task: Task, optimizer: optax.GradientTransformation, ema_decay: float
) -> Callable[[State, dict, jax.Array], tuple[State, dict]]:
    """The jitted training step (state, batch, base key) -> (state, metrics); `state` is donated."""

    def step(state: State, batch: dict, base_key: jax.Array) -> tuple[State, dict]:
        key = jax.random.fold_in(base_key, state["step"])
        gradient = jax.value_and_grad(task.loss, has_aux=True)
        (loss, (metrics, extra)), grads = gradient(state["params"], state["extra"], batch, key)
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        # Early on the average follows the parameters closely: (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
        decay = jnp.minimum(ema_decay, (1.0 + state["step"]) / (10.0 + state["step"]))
        ema = optax.incremental_update(params, state["ema"], 1.0 - decay)
        state = {"step": state["step"] + 1, "params": params, "ema": ema, "extra": extra, "opt_state": opt_state}
        return state, {"loss": loss, "grad_norm": optax.global_norm(grads)} | metrics

    return jax.jit(step, donate_argnums=0)


def fingerprint(config: ml_collections.ConfigDict) -> dict[str, str]:
    """A hash for each part of the config that a resumed run must share with the first one."""
    parts = {name: config[name] for name in ("stage", "seed", "batch_size", "model", "data", "loss", "optim", "steps") if name in config}
    plain = {k: v.to_dict() if isinstance(v, ml_collections.ConfigDict) else v for k, v in parts.items()}
    return {k: hashlib.sha256(json.dumps(v, sort_keys=True, default=str).encode()).hexdigest()[:16] for k, v in plain.items()}


class JsonLines:
    """One JSON object a line, in `workdir`/metrics.jsonl, and the same to the log."""

    def __init__(self, workdir: pathlib.Path):
        self.file = open(workdir / "metrics.jsonl", "a", buffering=1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Logs scalars."""
        values = {k: round(float(v), 6) for k, v in values.items()}
        self.file.write(json.dumps({"step": step} | values) + "\n")
        log.info("step %d  %s", step, "  ".join(f"{k} {v:.4g}" for k, v in values.items()))


def restore_or_init(
    task: Task, optimizer: optax.GradientTransformation, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> tuple[State, dict, Checkpoints]:
    """The newest checkpoint's state, or a fresh one; with what its checkpoints say of the config, and the checkpoints."""
    params, extra = task.init(jax.random.key(config.seed))
    # The average gets buffers of its own: the step donates its input, and one buffer cannot be donated twice.
    state = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "ema": jax.tree.map(jnp.copy, params),
        "extra": extra,
        "opt_state": optimizer.init(params),
    }
    meta = {"fingerprint": fingerprint(config), "config": json.loads(config.to_json_best_effort())}
    checkpoints = Checkpoints(workdir, every=config.checkpoint_every)
    if checkpoints.latest() is not None:
        state = checkpoints.restore(state, meta)
    return state, meta, checkpoints


def evaluate(task: Task, config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Evaluates the newest checkpoint of `workdir` as it stands, also of an unfinished run, and exports it to `workdir`/model.

    Raises:
      InputError: `workdir` holds no checkpoint, or one of another config.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise InputError(workdir, "holds no checkpoints", "give the --workdir of a run")
    state, _, checkpoints = restore_or_init(task, make_optimizer(config.optim, config.steps), config, workdir)
    checkpoints.close()
    measured = task.evaluate(state["ema"], state["extra"])
    log.info("step %d  %s", int(state["step"]), "  ".join(f"{k} {v:.4g}" for k, v in measured.items()))
    task.export(workdir / "model", state["ema"], state["extra"], measured)
    return measured


def train(task: Task, config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Trains `task` for `config.steps` steps in `workdir`, resuming if it holds a checkpoint. Returns the last evaluation.

    The finished model (moving-average parameters) is exported to `workdir`/model.

    Raises:
      FloatingPointError: the loss is not finite; the last checkpoint is kept.
      InputError: `workdir` holds a run of another config.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer(config.optim, config.steps)
    state, meta, checkpoints = restore_or_init(task, optimizer, config, workdir)
    log.info(
        "%s: %.2f M parameters, from step %d", config.stage, sum(x.size for x in jax.tree.leaves(state["params"])) / 1e6, int(state["step"])
    )
    step_fn = make_step(task, optimizer, config.optim.ema_decay)
    base_key = jax.random.key(config.seed + 1)
    writer, measured, previous = JsonLines(workdir), {}, None
    first = int(state["step"])
    started, seen = time.monotonic(), 0
    for step in range(first, config.steps):
        state, metrics = step_fn(state, task.batch(step), base_key)
        seen += config.batch_size
        done = step + 1
        if previous is not None and not np.isfinite(previous["loss"]):  # one step late: the device never waits for the host
            raise FloatingPointError(
                f"loss is {float(previous['loss'])} at step {step - 1}: { ({k: float(v) for k, v in previous.items()}) }"
            )
        previous = metrics
        if done % config.log_every == 0:
            rate = seen / (time.monotonic() - started)
            writer.write(done, metrics | {"samples_per_s": rate, "hours_left": (config.steps - done) * config.batch_size / rate / 3600})
            started, seen = time.monotonic(), 0
        if done % config.evaluate_every == 0 or done == config.steps:
            measured = task.evaluate(state["ema"], state["extra"])
            writer.write(done, measured)
            started, seen = time.monotonic(), 0
        checkpoints.save(done, state, meta, force=done == config.steps and checkpoints.latest() != done)
    if not measured:
        measured = task.evaluate(state["ema"], state["extra"])
    checkpoints.close()
    task.export(workdir / "model", state["ema"], state["extra"], measured)
    return measured
