"""A sweep as SLURM jobs: one array for each kind of node, one after the other, then the table.
Shell scripts that a person can read."""

import argparse
import os
import pathlib
import shlex
import sys

from genhmr_jax.evaluate.sweep.plan import KINDS, Node, Plan
from genhmr_jax.io.errors import InputError

TRAININGS = ("tokenizer", "genhmr")


def write(plan: Plan, args: argparse.Namespace, collect: list[str]) -> str:
    """Writes OUT/slurm/{KIND,collect}.sbatch and submit.sh.

    Args:
      plan: nodes that are done are left out. OUT must be on a file system that all machines share.
      args: `option` (#SBATCH lines) and `jobs` (at most so many of an array at a time).
      collect: arguments of python that write the table.

    Returns:
      what to do next.

    Raises:
      InputError: an option that is none.
    """
    if wrong := [text for text in args.option if not text.startswith("-") or "\n" in text]:
        raise InputError(
            f"--option {wrong[0]}", "is no option of sbatch", "write it as --option=--partition=gpu"
        )
    folder = plan.out / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    (plan.out / "logs").mkdir(exist_ok=True)
    (plan.out / "runs").mkdir(exist_ok=True)
    for old in folder.glob("*.sbatch"):
        old.unlink()
    kinds = {
        kind: [n for n in plan.nodes.values() if n.kind == kind and not n.done] for kind in KINDS
    }
    for kind, nodes in kinds.items():
        if nodes:
            (folder / f"{kind}.sbatch").write_text(_array(plan, kind, nodes, args))
    (folder / "collect.sbatch").write_text(_collect(plan, collect, args))
    submit = folder / "submit.sh"
    submit.write_text(_submit([kind for kind in KINDS if kinds[kind]]))
    submit.chmod(0o755)
    count = sum(map(len, kinds.values()))
    return f"{count} runs in {folder}; start them with: bash {shlex.quote(str(submit))}"


def _head(plan: Plan, name: str, log: str, lines: list[str]) -> str:
    log = str((plan.out / "logs" / log).absolute())
    settings = [f"--job-name=sweep-{name}", f"--output={log}", "--open-mode=append", *lines]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {line}" for line in settings),
            "set -uo pipefail",
            f"cd {shlex.quote(os.getcwd())}",
        ]
    )


def _array(plan: Plan, kind: str, nodes: list[Node], args: argparse.Namespace) -> str:
    limit = f"%{args.jobs}" if args.jobs else ""
    # Two minutes before the end of its time (or when preempted) a training is told to save.
    lines = [f"--array=0-{len(nodes) - 1}{limit}", "--signal=TERM@120", "--requeue", *args.option]
    cases = []
    for i, node in enumerate(nodes):
        needs = " ".join(_quoted(plan.nodes[need].marker) for need in node.needs)
        command = shlex.join([sys.executable, *node.command])
        cases.append(
            f"{i}) # {node.key}\n  marker={_quoted(node.marker)}\n  needs=({needs})\n  command=({command})\n  ;;"
        )
    one = (
        "" if kind in TRAININGS else " --nodes=1 --ntasks=1"
    )  # only trainings know how to be several processes
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
if [ "$code" -eq 75 ]; then # saved and told to stop: it goes on as soon as there is room
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
"""
    return _head(plan, kind, f"{kind}-%a.log", lines) + body


def _collect(plan: Plan, collect: list[str], args: argparse.Namespace) -> str:
    places = (
        "--partition",
        "-p",
        "--account",
        "-A",
        "--qos",
        "-q",
        "--time",
        "-t",
    )  # a table needs no GPU
    lines = [
        "--ntasks=1",
        *(text for text in args.option if text.replace("=", " ").split()[0] in places),
    ]
    return (
        _head(plan, "collect", "collect.log", lines)
        + f"\n{shlex.join([sys.executable, *collect])}\n"
    )


def _submit(kinds: list[str]) -> str:
    lines = [
        "#!/usr/bin/env bash",
        "# Each array waits for the end of the one before; a run whose inputs failed says so, the others go on.",
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
