"""Runs the nodes of a plan here, several at a time, each as its own process with its own log."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from genhmr_jax.evaluate.sweep.plan import Node, Plan
from genhmr_jax.io.errors import InputError

STOPPED = 75  # genhmr_jax.main's exit code when it was told to stop and has saved


class Process(Protocol):
    """What the scheduler needs of a running process; subprocess.Popen has it."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


Launch = Callable[[Node, int], Process]  # node, number of the slot it runs in


@dataclasses.dataclass
class Outcome:
    """What became of the nodes: how many were done before, done now, and why the others are not."""

    before: int = 0
    done: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


def run(
    plan: Plan, launch: Launch, jobs: int, say: Callable[[str], None] = print, pause: float = 0.2
) -> Outcome:
    """Runs what is not done, `jobs` at a time; a failure stops only what needs it.

    On KeyboardInterrupt (also SIGTERM) the running processes are told to stop, and get a minute to
    save.
    """
    outcome, running, slots = Outcome(), {}, list(range(jobs))
    todo = {key: node for key, node in plan.nodes.items() if not node.done}
    outcome.before, total, started = len(plan.nodes) - len(todo), len(todo), 0
    with _sigterm_interrupts():
        try:
            while todo or running:
                for key, (process, slot, began) in list(running.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del running[key]
                    slots.append(slot)
                    if code == 0 and plan.nodes[key].done:
                        outcome.done += 1
                        say(f"{key} is done, {time.monotonic() - began:.0f} s")
                    else:
                        outcome.failed[key] = _reason(plan, key, code)
                        say(f"{key} failed: {outcome.failed[key]}")
                for key, node in list(todo.items()):
                    if broken := [need for need in node.needs if need in outcome.failed]:
                        outcome.failed[key] = f"not run: it needs {broken[0]}"
                        del todo[key]
                    elif slots and not any(need in todo or need in running for need in node.needs):
                        slot = slots.pop(0)
                        running[key] = (launch(node, slot), slot, time.monotonic())
                        del todo[key]
                        started += 1
                        say(f"[{started}/{total}] {key} for {node.point}")
                if running:
                    time.sleep(pause)
        except BaseException:
            _stop([process for process, _, _ in running.values()])
            raise
    return outcome


def launcher(plan: Plan, devices: list[str], jobs: int) -> Launch:
    """Starts a node as a process whose output goes to OUT/logs/KEY.log; `devices` are dealt out
    evenly to the slots."""
    logs = plan.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (plan.out / "runs").mkdir(exist_ok=True)

    def launch(node: Node, slot: int) -> Process:
        mine = {"CUDA_VISIBLE_DEVICES": ",".join(devices[slot::jobs])} if devices else {}
        environment: Mapping[str, str] = os.environ | mine
        with open(logs / f"{node.key}.log", "ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then tells the others
            # to save.
            return subprocess.Popen(
                [sys.executable, *node.command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    return launch


@contextlib.contextmanager
def alone(out: pathlib.Path) -> Iterator[None]:
    """Holds the sweep's folder: two commands in one folder would train in the same workdirs.

    Raises:
      InputError: another command runs there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                out, "another genhmr sweep is running there", "wait for it, or give another --out"
            ) from error
        yield


def _reason(plan: Plan, key: str, code: int) -> str:
    """The last line that a failed node wrote, and where the rest is."""
    log = plan.out / "logs" / f"{key}.log"
    if code == STOPPED:
        return "stopped from outside, and saved: the same command goes on with it"
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = f"exit code {code}" if code else "ended well but left no result"
    return f"{what}, {lines[-1][:300] if lines else 'no output'} ({log})"


def _stop(processes: list[Process], patience: float = 60.0) -> None:
    """SIGTERM, a minute to save, SIGKILL."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + patience
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(0.1)
    for process in processes:
        if process.poll() is None:
            process.kill()


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM acts like Ctrl-C, so that no process is left behind. (Only a program's main thread
    may say so.)"""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
