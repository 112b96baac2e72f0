"""Findings of the campaign of faults (tools/reliability/faults.py), each as a test."""

import itertools
import json
import pathlib
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from genhmr_jax.data import builders
from genhmr_jax.io.errors import Preempted
from genhmr_jax.train import checksums, watchdog
from genhmr_jax.train.checkpoint import Checkpoints
from support.paths import ROOT


def shapes(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def state_of(seed):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(7, 5)), jnp.bfloat16),
        "count": jnp.asarray(seed, jnp.int32),
        "on": jnp.asarray(rng.random(9) < 0.5),
    }


def save_all(folder, config, steps):
    """The checkpoints of a run whose state at step n is state_of(n)."""
    config = config.copy_and_resolve_references()
    config.checkpoint_every = 1
    checkpoints = Checkpoints(folder, config, {})
    for step in steps:
        checkpoints.save(step, state_of(step), {"next_index": step})
    checkpoints.manager.wait_until_finished()
    return checkpoints


def equal(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_each_flipped_bit_changes_the_checksum(dtype):
    rng = np.random.default_rng(0)
    array = np.asarray(rng.integers(0, 2, (5, 3)), jnp.dtype(dtype))
    whole = checksums.of_state({"a": jnp.asarray(array)})
    raw = np.frombuffer(array.tobytes(), np.uint8)
    bits = [0] if dtype == "bool" else range(8)
    for byte in range(len(raw)):
        for bit in bits:
            flipped = raw.copy()
            flipped[byte] ^= 1 << bit
            changed = np.frombuffer(flipped.tobytes(), array.dtype).reshape(array.shape)
            found = checksums.of_state({"a": jnp.asarray(changed)})["a"]
            assert all(x != y for x, y in zip(found, whole["a"], strict=True))


def test_checksums_tell_places_apart_and_not_shardings():
    array = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    of = lambda x: checksums.of_state({"a": jnp.asarray(x)})
    assert of(array) != of(array[::-1]) and of(array) != of(array[:, ::-1])
    mesh = jax.make_mesh((1,), ("data",))
    spread = jax.device_put(array, NamedSharding(mesh, P("data")))
    assert checksums.of_state({"a": spread}) == of(array)
    assert checksums.difference({"a": jnp.asarray(array)}, of(array)) == ""
    changed = checksums.difference({"a": jnp.asarray(array + 1)}, of(array))
    assert changed == "a is not as it was saved: its checksum differs"


def test_sealed_json():
    item = checksums.sealed({"next_index": 3, "nested": {"b": [1, 2.5]}})
    again = json.loads(json.dumps(item))
    assert checksums.unsealed(again) == {"next_index": 3, "nested": {"b": [1, 2.5]}}
    with pytest.raises(ValueError, match="hash differs"):
        checksums.unsealed(again | {"next_index": 2})


def test_flipped_bits_of_arrays_are_found(tokenizer_config, tmp_path):
    """Orbax restores other numbers without an error. Here each restored state was once saved."""
    save_all(tmp_path, tokenizer_config, [1, 2]).close()
    folder, rng = tmp_path / "checkpoints" / "2" / "state", np.random.default_rng(0)
    files = [path for path in folder.rglob("d/*") if path.is_file()]
    assert files
    fell_back = 0
    for file in files:
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        checkpoints = Checkpoints(tmp_path, tokenizer_config, {})
        state, data = checkpoints.restore(shapes(state_of(0)))
        assert equal(state, state_of(data["next_index"]))
        fell_back += data["next_index"] == 1
        checkpoints.close()
        file.write_bytes(content)
    assert fell_back


def test_each_missing_or_empty_file_is_found(tokenizer_config, tmp_path):
    """The checkpoint before it is used. Without its list of arrays it looked like another model."""
    save_all(tmp_path, tokenizer_config, [1, 2]).close()
    folder = tmp_path / "checkpoints" / "2"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert folder / "state" / "_METADATA" in files
    for file, empty in itertools.product(files, (False, True)):
        content = file.read_bytes()
        file.unlink()
        if empty:
            file.write_bytes(b"")
        checkpoints = Checkpoints(tmp_path, tokenizer_config, {})
        state, data = checkpoints.restore(shapes(state_of(0)))
        assert equal(state, state_of(data["next_index"])), file
        checkpoints.close()
        file.write_bytes(content)


def test_another_position_in_the_data_is_found(tokenizer_config, tmp_path):
    save_all(tmp_path, tokenizer_config, [1, 2]).close()
    file = tmp_path / "checkpoints" / "2" / "data" / "metadata"
    file.write_text(file.read_text().replace('"next_index": 2', '"next_index": 3'))
    checkpoints = Checkpoints(tmp_path, tokenizer_config, {})
    assert checkpoints.restore(shapes(state_of(0)))[1] == {"next_index": 1}
    checkpoints.close()


def test_a_damaged_checkpoint_is_not_one_of_those_that_are_kept(tokenizer_config, tmp_path):
    """A save at an earlier step, as before a preemption, must leave a good checkpoint."""
    config = tokenizer_config.copy_and_resolve_references()
    config.keep = 1
    save_all(tmp_path, tokenizer_config, [4, 8]).close()
    for file in (tmp_path / "checkpoints" / "8" / "state").rglob("d/*"):
        file.write_bytes(b"damaged")
    checkpoints = Checkpoints(tmp_path, config, {})
    assert checkpoints.restore(shapes(state_of(0)))[1] == {"next_index": 4}
    checkpoints.save(5, state_of(5), {"next_index": 5})
    checkpoints.close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


def test_a_save_that_fails_in_the_background_stops_the_next_step(tokenizer_config, tmp_path):
    """Without this, the other processes wait for minutes for a process whose disk is full."""
    checkpoints = save_all(tmp_path, tokenizer_config, [1])
    large = {"a": jnp.asarray(np.random.default_rng(0).random((512, 512)), jnp.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        checkpoints.save(2, large, {"next_index": 2})
        deadline = time.monotonic() + 60
        with pytest.raises(Exception, match="File too large"):
            while time.monotonic() < deadline:
                checkpoints.due(3)
                time.sleep(0.02)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_process_does_not_wait_for_the_others(tokenizer_config, tmp_path, monkeypatch):
    checkpoints, closed = save_all(tmp_path, tokenizer_config, []), []
    monkeypatch.setattr(checkpoints, "close", lambda: closed.append(True))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for error, waits in (
        (OSError(), False),
        (None, True),
        (Preempted(), True),
        (FloatingPointError(), True),
    ):
        closed.clear()
        checkpoints.finish(type(error), error, None)
        assert bool(closed) == waits


def test_a_hanging_run_ends_with_the_place():
    messages = []
    with_limit = watchdog.Watchdog(0.3, messages.append)
    for step in range(8):  # slow, but not hanging
        with_limit.at(f"step {step}")
        time.sleep(0.1)
    assert messages == []
    with_limit.at("the batch of step 9")
    deadline = time.monotonic() + 30
    while not messages and time.monotonic() < deadline:
        time.sleep(0.05)
    with_limit.close()
    (message,) = messages
    assert message.startswith("process 0: hangs at the batch of step 9 (nothing has finished for")
    assert "run the same command to resume" in message


def test_the_process_at_fault_is_named():
    place = lambda place, count, beats: {"place": place, "count": count, "beats": beats}
    before = {0: place("step 7", 14, 50), 1: place("the batch of step 7", 13, 50)}
    now = {0: place("step 7", 14, 53), 1: place("the batch of step 7", 13, 53)}
    text = watchdog.describe(before, now, 60)
    assert text.startswith("process 1: hangs at the batch of step 7 ")
    assert "nothing has finished for 60 s; process 0 is at step 7" in text
    both = watchdog.describe(before, dict.fromkeys((0, 1), now[0]), 60)
    assert both.startswith("process 0, process 1: hangs at step 7 (nothing has finished for 60 s);")
    silent = watchdog.describe(before, now | {0: before[0]}, 60)
    assert silent.startswith("process 0: does not answer ")


def test_folders_of_killed_builds_are_deleted(tmp_path):
    """And not those of builds that run."""
    killed = "import os, sys\nfrom genhmr_jax.data import builders\n"
    killed += "with builders._scratch(__import__('pathlib').Path(sys.argv[1])):\n os._exit(9)"
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], cwd=ROOT)
    (left,) = tmp_path.iterdir()
    assert done.returncode == 9 and (left / "lock").is_file()
    with builders._scratch(tmp_path) as first, builders._scratch(tmp_path) as second:
        assert {path.name for path in tmp_path.iterdir()} == {
            pathlib.Path(first).name,
            pathlib.Path(second).name,
        }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("system", ["mesh2d", "tokenizer, 2", "data: records"])
def test_a_short_campaign(system, tmp_path):
    """Random faults; the final weights are those of the unbroken run."""
    words = [sys.executable, str(ROOT / "tools" / "reliability" / "faults.py"), f"--only={system}"]
    out = pathlib.Path(tmp_path / "faults")
    done = subprocess.run(
        [*words, "--faults=4", "--seed=3", f"--out={out}"],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    total = json.loads((out / "results.json").read_text())["total"]
    assert total["injected"] >= 4 and total.get("lost", 0) == 0


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tokenizer_config, tmp_path):
    """On a disk that had become read-only, a run hung for five minutes before its error."""
    checkpoints = save_all(tmp_path, tokenizer_config, [1])
    (tmp_path / "checkpoints").rename(tmp_path / "away")
    (tmp_path / "checkpoints").write_text("a file, in which no folder can be made")
    started = time.monotonic()
    with pytest.raises(OSError, match="checkpoints"):
        checkpoints.save(2, state_of(2), {"next_index": 2})
    # At its end a run waits for unfinished saves: for this one it would wait for ever.
    with pytest.raises(OSError, match="checkpoints"):
        checkpoints.close()
    assert time.monotonic() - started < 60
