"""Starts N processes of one training run on this machine, as if they were N hosts: on CPU devices,
or each with its share of the GPUs.

    python launch/local_multiprocess.py --processes 2 --devices 4 -- python -m genhmr_jax.main
    --config=configs/SYSTEM/RECIPE.py --workdir=DIR

The processes find each other by GENHMR_COORDINATOR, GENHMR_NUM_PROCESSES and GENHMR_PROCESS_ID.
Their lines come out with the number of the process in front. SIGTERM and SIGINT are passed on. If
one fails, the others are stopped. Exit code: 0 if all of them finished; 75 if they were told to
stop and have saved (the same command goes on); else that of the first one that failed (128 + n for
signal n).
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

RESUME = 75  # EX_TEMPFAIL, what genhmr_jax.main exits with once it has saved
GRACE_S = 10.0  # between asking the other processes to stop and killing them
SAVE_S = 600.0  # for the other processes to finish saving, once the first has


def run(
    command: Sequence[str], processes: int, devices: int | None = None, gpus: int | None = None
) -> int:
    """Runs `command` in `processes` processes and returns the exit code described above.

    Args:
      devices: CPU devices of each process (and no GPU).
      gpus: GPUs of each process.
    """
    coordinator = f"127.0.0.1:{_free_port()}"
    environments = [
        _environment(os.environ, coordinator, processes, i, devices, gpus) for i in range(processes)
    ]
    children: list[subprocess.Popen] = []
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        for child in children:
            _signal(child, signal.SIGKILL if received.count(signal.SIGINT) > 1 else number)

    previous = {
        number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        for environment in environments:
            if not received:
                children.append(_start(command, environment))
        readers = [t for i, child in enumerate(children) for t in _show(i, child)]
        code = _wait(children)
        for reader in readers:
            reader.join(timeout=5)  # a grandchild that lives on may keep the pipe open
        return 128 + received[0] if received and not children else code
    finally:
        for child in children:
            _signal(child, signal.SIGKILL)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _environment(
    base: Mapping[str, str],
    coordinator: str,
    count: int,
    number: int,
    devices: int | None,
    gpus: int | None,
) -> dict:
    """The environment of process `number` of `count`."""
    found = dict(
        base,
        GENHMR_COORDINATOR=coordinator,
        GENHMR_NUM_PROCESSES=str(count),
        GENHMR_PROCESS_ID=str(number),
        PYTHONUNBUFFERED="1",
    )
    if devices:
        found |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    if gpus:
        given = [gpu for gpu in base.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        visible = given or [str(i) for i in range(count * gpus)]
        if len(visible) < count * gpus:
            raise SystemExit(
                f"local_multiprocess: {count} x {gpus} GPUs asked for, but CUDA_VISIBLE_DEVICES "
                f"names {len(visible)}"
            )
        found["CUDA_VISIBLE_DEVICES"] = ",".join(visible[number * gpus : (number + 1) * gpus])
    return found


def _start(command: Sequence[str], environment: dict) -> subprocess.Popen:
    """A child in a session of its own (so that Ctrl-C reaches it once, by us) that does not outlive
    this process."""
    end_with_parent = None
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        end_with_parent = lambda: libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def _show(number: int, child: subprocess.Popen) -> list[threading.Thread]:
    """Copies the child's lines to our stdout and stderr, with its number in front."""

    def copy(source: IO[bytes], sink: IO[bytes]) -> None:
        for line in source:
            sink.write(b"[%d] %s\n" % (number, line.rstrip(b"\n")))
            sink.flush()

    pairs = ((child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer))
    threads = [threading.Thread(target=copy, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    return threads


def _wait(children: Sequence[subprocess.Popen]) -> int:
    """Waits for all; once one has failed (or saved and stopped), gives the others a limited time to
    end too."""
    first, deadline, killed = 0, float("inf"), False
    while True:
        running = [child for child in children if child.poll() is None]
        codes = [_exit_code(child) for child in children if child not in running]
        failed = [code for code in codes if code not in (0, RESUME)]
        if failed and first in (0, RESUME):
            first, deadline = failed[0], time.monotonic() + GRACE_S
            for child in running:
                _signal(child, signal.SIGTERM)
        elif RESUME in codes and not first:
            first, deadline = RESUME, time.monotonic() + SAVE_S
        if not running:
            return first
        if time.monotonic() > deadline and not killed:
            killed = True
            for child in running:
                _signal(child, signal.SIGKILL)
        time.sleep(0.05)


def _exit_code(child: subprocess.Popen) -> int:
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _signal(child: subprocess.Popen, number: int) -> None:
    """Sends a signal to the child and what it started."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:  # it ended just now
            pass


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Starts N processes of one training run on this machine."
    )
    parser.add_argument("--processes", type=int, required=True, help="how many")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--devices", type=int, help="CPU devices of each process; GPUs are left alone"
    )
    kind.add_argument(
        "--gpus", type=int, help="GPUs of each process: the first ones go to process 0, and so on"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command to run")
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no command: give -- python -m genhmr_jax.main --config=... --workdir=...")
    if min(args.processes, args.devices or 1, args.gpus or 1) < 1:
        parser.error("--processes, --devices and --gpus count from 1")
    return run(command, args.processes, args.devices, args.gpus)


if __name__ == "__main__":
    sys.exit(main())
