"""Fault injection for training: every system is disturbed, resumed, and compared.

    python tools/reliability/faults.py --faults 200 --seed 0 --out runs/faults

1. Tiny data are made, and each system is trained once without a fault.
2. Runs of random systems meet random faults (faults_lib/draw.py) until there are enough of them:
   processes are killed in every phase, the disk is full or read-only, checkpoints and records are
   damaged, processes hang, die, or get many SIGTERM. The training command is repeated until it
   ends. Between two attempts only that is done which a message asks for.
3. The final weights and the final state must be those of the unbroken run, bit by bit, and each
   attempt must start from the last good checkpoint.

As root, the runs are on a small file system of their own in a private mount namespace; else the
full disk and the read-only directory are left out. The same command goes on where it was stopped.
It prints a table and writes OUT/results.json.
"""

import argparse
import collections
import ctypes
import json
import os
import pathlib
import random
import shutil
import sys
from typing import Any

from faults_lib import building, child, systems
from faults_lib.inject import mount
from faults_lib.runs import Run

FAULTS_OF_A_RUN = (4, 7)
DISK = "256M"
MS_REC, MS_PRIVATE, CLONE_NEWNS = 16384, 1 << 18, 0x20000
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fault injection for training.")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--only", default="", help="systems whose names begin with this")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child.train(json.loads(args.child.read_text()))
        return
    if not args.out:
        parser.error("give --out")
    out = args.out.resolve()
    for name in ("data", "refs", "logs", "disk"):
        (out / name).mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": FLAGS,
        "JAX_COMPILATION_CACHE_DIR": str(out / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    child.warm_up()
    prepare(out)
    reference(out, args.only)
    may_mount = own_disk(out / "disk")
    campaign(out, args.faults, args.seed, args.only, may_mount)
    print(table(read(out / "runs.jsonl"), out))


def prepare(out: pathlib.Path) -> None:
    """Make the data, each kind in a process of its own."""
    data = out / "data"
    images, release = data / "images", data / "release"
    jobs = {
        "poses.npz": lambda: systems.write_poses(data / "poses.npz"),
        "angles.npz": lambda: systems.write_angles(data / "angles.npz"),
        "images": lambda: systems.write_images(images),
        "release": lambda: systems.write_release(release, images),
        "built": lambda: systems.build_photos(data / "built", release),
        "crops": lambda: systems.compute_features(data / "crops", images, "vit_s"),
        "people": lambda: systems.compute_features(data / "people", images, "early"),
        "hands": lambda: systems.write_hands(data / "hands"),
    }
    for name, job in jobs.items():
        if not (data / f"{name}.done").exists():
            remove(data / name)
            must(f"data {name}", child.forked(job, out / "logs" / f"data_{name}.log"), out)
            (data / f"{name}.done").touch()


def reference(out: pathlib.Path, only: str) -> None:
    """Train each chosen system without a fault, and those that it needs."""
    chosen = [system for system in systems.SYSTEMS if system.name.startswith(only)]
    needed = {name for system in chosen for name in (system.name, *system.needs)}
    for system in systems.SYSTEMS:
        if system.name not in needed:
            continue
        workdir, log = out / "refs" / system.name, out / "logs" / f"unbroken_{system.name}.log"
        times = out / "refs" / f"{system.name}.json"
        if times.exists():
            continue
        shutil.rmtree(workdir, ignore_errors=True)
        plan = {"argv": systems.arguments(system, workdir, out, out / "data"), "faults": []}
        if system.processes > 1:
            ended = child.launched(plan, system.processes, log)
        else:
            ended = child.forked(lambda: child.train(plan), log)  # noqa: B023 (called at once)
        must(f"unbroken {system.name}", ended, out)
        times.write_text(json.dumps({"seconds": ended[1]}))
        print(f"unbroken {system.name}: {ended[1]:.1f} s", flush=True)


def must(name: str, ended: tuple[int, float], out: pathlib.Path) -> None:
    """Stop the campaign if a step of its preparation has failed."""
    if ended[0]:
        sys.exit(f"{name} ended with {ended[0]}; see {out}/logs")


def own_disk(folder: pathlib.Path) -> bool:
    """Mount a small file system that no other process sees. Returns whether that is allowed."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS):
        return False
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("faults", str(folder), "tmpfs", 0, f"size={DISK}")
    return True


def campaign(out: pathlib.Path, faults: int, seed: int, only: str, may_mount: bool) -> None:
    """Do runs until there are enough faults; runs that are recorded count."""
    every = {system.name: system for system in systems.SYSTEMS}
    every |= dict.fromkeys(building.builds(out / "data"))
    chosen = [name for name in every if name.startswith(only)]
    done = read(out / "runs.jsonl")
    count = sum(len(attempt["faults"]) for run in done for attempt in run["attempts"])
    number = len(done)
    while count < faults:
        order = random.Random(f"{seed}/{number // len(chosen)}").sample(chosen, len(chosen))
        name = order[number % len(chosen)]
        wanted = random.Random(f"{seed}/{number}/faults").randint(*FAULTS_OF_A_RUN)
        wanted = min(wanted, faults - count)
        if every[name]:
            run = Run(every[name], number, seed, out, may_mount).do(wanted)
        else:
            run = building.run(name, number, seed, out, wanted, may_mount)
        with open(out / "runs.jsonl", "a") as file:
            file.write(json.dumps(run) + "\n")
        count += sum(len(attempt["faults"]) for attempt in run["attempts"])
        number += 1
        problems = "; ".join(run["problems"]) or "equal"
        print(f"run {number - 1} {name}: {count} faults, {problems}", flush=True)


def read(file: pathlib.Path) -> list[dict[str, Any]]:
    """The runs that are recorded."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(runs: list[dict[str, Any]], out: pathlib.Path) -> str:
    """The table of kinds of faults; also written as JSON."""
    rows: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for run in runs:
        for attempt in run["attempts"]:
            for fault in attempt["faults"]:
                row = rows[fault["kind"]]
                row["injected"] += 1
                row[outcome(run, attempt, fault)] += 1
                row["lost" if run["problems"] else "survived"] += 1
    names = ("injected", "reported", "harmless", "silent", "survived", "lost")
    lines = ["| fault | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    total = collections.Counter()
    for kind in sorted(rows):
        lines.append(f"| {kind} | " + " | ".join(str(rows[kind][name]) for name in names) + " |")
        total.update(rows[kind])
    lines.append("| all | " + " | ".join(str(total[name]) for name in names) + " |")
    unbroken = {
        file.stem: json.loads(file.read_text())["seconds"] for file in (out / "refs").glob("*.json")
    }
    attempts = sum(len(run["attempts"]) for run in runs)
    again = sum(run["steps_again"] or 0 for run in runs)
    trained = [run for run in runs if run["system"] in unbroken]
    lost = sum(run["seconds"] - unbroken[run["system"]] for run in trained)
    lines.append(
        f"{len(runs)} runs, {attempts} attempts; {again} steps beside the "
        f"{systems.STEPS * len(trained)} of {len(trained)} trainings, which lost {lost:.0f} s"
    )
    report = {
        "rows": rows,
        "total": total,
        "runs": len(runs),
        "attempts": attempts,
        "steps_again": again,
        "seconds_lost": round(lost),
        "unbroken_s": unbroken,
    }
    (out / "results.json").write_text(json.dumps(report, indent=1))
    return "\n".join(lines)


def outcome(run: dict[str, Any], attempt: dict[str, Any], fault: dict[str, Any]) -> str:
    """What the program made of a fault.

    "reported": it ended, or fell back, with a message about the fault. "harmless": there was
    nothing to report. The process was killed; or the attempt ended for another fault, which was
    reported; or the attempt ended well, because there was still
    enough room on the disk, the damaged record is not needed, or the run was over; or the damaged
    checkpoint was restored, and the run ended with the bits of the unbroken one, so that the damage
    was in a file that a restore does not need. "silent": the attempt failed without the message, or
    the program went on with wrong numbers.
    """
    if fault["detected"]:
        return "reported"
    others = [other for other in attempt["faults"] if other is not fault]
    if fault["detected"] is None or any(other["detected"] for other in others):
        return "harmless"
    if fault["kind"].startswith("checkpoint"):
        fine = fault.get("restored") == fault["step"]
    else:
        fine = attempt["code"] == 0
    return "harmless" if fine and not run["problems"] else "silent"


def remove(path: pathlib.Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
