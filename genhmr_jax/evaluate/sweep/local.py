"""Run the nodes of a plan on this machine, each as a process with a log."""

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

STOPPED = 75  # exit code of genhmr_jax.main after it was preempted and has saved


class Process(Protocol):
    """The methods of a process that the scheduler uses, such as those of subprocess.Popen."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


Launch = Callable[[Node, int], Process]  # arguments: the node, and the index of its slot


@dataclasses.dataclass
class Outcome:
    """The numbers of nodes that were done before and now, and the reasons of failures by node."""

    before: int = 0
    done: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


def run(
    plan: Plan, launch: Launch, jobs: int, say: Callable[[str], None] = print, pause: float = 0.2
) -> Outcome:
    """Run the nodes that are not done, `jobs` at a time.

    After a failure, only nodes that need the failed one are not run. On KeyboardInterrupt or
    SIGTERM, the running processes get SIGTERM and one minute to save.

    Args:
      plan: the nodes.
      launch: starts a node.
      jobs: number of processes at a time.
      say: prints a line about the progress.
      pause: seconds between two checks of the processes.
    """
    outcome, running, slots = Outcome(), {}, list(range(jobs))
    todo = {key: node for key, node in plan.nodes.items() if not node.done}
    outcome.before, total, started = len(plan.nodes) - len(todo), len(todo), 0
    with _sigterm_interrupts():
        try:
            while todo or running:
                # 1. Processes that have ended.
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

                # 2. Start nodes whose inputs exist, in free slots.
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
    """A function that starts a node as a process whose output goes to OUT/logs/KEY.log.

    The `devices` are distributed evenly over the slots.
    """
    logs = plan.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (plan.out / "runs").mkdir(exist_ok=True)

    def launch(node: Node, slot: int) -> Process:
        mine = {"CUDA_VISIBLE_DEVICES": ",".join(devices[slot::jobs])} if devices else {}
        environment: Mapping[str, str] = os.environ | mine
        with open(logs / f"{node.key}.log", "ab") as log:
            # With a separate session, Ctrl-C reaches only this scheduler, which then stops the
            # processes and gives them time to save.
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
    """Lock the sweep's folder: two commands in one folder would train in the same workdirs.

    Raises:
      InputError: another command has the lock.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            problem = "another genhmr sweep is running there"
            raise InputError(out, problem, "wait for its end, or give another --out") from error
        yield


def _reason(plan: Plan, key: str, code: int) -> str:
    """The reason of a failure: the exit code, the last line of the log, and the path of the log."""
    log = plan.out / "logs" / f"{key}.log"
    if code == STOPPED:
        return "preempted, and saved: the same command resumes it"
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = f"exit code {code}" if code else "ended well but left no result"
    return f"{what}, {lines[-1][:300] if lines else 'no output'} ({log})"


def _stop(processes: list[Process], patience: float = 60.0) -> None:
    """Send SIGTERM, wait for `patience` seconds, then send SIGKILL."""
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
    """Treat SIGTERM like Ctrl-C, so that no process is left running.

    Signal handlers can be set only in the main thread; in another thread this has no effect.
    """

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
