"""Time of calls and of whole processes: the one place where this package measures.

Run as a script, it is the small process that starts a measured one (`run_process`).
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

# Seconds: longer than OpenMP's threads spin after their work.
_TURN = 0.02


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, calls_a_round: int = 5
) -> dict[str, float]:
    """Median seconds of each call.

    The calls take turns, so that other work on the machine disturbs all alike. A turn begins with
    calls that do not count: the first one compiles, and the threads of the other library spin for
    some milliseconds. Then a call is repeated at least `calls_a_round` times, a short one more
    often.
    """
    times = _times(calls, rounds, calls_a_round)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one call that does not count."""
    return take_turns({"call": call}, 1, repeats)["call"]


def best_seconds(call: Callable[[], object], repeats: int) -> float:
    """Least seconds of a call, for what the machine can do at best."""
    return min(_times({"call": call}, 1, repeats)["call"])


def _times(
    calls: Mapping[str, Callable[[], object]], rounds: int, calls_a_round: int
) -> dict[str, list[float]]:
    """The seconds of all calls that count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            _repeat(call, 0)
            seconds[name] += _repeat(call, calls_a_round)
    return seconds


def _repeat(call: Callable[[], object], times: int) -> list[float]:
    """The seconds of each of so many calls, or of more if they take less than `_TURN` together."""
    seconds: list[float] = []
    while len(seconds) < times or sum(seconds) < _TURN:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


@dataclasses.dataclass(frozen=True)
class Process:
    """What a finished process has used.

    Attributes:
      wall: seconds from its start to its end.
      user, system: processor seconds, with those of its own child processes.
      peak: the largest resident memory of it or of one of its children, MiB.
      code: the exit code, negative for a signal.
      stdout, stderr: what it has written.
    """

    wall: float
    user: float
    system: float
    peak: float
    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def programs(self) -> int:
        """How many programs JAX has compiled, or read from its cache: run with COUNT_PROGRAMS."""
        return sum("Compiling " in line for line in self.stderr.splitlines())


COUNT_PROGRAMS = {"JAX_LOG_COMPILES": "1"}
"""The environment in which JAX writes one line on stderr for each program."""


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str] = {},
    cwd: str | None = None,
    accepted: Sequence[int] = (0,),
) -> Process:
    """Run a command to its end.

    A process inherits the peak memory of the one that starts it (Linux counts the memory from
    before the `exec`). Therefore a small process starts it and measures it.

    Args:
      command: the command.
      environment: variables in addition to those of this process.
      cwd: its working directory.
      accepted: exit codes that are no failure.

    Raises:
      RuntimeError: the command fails; the message has the end of its stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {"command": list(command), "cwd": cwd, "folder": folder}
        starter = [sys.executable, "-I", "-S", __file__, json.dumps(request)]
        done = subprocess.run(
            starter, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
        )
        texts = {}
        for name in ("stdout", "stderr"):
            with open(os.path.join(folder, name), errors="replace") as file:
                texts[name] = file.read()
    found = Process(**json.loads(done.stdout), **texts)
    if found.code not in accepted:
        end = "\n".join(found.stderr.splitlines()[-5:])
        raise RuntimeError(f"{' '.join(command)} exits with {found.code}: {end}")
    return found


def middle(runs: Sequence[Process]) -> Process:
    """The median of each figure of several runs; the texts are those of the last one."""
    fields = ("wall", "user", "system", "peak")
    figures = {name: statistics.median(getattr(run, name) for run in runs) for name in fields}
    return dataclasses.replace(runs[-1], **figures)


def _start(command: Sequence[str], cwd: str | None, folder: str) -> dict[str, float]:
    """Run a command with its output in files of a folder, and measure it."""
    with contextlib.ExitStack() as stack:
        out, err = (
            stack.enter_context(open(os.path.join(folder, name), "wb"))
            for name in ("stdout", "stderr")
        )
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
    kilo = 1024 if sys.platform != "darwin" else 1  # ru_maxrss is in KiB, on macOS in bytes
    return {
        "wall": wall,
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "peak": usage.ru_maxrss * kilo / 2**20,
        "code": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(_start(**json.loads(sys.argv[1]))))
