"""One run of the campaign: a training that is disturbed, resumed until it ends, and compared."""

import contextlib
import ctypes
import json
import pathlib
import random
import re
import shutil
from typing import Any

import numpy as np

from faults_lib import child
from faults_lib.draw import HANG_S, damage, damage_checkpoint, draw, finished
from faults_lib.systems import STEPS, System, arguments
from genhmr_jax.io.model_folder import read_arrays

MOST_ATTEMPTS = 12
RESUME = 75
# What an attempt must print for the fault to count as detected.
WORDS = {
    "full disk": r"No space left on device",
    "read-only work directory": r"Read-only file system",
    "a batch that never comes": r"process \d: hangs at the batch of step",
    "one process of two is stopped": r"process 1: does not answer|heartbeat",
    "checkpoint": r"cannot be read|can be read",
}


class Run:
    """A run in `disk`/run. `out` is the folder of the campaign, `number` seeds the faults."""

    def __init__(self, system: System, number: int, seed: int, out: pathlib.Path, may_mount: bool):
        self.system, self.out, self.may_mount = system, out, may_mount
        self.rng = random.Random(f"{seed}/{number}")
        self.disk, self.workdir = out / "disk", out / "disk" / "run"
        self.data, self.log = out / "data", out / "logs" / f"{number:03d}"
        self.attempts: list[dict[str, Any]] = []
        self.bad: dict[int, int] = {}  # damaged checkpoints by step, with the number of the folder
        self.unread: list[dict[str, Any]] = []  # damages that no attempt has come to yet

    def do(self, faults: int) -> dict[str, Any]:
        """Run with at least `faults` faults, if the training is long enough for them."""
        shutil.rmtree(self.workdir, ignore_errors=True)
        self.workdir.mkdir(parents=True)
        self.log.mkdir(parents=True, exist_ok=True)
        struck, ended = 0, False
        while not ended and len(self.attempts) < MOST_ATTEMPTS:
            attempt = self._attempt(struck < faults)
            self.attempts.append(attempt)
            struck += len(attempt["faults"])
            ended = attempt["code"] == 0 and not attempt["waits"]
        return self._judged(ended)

    def _attempt(self, disturbed: bool) -> dict[str, Any]:
        """One start of the training command."""
        steps, before = finished(self.workdir), []
        if disturbed and steps and not self._still_bad() and self.rng.random() < 0.6:
            before.append(damage_checkpoint(self.rng, self.workdir, self.out / "copies"))
            self.bad = {steps[-1]: self._folder(steps[-1])}
        elif disturbed and self.system.records and self.rng.random() < 0.5:
            before.append(self._damage_records())
        faults, expected = [], self._expected(steps)
        # The damage of records must be detected by an attempt that could finish.
        if disturbed and not (before and before[0]["kind"].startswith("record")):
            done = steps[-1] if steps else 0
            fault = draw(self.rng, self.system, done, self.may_mount)
            fault |= {"workdir": str(self.workdir), "disk": str(self.disk)}
            faults.append(fault | {"fired": str(self.disk / "fired")})
        name = f"{len(self.attempts):02d}.log"
        code, seconds = self._start(faults, self.log / name)
        fired = (self.disk / "fired").exists()
        (self.disk / "fired").unlink(missing_ok=True)
        (self.disk / "filler").unlink(missing_ok=True)
        self._unmount()
        text = (self.log / name).read_text(errors="replace")
        struck = before + [f for f in faults if fired]
        for fault in struck:
            fault["detected"] = self._detected(fault, code, text)
        waits = self._repair(before, code, text)
        start = int((re.findall(r"from step (\d+)", text) or [-1])[0])
        # An attempt may be killed before it reads the damaged checkpoint: the next one counts.
        self.unread += [fault for fault in before if fault["kind"].startswith("checkpoint")]
        for fault in self.unread:
            found = fault.get("detected") or self._detected(fault, code, text)
            fault |= {"detected": found, "restored": start}
        if start >= 0 or (self.unread and self.unread[0]["detected"]):
            self.unread = []
        for fault in struck:
            for key in ("workdir", "disk", "fired"):
                fault.pop(key, None)
        return {
            "code": code,
            "seconds": round(seconds, 2),
            "from": start,
            "expected": expected,
            "before": steps,
            "faults": struck,
            "traceback": "Traceback (most recent call last)" in text,
            "waits": waits,
            "log": f"{self.log.name}/{name}",
        }

    def _start(self, faults: list[dict], log: pathlib.Path) -> tuple[int, float]:
        argv = arguments(self.system, self.workdir, self.out, self.data)
        if any(fault["action"] in ("hang", "stop") for fault in faults):
            argv.append(f"--config.hang_after={HANG_S}")
        plan = {"argv": argv, "faults": faults}
        if self.system.processes > 1:
            return child.launched(plan, self.system.processes, log)
        return child.forked(lambda: child.train(plan), log)

    def _damage_records(self) -> dict[str, str]:
        """Damage a file of the data; the original is kept."""
        file = self.rng.choice(sorted(self.data.glob(self.system.records)))
        shutil.copy(file, self.out / "original")
        return {"kind": f"record: {damage(self.rng, file)}", "file": str(file)}

    def _repair(self, before: list[dict], code: int, text: str) -> bool:
        """What a person does after the message; whether the next attempt needs it."""
        if before and before[0]["kind"].startswith("record"):
            shutil.copy(self.out / "original", before[0]["file"])
            return code != 0
        # The attempt before this one may have damaged it, and been killed before it was read.
        if self.bad and re.search("none of the checkpoints", text):
            shutil.rmtree(self.workdir / "checkpoints")
            shutil.copytree(self.out / "copies", self.workdir / "checkpoints")
            return True
        return False

    def _unmount(self) -> None:
        if self.may_mount:
            libc = ctypes.CDLL(None)
            while libc.umount2(str(self.workdir).encode(), 2) == 0:
                pass

    def _detected(self, fault: dict[str, Any], code: int, text: str) -> bool | None:
        """Whether the program reported the fault; None where there is nothing to report."""
        kind = fault["kind"]
        if kind.startswith("SIGTERM"):
            return code == RESUME and "preempted: saved at step" in text
        if kind.startswith("record"):
            return code == 1 and pathlib.Path(fault["file"]).name in text
        if kind == "one process of two dies":
            return code not in (0, RESUME)
        words = WORDS.get(kind) or WORDS.get(kind.partition(":")[0])
        return None if words is None else re.search(words, text) is not None

    def _folder(self, step: int) -> int:
        return (self.workdir / "checkpoints" / str(step)).stat().st_ino

    def _still_bad(self) -> set[int]:
        """Damaged checkpoints that were not written again."""
        there = finished(self.workdir)
        return {s for s, folder in self.bad.items() if s in there and self._folder(s) == folder}

    def _expected(self, steps: list[int]) -> list[int]:
        """The steps from which an attempt may start: those of the last good checkpoint and of a
        damaged one after it, because not every file of a checkpoint is needed."""
        bad = self._still_bad()
        good = max((step for step in steps if step not in bad), default=0)
        return [step for step in (0, *steps) if step == good or (step > good and step in bad)]

    def _judged(self, ended: bool) -> dict[str, Any]:
        """The run with its comparison to the unbroken one."""
        reference = self.out / "refs" / self.system.name
        problems = []
        if not ended:
            problems.append(f"not finished after {len(self.attempts)} attempts")
        else:
            problems += differences(reference, self.workdir)
        for number, attempt in enumerate(self.attempts):
            if attempt["from"] >= 0 and attempt["from"] not in attempt["expected"]:
                start, wanted = attempt["from"], attempt["expected"]
                problems.append(f"attempt {number} started from {start}, not {wanted}")
        litter = sorted(
            str(path.relative_to(self.workdir))
            for path in self.workdir.rglob("*")
            if path.name.startswith(".") or "tmp" in path.name
        )
        seconds = sum(attempt["seconds"] for attempt in self.attempts)
        return {
            "system": self.system.name,
            "problems": problems,
            "litter": litter,
            "seconds": round(seconds, 1),
            "steps_again": steps_again(self.workdir) if ended else None,
            "attempts": self.attempts,
        }


def differences(reference: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """How the final weights and the final state differ from the unbroken run's."""
    found = []
    wanted, have = read_arrays(reference / "model"), read_arrays(workdir / "model")
    different = [n for n in wanted if n not in have or not np.array_equal(wanted[n], have[n])]
    if different or wanted.keys() != have.keys():
        found.append(f"{len(different)} of {len(wanted)} arrays of the model differ")
    sums = [read_sums(path) for path in (reference, workdir)]
    if sums[0] != sums[1]:
        found.append("the final states differ")
    return found


def read_sums(workdir: pathlib.Path) -> Any:
    """The checksums of the state after the last step."""
    with contextlib.suppress(OSError, ValueError):
        file = workdir / "checkpoints" / str(STEPS) / "data" / "metadata"
        return json.loads(file.read_text())["checksums"]
    return str(workdir)


def steps_again(workdir: pathlib.Path) -> int:
    """Steps that were computed more than once."""
    rows = []
    for line in (workdir / "metrics.jsonl").read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return len([row for row in rows if "loss" in row]) - STEPS
