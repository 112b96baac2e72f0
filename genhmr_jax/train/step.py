"""A training step as a pure function: prepare, loss and gradient, AdamW, moving average.

state = {"step", "params", "ema", "extra", "opt_state"}, plain dicts of arrays.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from genhmr_jax.train import lora
from genhmr_jax.train.optim import stop_frozen_gradients
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Task

State = dict[str, Any]


def init_state(task: Task, optimizer: optax.GradientTransformation, seed: int) -> State:
    """Make the state before the first step. Pure, for `jax.jit` with the arrays' shardings."""
    params, extra = task.init(stream(seed, "parameters"))
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "ema": params,
        "extra": extra,
        "opt_state": optimizer.init(params),
    }


def value_and_grad(task: Task, config: ml_collections.ConfigDict) -> Callable:
    """Make the function (params, extra, frozen, sample) -> ((loss, parts), gradient).

    It computes in `config.precision`. Parameters and gradient are float32.
    """
    compute = jnp.dtype(config.precision)

    def loss(params: Any, extra: Any, frozen: Any, sample: Any) -> tuple[jax.Array, dict[str, Any]]:
        params = lora.merge(stop_frozen_gradients(params, config.optim), config.lora)
        # Cast while still split over fsdp, so that half the bytes are gathered.
        params = jax.tree.map(lambda p: p.astype(compute) if p.dtype == jnp.float32 else p, params)
        return task.loss(params, extra, frozen, sample)

    return jax.value_and_grad(loss, has_aux=True)


def in_micro_batches(grad: Callable, count: int, constrain: Callable[[Any], Any]) -> Callable:
    """Split the batch of `grad` into `count` micro-batches, which are computed in sequence.

    The result is the same, because the loss of a batch is a sum over its rows. Micro-batch i has
    the rows i, i + count, ..., so that each device computes its own rows.
    """

    def run(
        params: Any, extra: Any, frozen: Any, sample: Any
    ) -> tuple[tuple[jax.Array, dict[str, Any]], Any]:
        split = lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1)
        parts = jax.tree.map(split, sample)

        def one(total: Any, part: Any) -> tuple[Any, Any]:
            (loss, found), grads = grad(params, extra, frozen, constrain(part))
            carry = found.pop("carry")
            return jax.tree.map(jnp.add, total, ((loss, found), grads)), carry

        shapes = jax.eval_shape(grad, params, extra, frozen, jax.tree.map(lambda x: x[0], parts))
        shapes[0][1].pop("carry")
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        ((loss, found), grads), carry = jax.lax.scan(one, zero, parts)
        carry = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), carry)
        return (loss, found | {"carry": carry}), grads

    return run


def make_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    constrain: Callable[[Any], Any] = lambda x: x,
) -> Callable[[State, Any, Any], tuple[State, dict]]:
    """Make the training step (state, batch, frozen) -> (state, metrics), for `jax.jit`.

    Args:
      constrain: applies the sharding of rows to a tree of samples.
    """
    grad = value_and_grad(task, config)
    if config.accumulate > 1:
        grad = in_micro_batches(grad, config.accumulate, constrain)

    def step(state: State, batch: Any, frozen: Any) -> tuple[State, dict]:
        key = jax.random.fold_in(stream(config.seed, "step"), state["step"])
        sample = constrain(task.prepare(frozen, batch))
        (loss, found), grads = grad(state["params"], state["extra"], frozen, sample)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
            params = optax.apply_updates(state["params"], updates)
            # In early steps the average follows the parameters closely: (1 + n) / (10 + n), as in
            # TensorFlow's ExponentialMovingAverage.
            n = state["step"]
            decay = jnp.minimum(config.optim.ema_decay, (1.0 + n) / (10.0 + n))
            ema = optax.incremental_update(params, state["ema"], 1.0 - decay)
        extra, more = task.next_extra(state["extra"], found["carry"], key)
        state = {
            "step": state["step"] + 1,
            "params": params,
            "ema": ema,
            "extra": extra,
            "opt_state": opt_state,
        }
        return state, {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "terms": found["terms"],
            "metrics": found["metrics"] | more,
        }

    return step
