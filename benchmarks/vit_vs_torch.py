"""ViT backbones here against the same network in PyTorch (eager and torch.compile): inference and
train step, on one device, in one run.

    python -m benchmarks.vit_vs_torch [--size b l h] [--batch 64] [--what inference train] [--steps
    10] [--repeats 5] [--out FILE.json]

All sides have the same random weights, and their outputs are compared first. On a GPU they compute
in bfloat16 (here parameters are cast as in training, there by torch.autocast), on a CPU in float32.
Inference is a batch of random images -> tokens; a train step is the mean square of the tokens, its
gradient and AdamW in float32. The sides take turns; the median of `--repeats` times of `--steps`
calls counts. `ratio` is their time over ours: above 1, ours is faster. MFU is of the model's
products, for devices whose peak is known.

Needs torch beside genhmr_jax: pip install ".[bench]".
"""

import argparse
import functools
import json
import os
import pathlib
from collections.abc import Callable

os.environ.setdefault(
    "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
)  # PyTorch needs memory of the same device

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from benchmarks import machine
from benchmarks.settings import Settings
from benchmarks.table import Row, not_available
from benchmarks.timing import take_turns
from benchmarks.vit_torch import from_jax
from genhmr_jax.nets.vit import Vit, VitSpec
from genhmr_jax.train.flops import function_flops
from genhmr_jax.train.peak_flops import peak_flops

LEARNING_RATE, DECAY = 1e-4, 0.01
Calls = Callable[[int], None]  # so many calls in a row, all of them finished


class Ours:
    """The network of genhmr_jax, jitted."""

    def __init__(self, spec: VitSpec, images: np.ndarray, dtype: jnp.dtype):
        graph, state = nnx.split(Vit(spec, rngs=nnx.Rngs(0)))
        self.params, self.images = nnx.to_pure_dict(state), jnp.asarray(images)
        self._optimiser = optax.adamw(LEARNING_RATE, weight_decay=DECAY)

        def forward(params: dict, images: jax.Array) -> jax.Array:
            (map_,) = nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype), params))(images)
            return map_.reshape(map_.shape[0], -1, map_.shape[-1])

        def loss(params: dict, images: jax.Array) -> jax.Array:
            return jnp.mean(forward(params, images).astype(jnp.float32) ** 2)

        def train(
            params: dict, moments: optax.OptState, images: jax.Array
        ) -> tuple[dict, optax.OptState]:
            updates, moments = self._optimiser.update(
                jax.grad(loss)(params, images), moments, params
            )
            return optax.apply_updates(params, updates), moments

        self.flops = {"inference": function_flops(forward, self.params, self.images)}
        self.flops["train"] = function_flops(jax.grad(loss), self.params, self.images)
        self._forward, self._train = jax.jit(forward), jax.jit(train, donate_argnums=(0, 1))

    def tokens(self) -> np.ndarray:
        """What it makes of the images."""
        return np.asarray(self._forward(self.params, self.images), np.float32)

    def calls(self, what: str) -> Calls:
        """Of "inference" or "train"."""
        if what == "inference":
            ready = jax.tree.map(jnp.copy, self.params)
            return lambda count: jax.block_until_ready(
                [self._forward(ready, self.images) for _ in range(count)][-1]
            )
        state = [jax.tree.map(jnp.copy, self.params), self._optimiser.init(self.params)]

        def run(count: int) -> None:
            for _ in range(count):
                state[:] = self._train(*state, self.images)
            jax.block_until_ready(state)

        return run


class Torch:
    """The network in PyTorch, eager or compiled."""

    def __init__(
        self, spec: VitSpec, params: dict, images: np.ndarray, low_precision: bool, compiled: bool
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device)
        self.low_precision, self.model = low_precision, from_jax(spec, params).to(self.device)
        self.run = torch.compile(self.model) if compiled else self.model

    def _forward(self) -> torch.Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low_precision):
            return self.run(self.images)

    def _finish(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def tokens(self) -> np.ndarray:
        """What it makes of the images."""
        with torch.inference_mode():
            return self._forward().float().cpu().numpy()

    def calls(self, what: str) -> Calls:
        """Of "inference" or "train"."""
        optimiser = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, weight_decay=DECAY, fused=True
        )

        def infer(count: int) -> None:
            with torch.inference_mode():
                for _ in range(count):
                    self._forward()
            self._finish()

        def train(count: int) -> None:
            for _ in range(count):
                optimiser.zero_grad(set_to_none=True)
                (self._forward().float() ** 2).mean().backward()
                optimiser.step()
            self._finish()

        return {"inference": infer, "train": train}[what]


def compare(
    size: str, batch: int, what: list[str], steps: int, repeats: int, compiled: bool
) -> dict:
    """Milliseconds of each side, images a second, ratios and MFU, for one size."""
    spec, low_precision = VitSpec.named(size), jax.default_backend() == "gpu"
    images = np.random.default_rng(0).normal(size=(batch, *spec.image, 3)).astype(np.float32)
    ours = Ours(spec, images, jnp.bfloat16 if low_precision else jnp.float32)
    arrays = jax.tree.map(np.asarray, ours.params)
    sides = {"jax": ours, "torch_eager": Torch(spec, arrays, images, low_precision, False)}
    if compiled:
        sides["torch_compile"] = Torch(spec, arrays, images, low_precision, True)
    tokens = {name: side.tokens() for name, side in sides.items()}
    found: dict = {
        "batch": batch,
        "dtype": "bfloat16" if low_precision else "float32",
        "relative_difference": {},
    }
    for name in tokens:
        if name != "jax":
            found["relative_difference"][name] = float(
                np.linalg.norm(tokens[name] - tokens["jax"]) / np.linalg.norm(tokens["jax"])
            )
    peak = peak_flops(jax.devices()[0].device_kind)
    for kind in what:
        calls = {name: functools.partial(side.calls(kind), steps) for name, side in sides.items()}
        middle = {name: s / steps for name, s in take_turns(calls, repeats, 1).items()}
        found[kind] = {
            name: {
                "ms": 1000 * seconds,
                "images_per_s": batch / seconds,
                "ratio": seconds / middle["jax"],
                "tflop": ours.flops[kind] / 1e12,
                "mfu": ours.flops[kind] / seconds / peak if peak else None,
            }
            for name, seconds in middle.items()
        }
    return found


def rows(settings: Settings) -> list[Row]:
    """ViT-S on a CPU, ViT-B and ViT-H on a GPU, against eager PyTorch."""
    if torch.cuda.is_available() != (jax.default_backend() == "gpu"):
        return [not_available("ViT", "only one of JAX and PyTorch can use the GPU")]
    gpu, found = jax.default_backend() == "gpu", []
    for size in ("b", "h") if gpu else ("s",):
        batch, steps = (64, 10) if gpu else (2, 1)
        measured = compare(size, batch, ["inference", "train"], steps, settings.rounds, False)
        for kind in ("inference", "train"):
            ours, peer = (measured[kind][name] for name in ("jax", "torch_eager"))
            found.append(
                Row(
                    f"ViT-{size.upper()} {kind}, batch {batch}",
                    ours["images_per_s"],
                    "images/s",
                    "PyTorch, eager",
                    peer["images_per_s"],
                    None if gpu else batch / machine.floor(1e12 * ours["tflop"]),
                    "" if gpu else "matrix products of the traced program",
                    f"MFU {100 * ours['mfu']:.0f} %" if ours["mfu"] else "",
                )
            )
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Compare the ViT with the same network in PyTorch."
    )
    parser.add_argument("--size", nargs="+", default=["b", "l", "h"], choices=["s", "b", "l", "h"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--what", nargs="+", default=["inference", "train"], choices=["inference", "train"]
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    if torch.cuda.is_available() != (jax.default_backend() == "gpu"):
        parser.error(
            "only one of JAX and PyTorch can use the GPU: install both with GPU support, or hide "
            "the GPU with CUDA_VISIBLE_DEVICES="
        )
    torch.set_float32_matmul_precision("high")
    found: dict = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch": torch.__version__,
    }
    for size in args.size:
        found[f"vit_{size}"] = compare(
            size, args.batch, args.what, args.steps, args.repeats, not args.no_compile
        )
        print(json.dumps({f"vit_{size}": found[f"vit_{size}"]}, indent=1), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
