"""Throughput, model FLOPs utilisation and the costliest operations of the real train step, on
whatever devices are here.

    python benchmarks/train_step.py --config=configs/genhmr/vit.py:b --rows 256 [--accumulate 1]
    [--steps 10] [--out FILE.json]

Random images and labels of the real size lie on the devices, so the input is not measured. After
compilation and two steps, the median of `--steps` steps counts. The profile is of three more steps;
on a GPU it lists kernels, on a CPU XLA's operations. MFU needs a chip whose peak is known
(genhmr_jax/train/peak_flops.py).
"""

import argparse
import collections
import json
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from genhmr_jax.io import config_files
from genhmr_jax.systems import registry
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program
from genhmr_jax.train.peak_flops import peak_flops


def random_batch(shapes: dict) -> dict:
    """Arrays like `shapes` that a step can be computed of: rotations are rotations, people stand
    before the camera."""
    rng = np.random.default_rng(0)

    def fill(name: str, x: jax.ShapeDtypeStruct) -> np.ndarray:
        if name == "number":
            return np.arange(x.shape[0], dtype=np.uint32)
        if name == "rotmats":
            return np.broadcast_to(np.eye(3, dtype=np.float32), x.shape)
        if x.dtype == np.uint8:
            return rng.integers(0, 256, x.shape, dtype=np.uint8)
        constant = {
            "crop": (400.0, 400.0, 600.0),
            "image_size": (800.0, 800.0),
            "focal": 1000.0,
            "weak_camera": (0.9, 0.0, 0.0),
        }
        if name in constant:
            return np.broadcast_to(np.asarray(constant[name], np.float32), x.shape)
        scale = 800.0 if name in ("keypoints", "points2d") else 0.3
        return (scale * rng.uniform(0, 1, x.shape)).astype(x.dtype)

    fill_all = lambda rows: {
        name: jax.tree.map(lambda x, n=name: fill(n, x), value) for name, value in rows.items()
    }
    return {part: fill_all(rows) for part, rows in shapes.items()}


def top_costs(folder: str, count: int) -> list[tuple[str, float]]:
    """The operations of a trace that take most of the devices' time: (name, share)."""
    (file,) = pathlib.Path(folder).glob("**/*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(file))
    planes = [p for p in data.planes if "/device:" in p.name] or [
        p for p in data.planes if "CPU" in p.name
    ]
    seconds: collections.Counter[str] = collections.Counter()
    for plane in planes:
        for line in plane.lines:
            if (
                "/device:" in plane.name
                and "Stream" not in line.name
                and "XLA Ops" not in line.name
            ):
                continue
            for event in line.events:
                if "::" not in event.name and "$" not in event.name:  # the runtime's own frames
                    seconds[event.name.split(".")[0]] += event.duration_ns
    total = sum(seconds.values()) or 1.0
    return [(name, value / total) for name, value in seconds.most_common(count)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the train step.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--tokenizer", default="configs/tokenizer/paper.py")
    parser.add_argument("--rows", type=int, default=256, help="rows of a batch")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    config, tokenizer = (
        config_files.load_config(args.config, {}),
        config_files.load_config(args.tokenizer, {}),
    )
    field = "image_batch_size" if config.get("image_batch_size") else "batch_size"
    config[field], config.accumulate = args.rows, args.accumulate
    if field == "image_batch_size":
        config.data.images = "random"  # nothing is read
    task = registry.abstract_task(config, tokenizer)
    if config.stage == "genhmr":  # an untrained tokenizer costs what a trained one costs
        rng = np.random.default_rng(1)
        task.frozen = jax.tree.map(
            lambda x: (
                (0.05 * rng.normal(size=x.shape)).astype(x.dtype)
                if isinstance(x, jax.ShapeDtypeStruct)
                else x
            ),
            task.frozen,
        )
    made = program.build(task, config, meshes.make_mesh(config.mesh))
    state, frozen = made.init(), made.place_frozen()
    batch = meshes.place(random_batch(task.batch_shapes()), meshes.batch_sharding(made.mesh))
    started = time.monotonic()
    for _ in range(3):
        state, metrics = made.step(state, batch, frozen)
        jax.block_until_ready(metrics)
    warm = time.monotonic() - started
    times = []
    for _ in range(args.steps):
        start = time.monotonic()
        state, metrics = made.step(state, batch, frozen)
        jax.block_until_ready(metrics)
        times.append(time.monotonic() - start)
    step, flops, device = statistics.median(times), made.model_flops(), made.mesh.devices.flat[0]
    peak = peak_flops(device.device_kind)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(3):
                state, metrics = made.step(state, batch, frozen)
            jax.block_until_ready(metrics)
        costs = top_costs(folder, 5)
    found = {
        "config": args.config,
        "device": f"{made.mesh.size} x {device.device_kind}",
        "rows": args.rows,
        "warm_up_s": warm,
        "step_ms": 1000 * step,
        "rows_per_s": args.rows / step,
        "model_tflops_per_step": flops / 1e12,
        "tflops_per_s_per_device": flops / step / made.mesh.size / 1e12,
        "mfu": flops / step / made.mesh.size / peak if peak else None,
        "loss": float(metrics["loss"]),
        "top_costs": costs,
    }
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
