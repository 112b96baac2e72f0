"""`genhmr aot`: compile the train step and the inference step for a TPU slice that is not here. JAX
is imported only when it runs."""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag

WHAT = ("train", "infer", "both")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command. What a parser leaves over, `--config.a.b=value` each, belongs into
    the result's `overrides`."""
    parser.set_defaults(overrides=())
    named = "a config file and its argument: configs/genhmr/vit.py:h"
    parser.add_argument("--config", required=True, type=path_flag, metavar="FILE:ARG", help=named)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:AxB",
        help="a TPU slice: v5e:16x16, v5p:4x4x4, v6e:16x16",
    )
    parser.add_argument(
        "--what", choices=WHAT, default="train", help="the step to compile (default: train)"
    )
    parser.add_argument(
        "--tokenizer",
        default="configs/tokenizer/paper.py",
        type=path_flag,
        metavar="FILE:ARG",
        help="config of stage 1 under a stage-2 one (default: %(default)s)",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="compile at XLA's level O1: a third of the time, but programs use more memory and "
        "overlap less",
    )
    everything = "write everything here as well"
    parser.add_argument("--json", type=path_flag, metavar="FILE", help=everything)


def run(args: argparse.Namespace) -> int:
    """Runs the command; prints a report for each step. Returns 0.

    Args:
      args: as `add_flags` defines them; `overrides` holds "--config.a.b=value" each.

    Raises:
      InputError: unknown slice or config, a mesh or batch that does not divide, too little memory,
        no libtpu, or a --json that cannot be written.
    """
    from genhmr_jax.io.atomic import atomic_path, check_writable
    from genhmr_jax.io.config_files import load_config

    if args.json:
        check_writable(args.json)
    config = load_config(args.config, args.overrides)
    under = [load_config(args.tokenizer)] if "tokenizer" in config else []
    found = {}
    for what in ("train", "infer") if args.what == "both" else (args.what,):
        from genhmr_jax.train.aot import report

        found[what] = measure(config, under, args.topology, what, fast=args.fast)
        print(
            report.describe(found[what], f"{what} step of {args.config} on {args.topology}"),
            flush=True,
        )
    if args.json:
        figures = {what: report.to_dict() for what, report in found.items()}
        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(
    config: Any, under: Sequence[Any], topology: str, what: str, *, fast: bool = False
) -> Any:
    """Compiles one step and returns its `report.Report`.

    Args:
      config: of the stage. No data and no trained model are read.
      under: configs of the models that it is trained over.
      what: "train" or "infer".
      fast: compile at XLA's optimisation level O1.

    Raises:
      InputError: as for `run`.
    """
    import jax

    jax.config.update(
        "jax_platforms", "cpu"
    )  # the slice is no backend; without this JAX would look for a TPU of this machine
    jax.config.update("jax_optimization_level", "O1" if fast else "UNKNOWN")
    from genhmr_jax.systems import registry
    from genhmr_jax.train import mesh as meshes
    from genhmr_jax.train import program
    from genhmr_jax.train.aot import infer, report
    from genhmr_jax.train.aot import topology as topologies
    from genhmr_jax.train.flops import function_flops

    chip, shape = topologies.parse(topology)
    mesh = meshes.make_mesh(config.mesh, topologies.devices(topology))
    if config.get("image_batch_size") and not (config.data.images or config.data.people):
        config = config.copy_and_resolve_references()
        config.data.images = "none"  # a folder must be named, but nothing is read
    task = registry.abstract_task(config, *under)
    if what == "train":
        made: Any = program.build(task, config, mesh)
        shapes, flops = (made.state, made.batch, made.frozen), made.model_flops()
    else:
        rows = config.image_batch_size or config.batch_size
        made = infer.build(task, config, mesh, rows)
        shapes, flops = made.shapes, function_flops(made.step, *made.shapes)
    fixed = report.argument_bytes(shapes)
    if fixed > chip.hbm:
        raise too_small(
            config, mesh, chip, report.OutOfMemory(fixed, "arguments", ""), topology, what
        )
    try:
        return report.compile_report(made.lower(), chip, shape, mesh, flops)
    except report.OutOfMemory as error:
        raise too_small(config, mesh, chip, error, topology, what) from error


def too_small(
    config: Any, mesh: Any, chip: Any, error: Any, topology: str, what: str
) -> InputError:
    """What does not fit, and the nearest setting that should.

    Parameters and optimiser shrink with fsdp x tensor, temporaries with the rows of a micro-batch;
    both are estimates by proportion, nothing is compiled again.
    """
    gib = 2**30
    factor = (
        2 ** max(math.ceil(math.log2(error.needed / chip.hbm)), 1)
        if error.needed == error.needed
        else 2
    )
    problem = (
        f"{error.what} of {error.needed / gib:.2f} GiB do not fit {chip.hbm / gib:.2f} GiB of HBM "
        "of a chip"
    )
    wider = mesh.shape["fsdp"] * factor
    if error.what == "arguments" and mesh.size % wider == 0:
        return InputError(
            f"--topology={topology}",
            problem,
            f"nearest that should fit: --config.mesh.fsdp={wider} (estimated)",
        )
    field = "image_batch_size" if config.get("image_batch_size") else "batch_size"
    if what == "infer" and config[field] // factor >= mesh.shape["data"] * mesh.shape["fsdp"]:
        return InputError(
            f"--topology={topology}",
            problem,
            f"nearest that should fit: --config.{field}={config[field] // factor} (estimated)",
        )
    rows = config[field] // (mesh.shape["data"] * mesh.shape["fsdp"])
    more = config.accumulate * factor
    while more <= rows and rows % more:
        more += config.accumulate
    if what == "train" and error.what != "arguments" and more <= rows:
        remedy = f"nearest that should fit: --config.accumulate={more} (estimated)"
        if config.remat == "none":
            remedy = f"--config.remat=blocks, or {remedy}"
        return InputError(f"--topology={topology}", problem, remedy)
    return InputError(
        f"--topology={topology}", problem, "take a larger slice, or a smaller batch or model"
    )
