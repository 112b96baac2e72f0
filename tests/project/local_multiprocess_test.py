"""launch/local_multiprocess.py with real processes: computing together, failing, stopping."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.paths import ROOT

LAUNCH = ROOT / "launch"


def environment(**variables: str) -> dict[str, str]:
    """This environment without what clusters set; CPU, and one thread's worth of noise."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("GENHMR_", "SLURM_", "SKYPILOT_", "JAX_NUM_CPU", "XLA_FLAGS"))
    }
    return kept | {"JAX_PLATFORMS": "cpu"} | variables


def local(*words: str, **options) -> subprocess.Popen:
    command = [sys.executable, LAUNCH / "local_multiprocess.py", *words]
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


# Real processes.

TOGETHER = """
import numpy as np, jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jax.experimental import multihost_utils
from genhmr_jax.train import distributed
distributed.initialize()
mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
mine = np.arange(2.0) + 2 * jax.process_index()
rows = jax.make_array_from_process_local_data(NamedSharding(mesh, P(("data", "fsdp"))), mine)
total = jax.jit(lambda x: (x * x).sum(), out_shardings=NamedSharding(mesh, P()))(rows)
seven = multihost_utils.broadcast_one_to_all(np.asarray(7 if distributed.is_main() else 0))
distributed.barrier("end")
counts = jax.process_count(), jax.device_count(), jax.local_device_count()
print("result", jax.process_index(), *counts, float(total), int(seven))
"""


def test_two_processes_compute_together():
    child = local("--processes", "2", "--devices", "2", "--", sys.executable, "-c", TOGETHER)
    out, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    lines = sorted(line for line in out.splitlines() if "result" in line)  # 0 + 1 + 4 + 9
    assert lines == ["[0] result 0 2 4 2 14.0 7", "[1] result 1 2 4 2 14.0 7"]


FAILS = """
from genhmr_jax.train import distributed
distributed.initialize()
distributed.barrier("start")
if not distributed.is_main(): {what}
distributed.barrier("never")
"""


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raise FloatingPointError('not finite')", "FloatingPointError: not finite"),
        ("distributed.leave('no file')", "no file"),
    ],
)
def test_a_process_that_fails_ends_the_others(what, message):
    """Without waiting for JAX's barrier at exit, where the other, in the middle of a step, would
    not come for five minutes."""
    start = time.monotonic()
    child = local(
        "--processes", "2", "--devices", "1", "--", sys.executable, "-c", FAILS.format(what=what)
    )
    _, err = child.communicate(timeout=240)
    assert child.returncode == 1
    assert f"[1] {message}" in err
    assert time.monotonic() - start < 55


STOPS = """
import sys, time
from jax.experimental import multihost_utils
from genhmr_jax.train import distributed
distributed.initialize()
distributed.barrier("start")
print("started", flush=True)
for step in range(3000):
    if multihost_utils.reached_preemption_sync_point(step):
        print("stopped at", step, flush=True)
        distributed.barrier("saved")
        sys.exit(75)
    time.sleep(0.02)
"""


def test_sigterm_reaches_all_and_they_agree_on_a_step():
    child = local("--processes", "2", "--devices", "1", "--", sys.executable, "-c", STOPS)
    for _ in range(2):
        while "started" not in (line := child.stdout.readline()):
            assert line, child.stderr.read()
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=240)
    assert child.returncode == 75, err
    steps = re.findall(r"\[(.)\] stopped at (\d+)", out)
    assert sorted(number for number, _ in steps) == ["0", "1"]
    assert steps[0][1] == steps[1][1]


# Its rules, with processes that need no JAX.


def shell(script: str, processes: int = 2) -> tuple[int, str, str]:
    child = local("--processes", str(processes), "--", "bash", "-c", script)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


def test_exit_codes():
    assert shell("exit 0")[0] == 0
    assert shell("exit $((GENHMR_PROCESS_ID * 3))", 3)[0] in (3, 6)
    assert shell("kill -KILL $$")[0] == 128 + signal.SIGKILL
    assert (
        shell("[ $GENHMR_PROCESS_ID = 0 ] || sleep 1; exit 75")[0] == 75
    )  # the slower one may finish saving
    assert shell("[ $GENHMR_PROCESS_ID = 0 ] && exit 75; sleep 0.3; exit 2")[0] == 2


def test_a_failure_stops_the_others():
    start = time.monotonic()
    code, out, _ = shell(
        "[ $GENHMR_PROCESS_ID = 1 ] && exit 5; trap 'echo told; exit 0' TERM; while true; do "
        "sleep 0.05; done"
    )
    assert (code, out) == (5, "[0] told\n")
    assert time.monotonic() - start < 9  # before anything is killed


def test_lines_carry_their_process_and_stay_on_their_stream():
    code, out, err = shell("echo out; echo err >&2; printf no-newline")
    assert code == 0
    assert sorted(out.splitlines()) == ["[0] no-newline", "[0] out", "[1] no-newline", "[1] out"]
    assert sorted(err.splitlines()) == ["[0] err", "[1] err"]


def test_interrupt_is_passed_on():
    child = local(
        "--processes",
        "2",
        "--",
        "bash",
        "-c",
        "trap 'exit 9' INT; echo up; while true; do sleep 0.05; done",
    )
    assert sorted(child.stdout.readline() for _ in range(2)) == ["[0] up\n", "[1] up\n"]
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 9


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_children_do_not_outlive_a_killed_launcher():
    child = local(
        "--processes",
        "1",
        "--",
        sys.executable,
        "-c",
        "import os, time; print(os.getpid(), flush=True); time.sleep(300)",
    )
    pid = int(child.stdout.readline().split()[1])
    child.kill()
    child.communicate(timeout=60)
    status = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 20
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_devices_and_gpus_are_handed_out():
    script = "echo $JAX_PLATFORMS $JAX_NUM_CPU_DEVICES $CUDA_VISIBLE_DEVICES $GENHMR_NUM_PROCESSES"
    command = [sys.executable, LAUNCH / "local_multiprocess.py", "--processes", "2"]
    run = lambda *words, **env: subprocess.run(
        [*command, *words, "--", "bash", "-c", script],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sorted(run("--devices", "3", JAX_PLATFORMS="").stdout.splitlines()) == [
        "[0] cpu 3 2",
        "[1] cpu 3 2",
    ]
    assert sorted(run("--gpus", "2", JAX_PLATFORMS="cuda").stdout.splitlines()) == [
        "[0] cuda 0,1 2",
        "[1] cuda 2,3 2",
    ]
    given = run("--gpus", "1", JAX_PLATFORMS="cuda", CUDA_VISIBLE_DEVICES="5,7")
    assert sorted(given.stdout.splitlines()) == ["[0] cuda 5 2", "[1] cuda 7 2"]
    few = run("--gpus", "2", CUDA_VISIBLE_DEVICES="5,7")
    assert (
        few.returncode == 1
        and "2 x 2 GPUs asked for, but CUDA_VISIBLE_DEVICES names 2" in few.stderr
    )


def test_bad_command_lines():
    for words, message in (
        (("--processes", "2"), "no command"),
        (("--processes", "0", "--", "true"), "count from 1"),
    ):
        child = local(*words)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 2 and message in err
