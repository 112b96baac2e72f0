"""`genhmr sweep`: plan a sweep, run it here or write jobs for a cluster, and collect results."""

import argparse
import pathlib
import shlex

from genhmr_jax.evaluate.sweep import local
from genhmr_jax.evaluate.sweep.collect import collect, write
from genhmr_jax.evaluate.sweep.plan import Plan, make_plan
from genhmr_jax.io.errors import InputError


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns:
      0, or 1 if a node failed. The other nodes are done, and the same command tries again.

    Raises:
      InputError: the sweep, a --set or the folder is at fault; nothing has run.
    """
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}", "nothing would run", "give at least 1")
    plan = make_plan(
        args.sweep,
        args.out,
        sets=args.set,
        seeds=args.seeds,
        first_stage=args.first_stage,
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
    """The nodes with their commands, and the nodes that each point reads."""
    lines = []
    for node in plan.nodes.values():
        after = f" after {', '.join(node.needs)}" if node.needs else ""
        lines.append(f"{'done ' if node.done else 'to do'} {node.key}{after}")
        lines.append(f"      {shlex.join(['python', *node.command])}")
    lines += [f"{row.point.name}: {', '.join(row.evaluations)}" for row in plan.rows]
    todo = sum(not node.done for node in plan.nodes.values())
    return "\n".join([*lines, f"{len(plan.rows)} points, {len(plan.nodes)} runs, {todo} to do"])


def _run_here(plan: Plan, args: argparse.Namespace) -> int:
    devices, jobs = [device for device in args.devices.split(",") if device], args.jobs or 1
    if devices and len(devices) < jobs:
        problem = f"is more than the {len(devices)} of --devices"
        raise InputError(f"--jobs {jobs}", problem, f"give --jobs {len(devices)}")
    _check_inputs(plan)
    with local.alone(plan.out):
        outcome = local.run(plan, local.launcher(plan, devices, jobs), jobs)
        _collect(plan)
    done, failed = f"{outcome.done} runs done", f"{len(outcome.failed)} failed"
    print(f"{done}, {outcome.before} were done before, {failed}")
    return 1 if outcome.failed else 0


def _write_jobs(plan: Plan, args: argparse.Namespace) -> str:
    """Write the jobs for a cluster, and return the instructions for the user."""
    from genhmr_jax.evaluate.sweep import gke, slurm, xmanager

    collecting = ["-m", "genhmr_jax.cli.main", "sweep", f"--sweep={args.sweep}"]
    collecting += [f"--out={args.out}", f"--seeds={args.seeds}", "--collect"]
    collecting += [f"--set={text}" for text in args.set]
    for name in ("first_stage", "checkpoint", "remote_out"):
        if value := getattr(args, name):
            collecting.append(f"--{name.replace('_', '-')}={value}")
    writer = {"slurm": slurm, "gke": gke, "xmanager": xmanager}[args.backend]
    return writer.write(plan, args, collecting)


def _check_inputs(plan: Plan) -> None:
    """Raise InputError for a missing input now, before each run fails with it."""
    flags = {
        "--config.data.poses": "data.poses",
        "--config.data.images": "data.images",
        "--poses": "data.poses",
        "--images": "data.images",
    }
    for node in plan.nodes.values():
        words: list[str] = []
        for text in node.command:
            words += text.split("=", 1) if text.startswith("--config.data.") else [text]
        for flag, file in zip(words, words[1:], strict=False):
            path = pathlib.Path(file)
            if flag not in flags or file in ("", "made-up") or path.is_relative_to(plan.out):
                continue
            if not path.exists():
                remedy = f"give it with --set {flags[flag]}=PATH"
                raise InputError(file, "no such file or folder", remedy)


def _collect(plan: Plan) -> None:
    plan.out.mkdir(parents=True, exist_ok=True)
    files = write(plan, collect(plan))
    print(files[0].read_text() + "\n" + ", ".join(map(str, files)))
