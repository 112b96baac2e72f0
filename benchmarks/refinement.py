"""Time and final loss of the 2D refinement, against 100 steps of Adam on the same objective.

    python -m benchmarks.refinement [--rounds 5] [--out FILE.json]

The rows are the person of the sample photo, with the mask, and noise of 0.01 crop sides on the
keypoints of every row but the first. Adam has one learning rate for embeddings (0.05) and one for
shape and camera (0.02), and its first 15 steps change only the camera. Both programs return the
best iterate. They take turns, and the median of the rounds counts.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import smpl_jax

from genhmr_jax.core.fit_objective import Objective, Pose
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.refinement import Refined, RefineSpec, refine
from genhmr_jax.core.system import Params, System
from genhmr_jax.detect.detector import detect
from genhmr_jax.geometry.keypoints import surface_model
from genhmr_jax.io import compilation_cache
from genhmr_jax.io.images import read_image
from genhmr_jax.recover import photo

SAMPLE = pathlib.Path(photo.__file__).parents[1] / "assets" / "sample" / "person.jpg"
ADAM_STEPS, ADAM_CAMERA_STEPS = 100, 15
RATES = {"embeddings": 0.05, "betas": 0.02, "camera": 0.02}
NOISE = 0.01  # crop sides
Start = tuple[jax.Array, jax.Array, jax.Array]
"""Embeddings, betas and weak camera."""


@functools.partial(jax.jit, static_argnames="system")
def sampled(system: System, params: Params, body: smpl_jax.SmplModel, inputs: Inputs) -> Start:
    """The start: one sample of each row."""
    encoded = system.encode(params, dataclasses.replace(inputs, silhouette=None))
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    how = {"iterations": 1, "temperature": 0.0}
    latents = system.sample(params, body, encoded, keys, **how)
    return latents.embeddings, latents.betas, latents.weak_camera


FIT = RefineSpec(damping=2e-5)
"""Settings for the loss of Adam. The default has more damping, and is as fast."""


@functools.partial(jax.jit, static_argnames="system")
def ours(
    system: System, params: Params, body: smpl_jax.SmplModel, inputs: Inputs, start: Start
) -> Refined:
    """The refinement, with FIT."""
    pose = system.pose(params, inputs.view)
    what = (inputs.keypoints, inputs.view, inputs.silhouette, FIT, system.pose_parts)
    return refine(pose, body, *start, *what)


@functools.partial(jax.jit, static_argnames="system")
def adam(
    system: System, params: Params, body: smpl_jax.SmplModel, inputs: Inputs, start: Start
) -> jax.Array:
    """Steps of Adam. Returns the loss of the best iterate of each row."""
    embeddings, betas, weak = start
    decode = system.pose(params, inputs.view)
    pose = lambda x: Pose(decode(x["embeddings"]), x["betas"], x["camera"])
    camera = jnp.concatenate([jnp.log(weak[:, :1]), weak[:, 1:]], -1)
    x = {"embeddings": embeddings, "betas": betas, "camera": camera}
    what = (inputs.keypoints, inputs.view, inputs.silhouette, FIT)
    objective = Objective(body, pose(x), *what)
    losses = lambda x: objective.losses(pose(x))[0]
    optimizer = optax.scale_by_adam(b1=0.9, b2=0.99)

    def step(carry: tuple, t: jax.Array) -> tuple[tuple, None]:
        x, state, best, best_loss = carry
        loss, pull = jax.vjp(losses, x)
        better = loss < best_loss
        keep = lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o)
        best = jax.tree.map(keep, x, best)
        direction, state = optimizer.update(pull(jnp.ones_like(loss))[0], state)
        moves = {name: (t >= ADAM_CAMERA_STEPS) | (name == "camera") for name in RATES}
        x = {name: x[name] - RATES[name] * moves[name] * direction[name] for name in x}
        return (x, state, best, jnp.minimum(loss, best_loss)), None

    carry = (x, optimizer.init(x), x, losses(x))
    (x, _, _, best_loss), _ = jax.lax.scan(step, carry, jnp.arange(ADAM_STEPS))
    return jnp.minimum(losses(x), best_loss)


def inputs_of(recoverer: photo.Recoverer, rows: int) -> Inputs:
    """The inputs of the rows."""
    image = read_image(SAMPLE)
    people = recoverer.recoverable(detect(image, None, None, max_people=1))
    camera = photo.RecoverOptions().camera(image.shape[1], image.shape[0])
    inputs = recoverer.system.prepare(image, people, camera, 1)
    inputs = jax.tree.map(lambda x: np.repeat(x, rows, 0), inputs)
    noise = np.random.default_rng(0).normal(0, NOISE, (rows, inputs.keypoints.shape[1], 2))
    noise = noise * inputs.view.crop[:, None, 2:]
    noise[0] = 0.0
    keypoints = inputs.keypoints + np.pad(noise, ((0, 0), (0, 0), (0, 1))).astype(np.float32)
    return dataclasses.replace(inputs, keypoints=keypoints)


def seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median time of each call; in each round they run one after the other."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first round compiles
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


def rows(batches: Sequence[int] = (1, 32), rounds: int = 5) -> list[dict[str, float]]:
    """Measure.

    Returns:
      for each batch size "batch", "seconds", "adam_seconds", their "ratio", and the mean losses
      "start_loss", "loss" and "adam_loss".
    """
    recoverer, found = photo.load(), []
    body = surface_model(recoverer.body)
    for batch in batches:
        inputs = jax.tree.map(jnp.asarray, inputs_of(recoverer, batch))
        start = sampled(recoverer.system, recoverer.params, body, inputs)
        what = (recoverer.system, recoverer.params, body, inputs, start)
        calls = {name: functools.partial(f, *what) for name, f in (("ours", ours), ("adam", adam))}
        times, loss = seconds(calls, rounds), np.asarray(ours(*what).loss)
        found.append(
            {
                "batch": batch,
                "seconds": times["ours"],
                "adam_seconds": times["adam"],
                "ratio": times["adam"] / times["ours"],
                "start_loss": float(loss[0].mean()),
                "loss": float(loss[-1].mean()),
                "adam_loss": float(adam(*what).mean()),
            }
        )
    return found


def main() -> None:
    """Print the rows, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    compilation_cache.enable()
    found = rows(rounds=args.rounds)
    print("batch  ours s  Adam s  ratio  loss: start  ours  Adam, 1e-3")
    for row in found:
        times = f"{row['seconds']:.4f}  {row['adam_seconds']:.4f}  {row['ratio']:.1f}"
        losses = (1000 * row[name] for name in ("start_loss", "loss", "adam_loss"))
        print(f"{row['batch']:5d}  {times}  " + "  ".join(f"{loss:.3f}" for loss in losses))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
