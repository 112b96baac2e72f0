"""Throughput, model FLOPs utilisation and the costliest operations of the real train step, on
whatever devices are here.

    python -m benchmarks.train_step --config=configs/genhmr/vit.py:b --rows 256 [--accumulate 1]
    [--steps 10] [--out FILE.json]

Random images and labels of the real size lie on the devices, so the input is not measured. After
compilation and three steps, the median of `--steps` steps counts. The profile is of three more; on
a GPU it lists kernels, on a CPU XLA's operations. MFU needs a chip whose peak is known
(genhmr_jax/train/peak_flops.py).
"""

import argparse
import collections
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row, not_available
from genhmr_jax.io import config_files
from genhmr_jax.systems import registry
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program
from genhmr_jax.train.peak_flops import peak_flops

CONSTANT = {"crop": (400.0, 400.0, 600.0), "centre": 400.0, "focal": 1000.0}
CONSTANT |= {"weak_camera": (0.9, 0.0, 0.0), "rotmats": np.eye(3)}


def random_batch(shapes: Any) -> Any:
    """Arrays like `shapes` that a step can be computed of: rotations are rotations, people stand
    before the camera."""
    rng = np.random.default_rng(0)

    def fill(path: tuple, x: jax.ShapeDtypeStruct) -> np.ndarray:
        # The name of the field; an array of a list has that of the list.
        name = next(key.name for key in reversed(path) if hasattr(key, "name"))
        if name == "number":
            return np.arange(x.shape[0], dtype=np.uint32)
        if x.dtype == np.uint8:
            return rng.integers(0, 256, x.shape, dtype=np.uint8)
        if name in CONSTANT:
            return np.broadcast_to(np.asarray(CONSTANT[name], x.dtype), x.shape)
        scale = 800.0 if name in ("keypoints", "points2d") else 0.3
        return (scale * rng.uniform(0, 1, x.shape)).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


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


PAPER = "configs/tokenizer/paper.py"
# The config, its tokenizer's, and whether --quick includes it.
STEPS = (
    ("configs/tokenizer/tiny.py", "configs/tokenizer/tiny.py", True),
    ("configs/genhmr/tiny.py", "configs/tokenizer/tiny.py", False),
    ("configs/genhmr/keypoints.py", "configs/tokenizer/body_parts.py", False),
)


def rows(settings: Settings) -> list[Row]:
    """Rows a second of the tiny configs and of the one that the shipped model starts from."""
    found = []
    for name, tokenizer, quick in STEPS:
        if settings.quick and not quick:
            found.append(not_available(f"train step, {name}", "left out by --quick"))
            continue
        step = measure(name, tokenizer, steps=10, profiled=False)
        # Parameters, average and both moments are read and written once, in float32.
        least = machine.floor(1e12 * step["model_tflops_per_step"], 32 * step["params"])
        found.append(
            Row(
                f"train step, {name}, batch {step['rows']}",
                step["rows_per_s"],
                "samples/s",
                floor=step["rows"] / least,
                floor_from="model FLOPs; state",
                note=f"first steps, with compilation: {step['warm_up_s']:.0f} s",
            )
        )
    return found


def measure(
    name: str,
    tokenizer_name: str = PAPER,
    batch: int | None = None,
    accumulate: int = 1,
    steps: int = 10,
    profiled: bool = True,
) -> dict[str, Any]:
    """Time the step of a config.

    Args:
      name, tokenizer_name: config files, from the root of the repository.
      batch: rows of a batch (image rows, if the config has any); None: those of the config.
      accumulate: micro-batches of a batch.
      steps: number of measured steps.
      profiled: whether to profile three more steps.
    """
    config = config_files.load_config(f"{ROOT}/{name}", {})
    tokenizer = config_files.load_config(f"{ROOT}/{tokenizer_name}", {})
    field = "image_batch_size" if config.get("image_batch_size") else "batch_size"
    config[field], config.accumulate = batch or config[field], accumulate
    if field == "image_batch_size" and not config.data.people:
        config.data.images = config.data.images or "random"  # a name: nothing is read
    if config.get("init"):
        config.init = ""  # random parameters cost what trained ones cost
    under = (tokenizer,) if config.stage == "genhmr" else ()
    task = registry.abstract_task(config, *under)
    if under:  # and so does an untrained tokenizer
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
    placed = meshes.place(random_batch(task.batch_shapes()), meshes.batch_sharding(made.mesh))
    times = []
    for _ in range(3 + steps):
        start = time.perf_counter()
        state, metrics = made.step(state, placed, frozen)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    step, flops, device = (
        statistics.median(times[3:]),
        made.model_flops(),
        made.mesh.devices.flat[0],
    )
    peak, costs = peak_flops(device.device_kind), []
    if profiled:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                for _ in range(3):
                    state, metrics = made.step(state, placed, frozen)
                jax.block_until_ready(metrics)
            costs = top_costs(folder, 5)
    return {
        "config": name,
        "device": f"{made.mesh.size} x {device.device_kind}",
        "rows": config[field],
        "params": sum(x.size for x in jax.tree.leaves(made.state["params"])),
        "warm_up_s": sum(times[:3]),
        "step_ms": 1000 * step,
        "rows_per_s": config[field] / step,
        "model_tflops_per_step": flops / 1e12,
        "tflops_per_s_per_device": flops / step / made.mesh.size / 1e12,
        "mfu": flops / step / made.mesh.size / peak if peak else None,
        "loss": float(metrics["loss"]),
        "top_costs": costs,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the train step.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--tokenizer", default=PAPER)
    parser.add_argument("--rows", type=int, default=256, help="rows of a batch")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    found = measure(args.config, args.tokenizer, args.rows, args.accumulate, args.steps)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
