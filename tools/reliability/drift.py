"""Answers of the shipped model in float32 and float64, and in batches of other sizes and orders.

`tools/reliability/numerics.py` runs this file in child processes, because the precision and the
number of devices are fixed when JAX starts:

python tools/reliability/drift.py refine --bits 64 --rows 16 --out FILE.npz
python tools/reliability/drift.py batches --rows 32 --out FILE.npz
"""

import argparse
import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

DEVICES = 8
FRAMES = 12
SEED = 0


def _begin(bits: int) -> None:
    """Settings that must come before the first computation of JAX."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", bits == 64)
    if bits == 64:
        # The program converts the answers of its networks to float32, whatever their type. Under
        # this name it converts them to float64 here.
        jnp.float32 = jnp.float64


def make_rows(recoverer: Any, count: int) -> Any:
    """Inputs of `count` people: the person of the sample photo, with errors of the keypoints.

    The first row is without. Errors are normal: 6 px, and 0.03 m.
    """
    import jax
    import numpy as np

    from genhmr_jax.cli.main import SAMPLE_PHOTO
    from genhmr_jax.io.images import read_image

    inputs = recoverer.prepare(read_image(SAMPLE_PHOTO)).inputs
    inputs = jax.tree.map(lambda x: np.repeat(np.asarray(x)[:1], count, 0), inputs)
    rng, late = np.random.default_rng(SEED), (np.arange(count) > 0)[:, None, None]
    keypoints = inputs.keypoints.copy()
    keypoints[..., :2] += late * rng.normal(0, 6, keypoints[..., :2].shape)
    lifted = inputs.keypoints3d + late * rng.normal(0, 0.03, inputs.keypoints3d.shape)
    return dataclasses.replace(inputs, keypoints=keypoints, keypoints3d=np.float32(lifted))


def refine(bits: int, rows: int, latents: pathlib.Path | None) -> dict[str, Any]:
    """Sampled and refined joints, and those of a refined window, metres.

    Args:
      bits: 32 or 64.
      rows: people.
      latents: of the run in float32, from which the refinement starts; None: sample them.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    import smpl_jax

    import genhmr_jax
    from genhmr_jax.core.motion_refinement import MotionSpec, Window, refine_motion
    from genhmr_jax.core.refinement import refine as refined_2d
    from genhmr_jax.core.solve import answers, how
    from genhmr_jax.recover.options import DEFAULTS
    from genhmr_jax.recover.photo import keys_of

    recoverer = genhmr_jax.load(body="lite")
    exact = np.float64 if bits == 64 else np.float32
    cast = lambda tree: jax.tree.map(
        lambda x: np.asarray(x, exact) if np.asarray(x).dtype.kind == "f" else np.asarray(x), tree
    )
    inputs = cast(make_rows(recoverer, rows))
    params, surface, system = cast(recoverer.params), cast(recoverer.surface), recoverer.system
    params, surface = jax.tree.map(jnp.asarray, (params, surface))
    given = params, surface
    options = how(DEFAULTS.solving(system))
    spec = options[3]

    def joints(surface: Any, pose: Any, betas: Any, weak: Any, view: Any) -> Any:
        found = smpl_jax.forward(surface, betas, pose).joints
        return found + view.translation(weak)[:, None]

    @jax.jit
    def sampled(params: Any, surface: Any, inputs: Any, keys: Any) -> Any:
        return answers(system, params, surface, inputs, keys, *options).latents

    @jax.jit
    def from_start(params: Any, surface: Any, inputs: Any, start: tuple) -> tuple:
        pose, view = system.pose(params, inputs.view), inputs.view
        photo = (inputs.keypoints, view, inputs.silhouette, spec, system.pose_parts)
        found = refined_2d(pose, surface, *start, *photo)
        last = joints(surface, pose(found.embeddings), found.betas, found.weak_camera, view)
        return joints(surface, pose(start[0]), *start[1:], view), last, found.loss

    @jax.jit
    def of_window(params: Any, surface: Any, window: Window) -> tuple:
        pose = system.pose(params, window.view)
        found = refine_motion(pose, surface, window, MotionSpec(), system.pose_parts)
        last = joints(surface, pose(found.embeddings), window.betas, found.weak_camera, window.view)
        return last, found.loss

    keys = keys_of(np.uint32(SEED), np.arange(rows))
    names = ("embeddings", "betas", "weak_camera")
    source = vars(sampled(*given, inputs, keys)) if latents is None else np.load(latents)
    start = tuple(exact(source[name]) for name in names)
    before, after, loss = from_start(*given, inputs, start)
    first = lambda x: x[np.arange(FRAMES) % rows]
    window = Window(
        times=exact(np.arange(FRAMES) / 30),
        known=np.ones(FRAMES, bool),
        free=np.ones(FRAMES, bool),
        embeddings=first(start[0]),
        prior=first(start[0]),
        betas=np.repeat(start[1].mean(0, keepdims=True), FRAMES, 0),
        weak_camera=first(start[2]),
        keypoints=first(inputs.keypoints),
        view=jax.tree.map(first, inputs.view),
        contact=np.full((FRAMES, 2), 0.5, exact),
        weight=np.linspace(0.1, 1, FRAMES, dtype=exact),
    )
    moved, motion_loss = of_window(*given, window)
    if bits == 64:
        assert before.dtype == after.dtype == moved.dtype == np.float64
    return dict(zip(names, start, strict=True)) | {
        "before": before, "after": after, "loss": loss,
        "motion": moved, "motion_loss": motion_loss,
    }  # fmt: skip


def batches(rows: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Joints (metres) and tokens of the same people in other batches, by the name of the way."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import genhmr_jax
    from genhmr_jax.core.solve import solve
    from genhmr_jax.recover.options import DEFAULTS
    from genhmr_jax.recover.photo import keys_of

    recoverer = genhmr_jax.load(body="lite")
    system, inputs = recoverer.system, make_rows(recoverer, rows)
    keys = keys_of(np.uint32(SEED), np.arange(rows))
    fixed = [recoverer.params, recoverer.body, recoverer.surface]
    options, found = DEFAULTS.solving(system), {}

    def run(name: str, index: np.ndarray, inputs: Any = inputs, count: int = 1) -> None:
        """The rows of an index on `count` devices; the answers in the order of the people."""
        own = jax.tree.map(lambda x: x[index], (inputs, keys))
        shared = fixed
        if count > 1:
            mesh = Mesh(np.array(jax.devices()[:count]), ("rows",))
            place = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
            own, shared = place(own, PartitionSpec("rows")), place(fixed, PartitionSpec())
        answer = solve(system, *shared, *own, options)
        order = np.argsort(index)
        found[f"joints {name}"] = np.asarray(answer.joints)[order]
        found[f"tokens {name}"] = np.asarray(answer.tokens)[order]
        print(name, flush=True)

    every = np.arange(rows)
    run("all", every)
    run("again", every)
    run("reversed", every[::-1])
    run("shuffled", np.random.default_rng(SEED).permutation(rows))
    for size in sizes:
        run(f"batch of {size}", every[: min(size, rows)])
    # The last rows of a batch are padding of zeros, or of NaN.
    few = max(rows - 3, 1)
    for name, value in (("zeros", 0.0), ("NaN", np.nan)):
        padded = jax.tree.map(lambda x, value=value: _padded(x, few, value), inputs)
        run(f"padding of {name}", every, padded)
    for count in (2, 4, DEVICES):
        if rows % count == 0:
            run(f"{count} devices", every, count=count)
    return found


def _padded(array: Any, count: int, value: float) -> Any:
    """The array with rows from `count` on replaced by a value."""
    array = array.copy()
    array[count:] = value
    return array


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part; writes its arrays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("refine", "batches"))
    parser.add_argument("--bits", type=int, choices=(32, 64), default=32)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--latents", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args(argv)
    _begin(args.bits)
    import numpy as np

    if args.part == "refine":
        found = refine(args.bits, args.rows, args.latents)
    else:
        found = batches(args.rows, args.sizes)
    np.savez(args.out, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
