"""Random faults: which one, when, and damage to files between two attempts."""

import pathlib
import random
import shutil
from typing import Any

from faults_lib.inject import STORM
from faults_lib.systems import EVERY, STEPS, System

# Kind of the table -> how often it is drawn, for a run of one process and of several.
KINDS = {
    "kill -9 at a random time": (3, 1),
    "kill -9 during the restore": (3, 0),
    "kill -9 during the compilation": (2, 0),
    "kill -9 while a batch is loaded": (2, 0),
    "kill -9 in a step": (4, 0),
    "kill -9 in a save": (6, 1),
    "kill -9 between two changes of a folder": (6, 1),
    "kill -9 in the evaluation or export": (2, 0),
    "SIGTERM once": (2, 1),
    "SIGTERM, 20 in 2 s": (2, 1),
    "full disk": (4, 1),
    "read-only work directory": (2, 0),
    "a batch that never comes": (2, 2),
    "one process of two dies": (0, 3),
    "one process of two is stopped": (0, 2),
}
DAMAGES = ("flipped bit", "truncated file", "missing file", "zeros")
ROOT_ONLY = ("full disk", "read-only work directory")
HANG_S = 45.0  # --config.hang_after of an attempt that hangs


def draw(rng: random.Random, system: System, done: int, may_mount: bool) -> dict[str, Any]:
    """A fault inside the process (see inject.py), with its kind.

    Args:
      done: the step of the newest checkpoint.
      may_mount: whether file systems can be mounted.
    """
    column = 0 if system.processes == 1 else 1
    kinds = {k: v[column] for k, v in KINDS.items() if may_mount or k not in ROOT_ONLY}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    step = rng.randint(min(done + 1, STEPS), min(done + EVERY + 2, STEPS))
    save = min(STEPS, (step + EVERY - 1) // EVERY * EVERY)
    place = lambda text, longest=0.0: {"place": text, "seconds": rng.uniform(0, longest)}
    in_step = {"place": f"step {step}", "seconds": 0.0}
    fault: dict[str, Any] = {"kind": kind, "action": "kill", "process": 0}
    if kind == "kill -9 at a random time":
        fault["when"] = {"seconds": rng.uniform(0.1, 9.0)}
    elif kind == "kill -9 during the restore":
        fault["when"] = place("the restore", 0.8)
    elif kind == "kill -9 during the compilation":
        fault["when"] = place(rng.choice(["the start of the steps", f"step {done + 1}"]), 3.0)
    elif kind == "kill -9 while a batch is loaded":
        fault["when"] = {"load": rng.randint(1, 5)}
    elif kind == "kill -9 in a step":
        fault["when"] = place(f"step {step}", 0.03)
    elif kind == "kill -9 in a save":
        fault["when"] = place(f"the save of step {save}", 0.5)
    elif kind == "kill -9 between two changes of a folder":
        fault["when"] = {"file": rng.randint(1, 60), "after": rng.random() < 0.5}
    elif kind == "kill -9 in the evaluation or export":
        fault["when"] = place(rng.choice(["the evaluation", "the export"]), 0.3)
    elif kind.startswith("SIGTERM"):
        signals = 1 if kind == "SIGTERM once" else STORM
        when = rng.choice([in_step, place("the start of the steps", 3.0), place("the save", 0.3)])
        fault |= {"action": "terminate", "signals": signals, "when": when}
    elif kind == "full disk":
        when = rng.choice([place("the restore"), in_step, place("the save", 0.1)])
        when = rng.choice([when, place("the export")]) if done >= STEPS - EVERY else when
        left = rng.choice([0, rng.randint(0, 20_000), rng.randint(0, 3_000_000)])
        fault |= {"action": "fill", "left": left, "when": when}
    elif kind == "read-only work directory":
        when = rng.choice([{"seconds": 0.0}, in_step, place("the save"), place("the export")])
        fault |= {"action": "read only", "when": when}
    elif kind == "a batch that never comes":
        fault |= {"action": "hang", "when": {"load": rng.randint(1, 4)}}
        fault["process"] = rng.randrange(system.processes)
    elif kind == "one process of two dies":
        when = rng.choice([{"seconds": rng.uniform(1, 9)}, in_step, place("the save", 0.5)])
        fault |= {"process": 1, "when": when}
    elif kind == "one process of two is stopped":
        fault |= {"action": "stop", "process": 1, "when": in_step}
    return fault


def damage(rng: random.Random, file: pathlib.Path) -> str:
    """Damage a file. Returns what was done."""
    kind, content = rng.choice(DAMAGES), bytearray(file.read_bytes())
    if kind == "missing file":
        file.unlink()
        return kind
    if kind == "flipped bit" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "truncated file":
        content = content[: rng.randrange(max(len(content), 1))]
    elif kind == "zeros":
        start = rng.randrange(max(len(content), 1))
        length = len(content[start : start + 4096])
        content[start : start + length] = bytes(length)
    file.write_bytes(content)
    return kind


def finished(workdir: pathlib.Path) -> list[int]:
    """The steps of the complete checkpoints."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def damage_checkpoint(
    rng: random.Random, workdir: pathlib.Path, copies: pathlib.Path
) -> dict[str, Any]:
    """Damage a file of the newest checkpoint, and keep a copy of all checkpoints.

    Files of array data are drawn as often as all others together, in proportion to their sizes:
    most of the smaller ones are indices that a restore does not read.
    """
    newest = workdir / "checkpoints" / str(finished(workdir)[-1])
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    arrays = [path for path in files if path.parent.name == "d"]
    if arrays and rng.random() < 0.5:
        file = rng.choices(arrays, [path.stat().st_size for path in arrays])[0]
    else:
        file = rng.choice(files)
    shutil.rmtree(copies, ignore_errors=True)
    shutil.copytree(workdir / "checkpoints", copies)
    kind = damage(rng, file)
    name = str(file.relative_to(workdir))
    return {"kind": f"checkpoint: {kind}", "file": name, "step": int(newest.name)}
