"""A process whose resident memory is recorded while it runs. Linux only."""

import dataclasses
import pathlib
import subprocess
import threading
import time
from collections.abc import Sequence

import numpy as np

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a watched process has used.

    Attributes:
      code: the exit code, negative for a signal.
      seconds: from its start to its end.
      times: of the samples, seconds since the start.
      memory: resident at these times, MiB.
    """

    code: int
    seconds: float
    times: np.ndarray
    memory: np.ndarray

    @property
    def peak(self) -> float:
        """MiB."""
        return float(self.memory.max(initial=0))

    def slope(self, items: int, after: float = 0.25) -> float:
        """Growth of the memory, in MiB for 1,000 items: a least-squares line.

        Args:
          items: that the process has done, at a constant rate.
          after: share of the time that does not count, because caches fill.
        """
        late = self.times > after * self.seconds
        if late.sum() < 3:
            return float("nan")
        a_second = np.polyfit(self.times[late], self.memory[late], 1)[0]
        return float(a_second * self.seconds / items * 1000)


def resident(pid: int) -> float:
    """Resident memory of a process, MiB; 0 if it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return kib[0] / 1024 if kib else 0.0


def run_watched(
    command: Sequence[str], stdout: pathlib.Path, stderr: pathlib.Path, interval: float = 1.0
) -> Usage:
    """Run a command to its end.

    Args:
      command: program and arguments.
      stdout, stderr: files for what it writes.
      interval: seconds between two samples of its memory.
    """
    times, memory, ended = [], [], threading.Event()
    start = time.monotonic()
    with stdout.open("wb") as out, stderr.open("wb") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)

        def sample() -> None:
            while not ended.wait(interval):
                if value := resident(process.pid):
                    times.append(time.monotonic() - start)
                    memory.append(value)

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        code = process.wait()
        ended.set()
        sampler.join()
    return Usage(code, time.monotonic() - start, np.array(times), np.array(memory))
