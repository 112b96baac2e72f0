"""Time of sampling by its number of iterations T, against one encoding and T decoder passes.

    python benchmarks/sampling.py [--quick] [--out FILE.json]

Two models: the shipped one, and one of the paper's size (configs/genhmr/vit.py with a ViT-S, over
the tokenizer of configs/tokenizer/paper.py; random weights). `passes` is the time of the encoding
plus T times that of one pass with all tokens masked, each measured as a program of its own. With
feedback a pass is of all candidates of an answer, the assignments of names to the keypoints.
`sampling` is the time of one program that encodes and samples. The programs take turns, and the
median of the rounds counts. `compiled` counts the programs that XLA compiled for the second and all
further pairs of T and temperature: T and temperature are arguments of one program. The number of
hypotheses K is a shape, so that each K has a program of its own; `compiled_k` counts those of K = 2
and 3, each at two T.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genhmr_jax.core.inputs import Inputs, repeated
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.io import config_files
from genhmr_jax.recover import photo
from genhmr_jax.systems import registry
from genhmr_jax.systems.genhmr.model import Encoded, GenHmr
from genhmr_jax.systems.genhmr.names import ASSIGNMENTS
from genhmr_jax.systems.genhmr.system import GenHmrSystem

ROOT = pathlib.Path(__file__).resolve().parents[1]
ITERATIONS = (1, 2, 5, 10, 20)
PAPER_ITERATIONS = (1, 2, 5)  # a pass of this model takes about a second on 2 CPU cores
BODY = keypoint_model(load_body())
COMPILED = "/jax/core/compile/backend_compile_duration"


@functools.partial(jax.jit, static_argnames="system")
def encode(system: GenHmrSystem, params: Params, inputs: Inputs) -> Encoded:
    """Encode the inputs."""
    return system.encode(params, inputs)


@functools.partial(jax.jit, static_argnames="system")
def decoder_pass(
    system: GenHmrSystem, params: Params, tokens: jax.Array, encoded: Encoded
) -> tuple[jax.Array, ...]:
    """The logits of one decoder pass, and with feedback what the next pass gets."""
    steps = system.steps(params, BODY, encoded)
    logits, state = steps.predict(tokens, steps.start())
    if not system.spec.feedback:
        return (logits,)
    expected = jax.nn.softmax(logits) @ params["codebook"]["vectors"]
    return logits, *steps.assess(expected, state)


@functools.partial(jax.jit, static_argnames=("system", "hypotheses"))
def sampling(
    system: GenHmrSystem,
    params: Params,
    inputs: Inputs,
    keys: jax.Array,
    iterations: jax.Array,
    temperature: jax.Array,
    hypotheses: int = 1,
) -> Latents:
    """Encode and sample."""
    encoded = repeated(system.encode(params, inputs), hypotheses)
    keys = jnp.repeat(keys, hypotheses, 0)
    how = {"iterations": iterations, "temperature": temperature, "hypotheses": hypotheses}
    return system.sample(params, BODY, encoded, keys, **how)


def paper_model() -> tuple[GenHmrSystem, Params]:
    """A model of the paper's size, but with a small ViT, with random weights."""
    config = config_files.load_config(f"{ROOT}/configs/genhmr/vit.py:s", {})
    config.remat = "none"
    tokenizer = config_files.load_config(f"{ROOT}/configs/tokenizer/paper.py", {})
    system = registry.abstract_task(config, tokenizer).system
    sizes = system.spec.tokenizer

    @jax.jit
    def arrays() -> Params:
        pure = lambda module: nnx.to_pure_dict(nnx.split(module)[1])
        vectors = jax.random.normal(jax.random.key(2), (sizes.codebook_size, sizes.code_dim))
        return {
            "genhmr": pure(GenHmr(system.spec, rngs=nnx.Rngs(0))),
            "tokenizer": pure(PoseTokenizer(sizes, rngs=nnx.Rngs(1))),
            "codebook": {"vectors": vectors},
        }

    return system, arrays()


def random_inputs(system: GenHmrSystem, rows: int) -> Inputs:
    """Random keypoints of people in the middle of a photo, and random pixels."""
    rng, full = np.random.default_rng(0), lambda *x: np.tile(np.float32(x), (rows, 1))
    keypoints = np.concatenate(
        [rng.uniform(200, 600, (rows, 23, 2)), np.ones((rows, 23, 1))], -1
    ).astype(np.float32)
    images = rng.uniform(size=(rows, 256, 256, 3)).astype(np.float32)
    return Inputs(
        CropCamera(full(400, 400, 600), full(1000)[:, 0], full(400, 400)),
        keypoints=keypoints,
        keypoints3d=0.3 * rng.standard_normal((rows, 23, 3), np.float32),
        images=images if system.spec.trains_encoder else None,
    )


def seconds(programs: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """The median time of each program; in each round they run one after the other."""
    times: dict[Any, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):  # the first round warms up
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


class Compilations:
    """Counts the programs that XLA compiles in this process."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration: float, **_: Any) -> None:
        self.count += event == COMPILED


def measure(
    name: str,
    system: GenHmrSystem,
    params: Params,
    batch: int,
    rounds: int,
    iterations: Sequence[int] = ITERATIONS,
) -> list[dict[str, Any]]:
    """The rows of one model and batch size."""
    inputs = jax.device_put(random_inputs(system, batch))
    keys = jax.random.split(jax.random.key(0), batch)
    t, zero = {n: jnp.int32(n) for n in iterations}, jnp.float32(0)
    candidates = len(ASSIGNMENTS) if system.spec.feedback else 1
    encoded = repeated(encode(system, params, inputs), candidates)
    sizes = system.spec.tokenizer
    masked = jnp.full((candidates * batch, sizes.length), sizes.codebook_size, jnp.int32)
    run = lambda *how: jax.block_until_ready(sampling(system, params, inputs, keys, *how))

    # 1. What compiles.
    one, counter = jnp.float32(1), Compilations()
    run(t[1], zero)
    first = counter.count
    for steps in iterations[:3]:
        for temperature in (zero, one):
            run(t[steps], temperature)
    further = counter.count - first
    for hypotheses in (2, 3):
        for steps in (1, 2):
            run(t[steps], one, hypotheses)
    of_k = counter.count - first - further

    # 2. Times.
    programs: dict[Any, Callable[[], Any]] = {
        "encode": lambda: encode(system, params, inputs),
        "pass": lambda: decoder_pass(system, params, masked, encoded),
    }
    programs |= {n: functools.partial(run, t[n], zero) for n in iterations}
    found = seconds(programs, rounds)
    return [
        {
            "model": name,
            "batch": batch,
            "iterations": n,
            "encode_ms": 1000 * found["encode"],
            "pass_ms": 1000 * found["pass"],
            "sampling_ms": 1000 * found[n],
            "ratio": found[n] / (found["encode"] + n * found["pass"]),
            "compiled": further,
            "compiled_k": of_k,
        }
        for n in iterations
    ]


def rows(
    default_batches: Sequence[int] = (1, 8, 32),
    paper_batches: Sequence[int] = (1, 4),
    rounds: int = 15,
) -> Iterator[dict[str, Any]]:
    """Measure both models: one row for each model, batch size and T."""
    model = photo.load()
    for batch in default_batches:
        yield from measure("default", model.system, model.params, batch, rounds)
    if not paper_batches:
        return
    system, params = paper_model()
    for batch in paper_batches:
        yield from measure("paper", system, params, batch, 3, PAPER_ITERATIONS)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time sampling by its number of iterations.")
    parser.add_argument("--quick", action="store_true", help="the shipped model alone, 5 rounds")
    parser.add_argument("--out", type=pathlib.Path, help="write the rows to this JSON file")
    args = parser.parse_args()
    found = []
    for row in rows(paper_batches=(), rounds=5) if args.quick else rows():
        found.append(row)
        line = "{model:8} batch {batch:3} T {iterations:3}: encode {encode_ms:8.2f} ms, pass "
        line += "{pass_ms:8.2f} ms, sampling {sampling_ms:9.2f} ms, ratio {ratio:.3f}, "
        line += "compiled {compiled}, for K {compiled_k}"
        print(line.format(**row), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
