"""From the image alone to a body: MQ-HMR, GenHMR, and a residual MLP over the same maps.

    python -m benchmarks.from_image --images runs/detections --checkpoint runs/mqhmr/model DIR \\
        [--samples 384000]

The rows are those of `data.features --encoder detector`. The MLP is trained here on their split
train (see lifting.py); the networks of the folders are not. GenHMR's keypoints are hidden. Errors
are of split val: PA-MPJPE and MPJPE over 24 joints, mm, without refinement.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax

from benchmarks.lifting import BATCH, BODY, errors, train_mlp
from genhmr_jax.core.inputs import conditioned
from genhmr_jax.core.system import Params, System
from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.features import DETECTOR
from genhmr_jax.data.rows import Rows
from genhmr_jax.io import compilation_cache
from genhmr_jax.recover import photo


@functools.partial(jax.jit, static_argnames="system")
def joints_of(system: System, params: Params, rows: Rows, iterations: jax.Array) -> jax.Array:
    """A system's joints (B, 24, 3), from the image alone and without refinement."""
    inputs = conditioned(rows.inputs(), "image")
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    encoded = system.encode(params, inputs)
    latents = system.sample(params, BODY, encoded, keys, iterations=iterations)
    rotmats = system.pose(params, inputs.view)(latents.embeddings)
    return smpl_jax.posed_joints(BODY, latents.betas, rotmats)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Compare networks on the image alone.")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="train and val")
    parser.add_argument("--checkpoint", nargs="+", default=[], help="folders of models")
    parser.add_argument("--samples", type=int, default=384_000, help="of the MLP; 0: none")
    args = parser.parse_args()
    compilation_cache.enable()
    sets = {split: FeatureSet(args.images / split, DETECTOR) for split in ("train", "val")}
    batches = sets["val"].all_batches(BATCH)
    weights = np.concatenate([rows.weight for rows in batches])
    print("| method | PA-MPJPE | MPJPE |\n|---|---|---|", flush=True)

    def add_row(name: str, of_rows: Callable[[Rows], jax.Array]) -> None:
        both = np.concatenate([errors(of_rows(rows), rows) for rows in batches], 1)
        pa, plain = both @ weights / weights.sum()
        print(f"| {name} | {pa:.1f} | {plain:.1f} |", flush=True)

    for folder in args.checkpoint:
        model = photo.load(folder)
        for iterations in (1, 3) if model.system.samples else (1,):
            number = jnp.asarray(iterations)
            found = functools.partial(joints_of, model.system, model.params, iterations=number)
            add_row(f"{model.system.kind} {folder}, T={iterations}", found)
    if args.samples:
        mlp, seconds = train_mlp(None, sets["train"], args.samples)
        add_row(f"residual MLP, {args.samples:,} samples, {seconds:.0f} s", mlp)


if __name__ == "__main__":
    main()
