"""Training in real processes: one curve for 1, 2 and 4 of them; killed, told to stop, and resumed
by another number on another mesh."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from support.paths import ROOT, SUPPORT

STEPS, SLOW = 12, "slow_main"


def command(
    config, stage, workdir, corpus, *, processes=1, devices=1, mesh=(-1, 1, 1), flags=(), main=""
):
    """The training command line, under the local launcher when there are several processes."""
    program = [str(SUPPORT / f"{main}.py")] if main else ["-m", "genhmr_jax.main"]
    words = [
        sys.executable,
        *program,
        f"--config={ROOT}/configs/{stage}/tiny.py",
        f"--workdir={workdir}",
    ]
    words += [
        f"--config.data.poses={corpus}",
        f"--config.steps={STEPS}",
        "--config.log_every=1",
        "--config.checkpoint_every=2",
    ]
    words += [
        "--config.evaluate_every=100",
        "--config.mesh.fsdp_min_size=0",
        "--config.optim.warmup=2",
        *config,
        *flags,
    ]
    words += ["--config.input.threads=0"] if main == SLOW else []
    words += [
        f"--config.mesh.{axis}={n}"
        for axis, n in zip(("data", "fsdp", "tensor"), mesh, strict=True)
    ]
    launcher = [
        sys.executable,
        str(ROOT / "launch" / "local_multiprocess.py"),
        f"--processes={processes}",
        f"--devices={devices}",
        "--",
    ]
    return [*launcher, *words]


def environment():
    """Subprocesses import what this process imports."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "JAX_PLATFORMS": "cpu",
    }


def run(words, expect=0):
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=400)
    assert done.returncode == expect, done.stderr[-4000:] + done.stdout[-2000:]
    return done


def curve(workdir):
    """Losses by step; of a step computed twice the last."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {r["step"]: r["loss"] for r in lines if "loss" in r}
    return np.array([losses[step] for step in range(1, STEPS + 1)])


def interrupted(words, workdir, step, how):
    """Starts a run, sends it a signal once it has logged `step` and holds a checkpoint, and waits
    for its end."""
    child = subprocess.Popen(
        words,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started, log = time.monotonic(), workdir / "metrics.jsonl"
    there = lambda: (
        log.exists()
        and f'"step": {step}' in log.read_text()
        and any((workdir / "checkpoints").glob("[0-9]"))
    )
    while child.poll() is None and not there():
        assert time.monotonic() - started < 300, "never got there"
        time.sleep(0.01)
    assert child.poll() is None, child.stdout.read()[-3000:]
    if how == signal.SIGKILL:
        os.killpg(child.pid, how)  # the launcher and all its processes
    else:
        child.send_signal(how)
    output, _ = child.communicate(timeout=200)
    return child.returncode, output


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "genhmr"])
def test_processes_signals_and_resumption(stage, trained_tokenizer, corpus_file, tmp_path):
    # At the shipped rate an untrained stage 2 amplifies rounding about tenfold in a few steps.
    config = (
        [f"--config.tokenizer={trained_tokenizer}/model", "--config.optim.learning_rate=1e-4"]
        if stage == "genhmr"
        else []
    )
    make = lambda name, **kw: command(config, stage, tmp_path / name, corpus_file, **kw)
    run(make("one"))
    whole = curve(tmp_path / "one")
    assert np.ptp(whole) > 1e-3 * abs(whole.mean())

    run(make("four", processes=4, devices=2, mesh=(2, 2, 2)))
    np.testing.assert_allclose(curve(tmp_path / "four"), whole, rtol=1e-5)

    # Killed without warning at a random step, then told to stop in two processes, then finished by
    # one on its own devices.
    step = random.randrange(3, 6)
    code, _ = interrupted(make("odyssey", main=SLOW), tmp_path / "odyssey", step, signal.SIGKILL)
    assert code == -signal.SIGKILL
    two = make("odyssey", processes=2, devices=4, mesh=(1, 4, 2), main=SLOW)
    code, output = interrupted(two, tmp_path / "odyssey", step + 2, signal.SIGTERM)
    assert code == 75, output[-3000:]
    assert "preempted: saved at step" in output
    run(make("odyssey", devices=4, mesh=(2, 2, 1)))
    np.testing.assert_allclose(curve(tmp_path / "odyssey"), whole, rtol=1e-5)
    resumed = [
        json.loads(line)
        for line in (tmp_path / "odyssey" / "metrics.jsonl").read_text().splitlines()
    ]
    assert len([r for r in resumed if r.get("event") == "resumed"]) == 2
    assert (tmp_path / "odyssey" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_processes_agree_on_a_checkpoint_that_one_of_them_cannot_read(corpus_file, tmp_path):
    """Each reads files of its own. All go back to the one before, and none waits for ever."""
    make = lambda **kw: command([], "tokenizer", tmp_path / "run", corpus_file, **kw)
    two = dict(processes=2, devices=1, mesh=(1, 2, 1))
    run(make(**two))
    whole = curve(tmp_path / "run")
    done = run(make(**two, main="damaged_main"))
    assert (
        "checkpoint 12 cannot be read (process 1: OSError: a shard is damaged); "
        "trying the one before"
    ) in done.stderr + done.stdout
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if "resumed" in line]
    assert [event["step"] for event in events] == [10]
    np.testing.assert_allclose(curve(tmp_path / "run"), whole, rtol=1e-6)


def test_bad_settings_are_one_line(corpus_file, tmp_path):
    """Exit code 1, the setting at fault and one that fits; no traceback."""
    config = []
    for flags, words in (
        (
            ("--config.batch_size=9",),
            "a batch of 9 does not divide into 2 parts (mesh data 2 x fsdp 1); use 8 or 10",
        ),
        (("--config.precision=float8",), "choose among float32, bfloat16"),
    ):
        done = run(
            command(
                config,
                "tokenizer",
                tmp_path / "bad",
                corpus_file,
                processes=1,
                devices=2,
                flags=flags,
            ),
            expect=1,
        )
        assert words in done.stderr + done.stdout and "Traceback" not in done.stderr + done.stdout
