"""A sweep as SLURM jobs: an array for each kind of node, one after another, then the table."""

import argparse
import os
import pathlib
import shlex
import sys

from genhmr_jax.evaluate.sweep.plan import Node, Plan
from genhmr_jax.io.errors import InputError


def write(plan: Plan, args: argparse.Namespace, collect: list[str]) -> str:
    """Write OUT/slurm/{KIND,collect}.sbatch and submit.sh; return the instructions for the user.

    Args:
      plan: nodes that are done are left out. OUT must be on a file system that all machines share.
      args: `option` (#SBATCH lines) and `jobs` (limit of running jobs of an array).
      collect: arguments of python that write the table.

    Raises:
      InputError: a malformed option.
    """
    # 1. Folders, without the scripts of an earlier call.
    if wrong := [text for text in args.option if not text.startswith("-") or "\n" in text]:
        remedy = "write it as --option=--partition=gpu"
        raise InputError(f"--option {wrong[0]}", "is not an option of sbatch", remedy)
    folder = plan.out / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    (plan.out / "logs").mkdir(exist_ok=True)
    (plan.out / "runs").mkdir(exist_ok=True)
    for old in folder.glob("*.sbatch"):
        old.unlink()

    # 2. The scripts.
    todo = [node for node in plan.nodes.values() if not node.done]
    kinds = {kind: [node for node in todo if node.kind == kind] for kind in plan.kinds}
    for kind, nodes in kinds.items():
        if nodes:
            (folder / f"{kind}.sbatch").write_text(_array(plan, kind, nodes, args))
    (folder / "collect.sbatch").write_text(_collect(plan, collect, args))
    submit = folder / "submit.sh"
    submit.write_text(_submit([kind for kind in plan.kinds if kinds[kind]]))
    submit.chmod(0o755)
    return f"{len(todo)} runs in {folder}; start them with: bash {shlex.quote(str(submit))}"


def _head(plan: Plan, name: str, log: str, lines: list[str]) -> str:
    log = str((plan.out / "logs" / log).absolute())
    settings = [f"--job-name=sweep-{name}", f"--output={log}", "--open-mode=append", *lines]
    head = ["#!/usr/bin/env bash", *(f"#SBATCH {line}" for line in settings)]
    return "\n".join([*head, "set -uo pipefail", f"cd {shlex.quote(os.getcwd())}"])


def _array(plan: Plan, kind: str, nodes: list[Node], args: argparse.Namespace) -> str:
    limit = f"%{args.jobs}" if args.jobs else ""
    # A training gets SIGTERM two minutes before its time limit, or when it is preempted, and saves.
    lines = [f"--array=0-{len(nodes) - 1}{limit}", "--signal=TERM@120", "--requeue", *args.option]
    cases = []
    for i, node in enumerate(nodes):
        needs = " ".join(_quoted(plan.nodes[need].marker) for need in node.needs)
        cases += [f"{i}) # {node.key}", f"  marker={_quoted(node.marker)}", f"  needs=({needs})"]
        cases += [f"  command=({shlex.join([sys.executable, *node.command])})", "  ;;"]
    # Only trainings can be several processes.
    one = "" if kind in plan.sweep.stages else " --nodes=1 --ntasks=1"
    body = f"""
case "$SLURM_ARRAY_TASK_ID" in
{chr(10).join(cases)}
esac
if [ -e "$marker" ]; then exit 0; fi
for need in ${{needs[@]+"${{needs[@]}}"}}; do
  if [ ! -e "$need" ]; then
    echo "not run: it needs $need" >&2
    exit 1
  fi
done
srun{one} "${{command[@]}}"
code=$?
if [ "$code" -eq 75 ]; then # preempted and saved: it resumes when there is a free machine
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
"""
    return _head(plan, kind, f"{kind}-%a.log", lines) + body


def _collect(plan: Plan, collect: list[str], args: argparse.Namespace) -> str:
    # The table does not need a GPU: of the user's options, only these are used.
    kept = ("--partition", "-p", "--account", "-A", "--qos", "-q", "--time", "-t")
    lines = [text for text in args.option if text.replace("=", " ").split()[0] in kept]
    head = _head(plan, "collect", "collect.log", ["--ntasks=1", *lines])
    return f"{head}\n{shlex.join([sys.executable, *collect])}\n"


def _submit(kinds: list[str]) -> str:
    lines = [
        "#!/usr/bin/env bash",
        "# Each array waits for the end of the one before it. A run without its inputs fails; the",
        "# others continue.",
        "set -euo pipefail",
        'cd "$(dirname "$0")"',
        'after=""',
        f"for kind in {' '.join([*kinds, 'collect'])}; do",
        '  job=$(sbatch --parsable $after "$kind.sbatch")',
        '  echo "$kind: job $job"',
        '  after="--dependency=afterany:${job%%;*}"',
        "done",
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: pathlib.Path) -> str:
    return shlex.quote(str(path))
