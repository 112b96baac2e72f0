"""`genhmr sweep`: plan a sweep, run it here or write jobs for a cluster, collect what is
measured."""

import argparse
import pathlib
import shlex

from genhmr_jax.evaluate.sweep import local
from genhmr_jax.evaluate.sweep.collect import collect, write
from genhmr_jax.evaluate.sweep.plan import Plan, make_plan
from genhmr_jax.io.errors import InputError


def run(args: argparse.Namespace) -> int:
    """Runs the command. Returns 0, or 1 when a node failed: the others are done, and the same
    command tries again.

    Raises:
      InputError: the sweep, --set or the folder are at fault; nothing has run.
    """
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}", "nothing would run", "give at least 1")
    plan = make_plan(
        args.sweep,
        args.out,
        sets=args.set,
        seeds=args.seeds,
        tokenizer=args.tokenizer,
        checkpoint=args.checkpoint,
        remote=args.remote_out,
    )
    if args.dry_run:
        print(describe(plan))
    elif args.collect:
        _collect(plan)
    elif args.backend == "local":
        return _run_here(plan, args)
    else:
        print(_write_jobs(plan, args))
    return 0


def describe(plan: Plan) -> str:
    """What would run, and which points read it."""
    lines = []
    for node in plan.nodes.values():
        lines.append(
            f"{'done ' if node.done else 'to do'} {node.key}{' after ' + ', '.join(node.needs) if node.needs else ''}"
        )
        lines.append(f"      {shlex.join(['python', *node.command])}")
    lines += [f"{row.point.name}: {', '.join(row.evaluations)}" for row in plan.rows]
    todo = sum(not node.done for node in plan.nodes.values())
    return "\n".join([*lines, f"{len(plan.rows)} points, {len(plan.nodes)} runs, {todo} to do"])


def _run_here(plan: Plan, args: argparse.Namespace) -> int:
    devices, jobs = [device for device in args.devices.split(",") if device], args.jobs or 1
    if devices and len(devices) < jobs:
        raise InputError(
            f"--jobs {jobs}",
            f"is more than the {len(devices)} of --devices",
            f"give --jobs {len(devices)}",
        )
    _check_inputs(plan)
    with local.alone(plan.out):
        outcome = local.run(plan, local.launcher(plan, devices, jobs), jobs)
        _collect(plan)
    print(
        f"{outcome.done} runs done, {outcome.before} were done before, {len(outcome.failed)} failed"
    )
    return 1 if outcome.failed else 0


def _write_jobs(plan: Plan, args: argparse.Namespace) -> str:
    """The files of a cluster's jobs; returns what to do with them."""
    from genhmr_jax.evaluate.sweep import gke, slurm, xmanager

    again = [
        "-m",
        "genhmr_jax.cli.main",
        "sweep",
        f"--sweep={args.sweep}",
        f"--out={args.out}",
        f"--seeds={args.seeds}",
        "--collect",
    ]
    again += [f"--set={text}" for text in args.set]
    given = {
        "tokenizer": args.tokenizer,
        "checkpoint": args.checkpoint,
        "remote-out": args.remote_out,
    }
    again += [f"--{name}={value}" for name, value in given.items() if value]
    writer = {"slurm": slurm, "gke": gke, "xmanager": xmanager}[args.backend]
    return writer.write(plan, args, again)


def _check_inputs(plan: Plan) -> None:
    """A file that is not there stops the command now, not every run after its start."""
    flags = {
        "--config.data.poses": "data.poses",
        "--config.data.images": "data.images",
        "--poses": "data.poses",
        "--images": "data.images",
    }
    for node in plan.nodes.values():
        words = [
            word
            for text in node.command
            for word in (text.split("=", 1) if text.startswith("--config.data.") else [text])
        ]
        for flag, file in zip(words, words[1:], strict=False):
            path = pathlib.Path(file)
            if (
                flag in flags
                and file not in ("", "made-up")
                and not path.exists()
                and not path.is_relative_to(plan.out)
            ):
                raise InputError(
                    file, "no such file or folder", f"give it with --set {flags[flag]}=PATH"
                )


def _collect(plan: Plan) -> None:
    plan.out.mkdir(parents=True, exist_ok=True)
    files = write(plan, collect(plan))
    print(files[0].read_text() + "\n" + ", ".join(map(str, files)))
