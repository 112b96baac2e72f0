"""Training processes of the campaign.

A process is forked from the campaign, which has imported the program but has used no device yet:
this saves the import. Runs of several processes are started by launch/local_multiprocess.py.
"""

import atexit
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from faults_lib.inject import inject
from faults_lib.systems import ROOT

MODULES = (
    "grain", "genhmr_jax.main", "genhmr_jax.train.loop", "genhmr_jax.systems.tokenizer.task",
    "genhmr_jax.systems.genhmr.task", "genhmr_jax.systems.posturehmr.task",
    "genhmr_jax.systems.posturehmr.mesh2d_task", "genhmr_jax.systems.maskhand.task",
    "genhmr_jax.systems.regressors.task", "genhmr_jax.systems.lifter.task",
    "genhmr_jax.systems.lifter.hand_task",
    "genhmr_jax.systems.biopose.task",
)  # fmt: skip
LONGEST_S = 400.0  # an attempt that takes longer hangs


def warm_up() -> None:
    """Import the program."""
    for name in MODULES:
        importlib.import_module(name)


def train(plan: dict[str, Any]) -> None:
    """Train in this process, with the faults of a plan."""
    mine = int(os.environ.get("GENHMR_PROCESS_ID", "0"))
    for fault in plan["faults"]:
        if fault.get("process", 0) == mine:
            inject(fault)
    from genhmr_jax.main import main

    main(plan["argv"])


def forked(job: Callable[[], None], log: pathlib.Path) -> tuple[int, float]:
    """Run `job` in a forked process with its output in a file.

    Returns:
      the exit code, negative for a signal, and the seconds that it took.
    """
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(job, log)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - started
        if time.monotonic() - started > LONGEST_S:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _run(job: Callable[[], None], log: pathlib.Path) -> None:
    """The forked process; never returns."""
    code = 1
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(target, number)
        job()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _leave(code)


def _leave(code: int) -> None:
    """End as the interpreter does: exit handlers, among them those of JAX, run first."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
    finally:
        os._exit(code)


def launched(plan: dict[str, Any], processes: int, log: pathlib.Path) -> tuple[int, float]:
    """Run a plan in several processes under the launcher."""
    file = log.with_suffix(".json")
    file.write_text(json.dumps(plan))
    launcher = [sys.executable, str(ROOT / "launch" / "local_multiprocess.py")]
    launcher += [f"--processes={processes}", "--devices=1", "--"]
    command = [*launcher, sys.executable, str(ROOT / "tools/reliability/faults.py")]
    started = time.monotonic()
    with open(log, "w") as output:
        child = subprocess.Popen(
            [*command, f"--child={file}"], stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = child.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            child.kill()  # its processes end with it
            code = child.wait()
    file.unlink()
    return code, time.monotonic() - started
