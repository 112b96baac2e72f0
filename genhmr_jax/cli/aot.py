"""`genhmr aot`: compile the train step and the inference step for an absent TPU slice.

JAX is imported only when the command runs.
"""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag

WHAT = ("train", "infer", "both")
FIRST_STAGES = {"tokenizer": "configs/tokenizer/paper.py", "mesh2d": "configs/mesh2d/paper.py"}
"""The field that holds the first stage's model in the config of a second stage -> its config."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command.

    The parser leaves over overrides `--config.a.b=value`; the caller stores them in `overrides`.
    """
    parser.set_defaults(overrides=())
    add, path = parser.add_argument, {"type": path_flag, "metavar": "FILE:ARG"}
    named = "a config file and its argument: configs/genhmr/vit.py:h"
    add("--config", required=True, **path, help=named)
    slices = "a TPU slice: v5e:16x16, v5p:4x4x4, v6e:16x16"
    add("--topology", required=True, metavar="KIND:AxB", help=slices)
    add("--what", choices=WHAT, default="train", help="the step to compile (default: train)")
    under = "config of the first stage, for a config of a second one (default: the paper's)"
    add("--first-stage", **path, help=under)
    level = (
        "compile at XLA's level O1: a third of the time, but the programs use more memory and "
        "overlap less communication with computation"
    )
    add("--fast", action="store_true", help=level)
    add("--json", type=path_flag, metavar="FILE", help="also write all figures to this file")


def run(args: argparse.Namespace) -> int:
    """Compile the steps, and print a report for each. Returns 0.

    Args:
      args: those of `add_flags`; `overrides` holds texts "--config.a.b=value".

    Raises:
      InputError: the slice or config is unknown, a mesh or batch does not divide, the program does
        not fit into memory, libtpu is missing, or --json cannot be written.
    """
    from genhmr_jax.io.atomic import atomic_path, check_writable
    from genhmr_jax.io.config_files import load_config

    if args.json:
        check_writable(args.json)
    config = load_config(args.config, args.overrides)
    under = [
        load_config(args.first_stage or paper)
        for name, paper in FIRST_STAGES.items()
        if name in config
    ]
    found = {}
    # The inference step first: a stage without one is refused before anything is compiled.
    for what in ("infer", "train") if args.what == "both" else (args.what,):
        from genhmr_jax.train.aot import report

        found[what] = measure(config, under, args.topology, what, fast=args.fast)
        title = f"{what} step of {args.config} on {args.topology}"
        print(report.describe(found[what], title), flush=True)
    if args.json:
        figures = {what: report.to_dict() for what, report in found.items()}
        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(
    config: Any, under: Sequence[Any], topology: str, what: str, *, fast: bool = False
) -> Any:
    """Compile one step, and return its `report.Report`. Neither data nor trained models are read.

    Args:
      config: of the stage.
      under: configs of the models over which it is trained.
      topology: the TPU slice.
      what: "train" or "infer".
      fast: compile at XLA's optimisation level O1.

    Raises:
      InputError: as for `run`.
    """
    # 1. JAX must not search for a TPU on this machine: the slice is not a backend.
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_optimization_level", "O1" if fast else "UNKNOWN")
    from genhmr_jax.systems import registry
    from genhmr_jax.train import mesh as meshes
    from genhmr_jax.train import program
    from genhmr_jax.train.aot import infer, report
    from genhmr_jax.train.aot import topology as topologies
    from genhmr_jax.train.flops import function_flops

    # 2. The task with shapes in place of arrays.
    chip, shape = topologies.parse(topology)
    mesh = meshes.make_mesh(config.mesh, topologies.devices(topology))
    if config.get("image_batch_size") and not (config.data.images or config.data.people):
        config = config.copy_and_resolve_references()
        config.data.images = "none"  # a folder must be named, but nothing is read
    task = registry.abstract_task(config, *under)

    # 3. The step, with the shapes of its arguments.
    if what == "train":
        made: Any = program.build(task, config, mesh)
        shapes, flops = (made.state, made.batch, made.frozen), made.model_flops()
    else:
        rows = config.get("image_batch_size") or config.batch_size
        recovers = registry.entries()[config.stage].recovers
        made = infer.build(task, config, mesh, rows, recovers)
        shapes, flops = made.shapes, function_flops(made.step, *made.shapes)

    # 4. Compile.
    try:
        fixed = report.argument_bytes(shapes)
        if fixed > chip.hbm:
            raise report.OutOfMemory(fixed, "arguments", "")
        return report.compile_report(made.lower(), chip, shape, mesh, flops)
    except report.OutOfMemory as error:
        raise too_small(config, mesh, chip, error, topology, what) from error


def too_small(
    config: Any, mesh: Any, chip: Any, error: Any, topology: str, what: str
) -> InputError:
    """The error of a program that does not fit, with the nearest setting that should fit.

    The setting is estimated and not compiled. Parameters and optimiser state are proportional to
    1 / (fsdp x tensor), temporaries to the rows of a micro-batch.
    """
    # 1. What does not fit, and by which power of two it must shrink.
    gib, factor = 2**30, 2
    if not math.isnan(error.needed):
        factor = 2 ** max(math.ceil(math.log2(error.needed / chip.hbm)), 1)
    where, problem = (
        f"--topology={topology}",
        f"{error.what} of {error.needed / gib:.2f} GiB do not fit {chip.hbm / gib:.2f} GiB of HBM "
        "of a chip",
    )
    nearest = lambda flag: f"nearest that should fit: --config.{flag} (estimated)"

    # 2. Arguments: a wider mesh.
    wider = mesh.shape["fsdp"] * factor
    if error.what == "arguments" and mesh.size % wider == 0:
        return InputError(where, problem, nearest(f"mesh.fsdp={wider}"))

    # 3. Inference: a smaller batch.
    field = "image_batch_size" if config.get("image_batch_size") else "batch_size"
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if what == "infer" and config[field] // factor >= shards:
        return InputError(where, problem, nearest(f"{field}={config[field] // factor}"))

    # 4. Training: smaller micro-batches, which must divide the rows.
    rows, more = config[field] // shards, config.accumulate * factor
    while more <= rows and rows % more:
        more += config.accumulate
    if what == "train" and error.what != "arguments" and more <= rows:
        remedy = nearest(f"accumulate={more}")
        if config.remat != "blocks":
            remedy = f"--config.remat=blocks, or {remedy}"
        return InputError(where, problem, remedy)
    return InputError(where, problem, "take a larger slice, or a smaller batch or model")
