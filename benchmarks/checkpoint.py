"""Saving and restoring the state of a training (train/checkpoint.py), against numpy.savez of the
same arrays."""

import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row
from genhmr_jax.io import config_files
from genhmr_jax.train.checkpoint import Checkpoints

LAYERS, WIDTH = 24, 1024
PEER = "numpy.savez and numpy.load"


def rows(settings: Settings) -> list[Row]:
    """Bytes a second of both directions; a save ends when its files are complete."""
    layers = 6 if settings.quick else LAYERS
    rng = np.random.default_rng(0)
    state = {
        f"layer_{i:02d}": {
            "kernel": jnp.asarray(rng.random((4 * WIDTH, WIDTH), np.float32)),
            "bias": jnp.zeros(WIDTH),
        }
        for i in range(layers)
    }
    jax.block_until_ready(state)
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
    times: dict[str, list[float]] = {}
    for number in range(settings.rounds):
        for name, value in {**ours(settings, state, number), **peer(settings, state)}.items():
            times.setdefault(name, []).append(value)
    best = {name: size / float(np.median(values)) for name, values in times.items()}
    return [
        Row(
            f"checkpoint of {size:.0f} MB, {direction}",
            best[direction],
            "MB/s",
            PEER,
            best[f"peer {direction}"],
            machine.copy_rate() / 1e6,
            "one copy",
        )
        for direction in ("save", "restore")
    ]


def ours(settings: Settings, state: dict, number: int) -> dict[str, float]:
    """Seconds of a save to a new folder and of a restore from it."""
    folder = settings.work / f"checkpoint_{number}"
    config = config_files.load_config(f"{ROOT}/configs/tokenizer/tiny.py", {})
    checkpoints = Checkpoints(folder, config, {})
    start = time.perf_counter()
    checkpoints.save(1, state, {"next_index": 1})
    checkpoints.manager.wait_until_finished()
    saved = time.perf_counter()
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    restored, _ = checkpoints.restore(shapes)
    jax.block_until_ready(restored)
    end = time.perf_counter()
    checkpoints.close()
    shutil.rmtree(folder)
    return {"save": saved - start, "restore": end - saved}


def peer(settings: Settings, state: dict) -> dict[str, float]:
    """The same with one npz file."""
    file = settings.work / "state.npz"
    start = time.perf_counter()
    arrays = {f"{n}/{k}": np.asarray(x) for n, part in state.items() for k, x in part.items()}
    np.savez(file, **arrays)
    saved = time.perf_counter()
    with np.load(file) as found:
        jax.block_until_ready(jax.device_put({name: found[name] for name in found.files}))
    end = time.perf_counter()
    file.unlink()
    return {"peer save": saved - start, "peer restore": end - saved}
