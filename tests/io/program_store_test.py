"""Stored programs: traced once, the same numbers, and nothing lost where entries are unusable."""

import os
import subprocess
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.io import program_store

TRACED = []


@pytest.fixture
def folder(tmp_path):
    program_store.use(tmp_path / "traced")
    yield tmp_path / "traced"
    program_store.use(None)


def make():
    """The function as a new process has it: it keeps no programs."""

    @program_store.stored("power")
    def powers(tree, x, power):
        TRACED.append(x.shape)
        return {"y": tree["a"] * x**power, "key": jax.random.key_data(tree["key"])}

    return powers


def arguments(rows=3):
    tree = {"a": np.float32(2.0), "key": jax.random.key(7)}
    return tree, np.arange(rows, dtype=np.float32)


def right(found, power, rows=3):
    np.testing.assert_allclose(found["y"], 2.0 * np.arange(rows) ** power)
    np.testing.assert_array_equal(found["key"], jax.random.key_data(jax.random.key(7)))


def test_a_second_process_does_not_trace(folder):
    TRACED.clear()
    right(make()(*arguments(), 3), 3)
    assert TRACED == [(3,)] and len(list(folder.iterdir())) == 1
    right(make()(*arguments(), 3), 3)
    assert TRACED == [(3,)]
    # Other static arguments, shapes and types are other programs.
    again = make()
    right(again(*arguments(), 2), 2)
    right(again(*arguments(5), 3), 3, 5)
    assert (
        again({"a": np.int32(2), "key": jax.random.key(7)}, np.ones(3, np.float32), 3)["y"][0] == 2
    )
    assert len(TRACED) == 4 and len(list(folder.iterdir())) == 4


def test_other_sources_and_versions_are_other_entries(folder, monkeypatch):
    make()(*arguments(), 3)
    for name, value in (("_sources", lambda: "another"), ("_environment", lambda: "another jax")):
        monkeypatch.setattr(program_store, name, value)
        TRACED.clear()
        right(make()(*arguments(), 3), 3)
        assert TRACED == [(3,)]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", ["empty", "half", "one bit", "of another format", "unreadable"])
def test_damaged_entries_are_made_again(folder, damage):
    make()(*arguments(), 3)
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    if damage == "unreadable":
        entry.unlink()
        entry.mkdir()
    else:
        flipped = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
        program_store.write(entry, b"no program")
        foreign = entry.read_bytes()
        contents = {"empty": b"", "half": whole[:400], "one bit": flipped}
        entry.write_bytes(contents.get(damage, foreign))
    TRACED.clear()
    right(make()(*arguments(), 3), 3)
    assert TRACED == [(3,)]
    right(make()(*arguments(), 3), 3)
    assert len(TRACED) == (2 if damage == "unreadable" else 1)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    program_store.use(tmp_path / "file" / "traced")
    try:
        right(make()(*arguments(), 3), 3)
    finally:
        program_store.use(None)


def test_preload_reads_and_does_not_make(folder):
    TRACED.clear()
    first = make()
    first.preload(*arguments(), 3)
    assert not folder.exists() and not TRACED
    right(first(*arguments(), 3), 3)
    second = make()
    second.preload(*arguments(), 3)
    assert len(second.programs) == 1 and len(TRACED) == 1
    third = make()
    third.preload(*arguments(), 2, make=True)
    assert len(TRACED) == 2
    right(third(*arguments(), 2), 2)
    assert len(TRACED) == 2


def test_threads_share_a_program(folder):
    TRACED.clear()
    powers, found = make(), []
    call = lambda: found.append(powers(*arguments(), 3))
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and TRACED == [(3,)]
    for one in found:
        right(one, 3)


def test_errors_of_the_function_are_its_own(folder):
    @program_store.stored()
    def broken(x):
        raise ValueError("no such rule")

    for _ in range(2):
        with pytest.raises(ValueError, match="no such rule"):
            broken(np.ones(2))


def test_inside_of_jit_it_is_a_part_of_the_program(folder):
    powers = make()
    inside = jax.jit(lambda x: powers(arguments()[0], x, 2)["y"])
    np.testing.assert_allclose(inside(np.arange(3.0)), [0, 2, 8])
    assert not folder.exists()


def test_arrays_on_several_devices_are_left_to_jit():
    split = types.SimpleNamespace(sharding=types.SimpleNamespace(device_set={0, 1}))
    assert not program_store._on_one_device(split)
    assert all(map(program_store._on_one_device, (jnp.ones(2), np.ones(2), np.float32(1))))


def test_programs_of_code_that_is_not_ours_are_not_stored(folder):
    """A system of another package may change without a change of its repr."""
    powers = make()
    right(powers(*arguments(), type("Two", (int,), {})(2)), 2)
    assert not folder.exists()


def test_unused_entries_are_deleted(folder):
    make()(*arguments(), 3)
    (old,) = folder.iterdir()
    os.utime(old, (0, 0))
    make()(*arguments(), 2)
    assert not old.exists() and len(list(folder.iterdir())) == 1


def test_shapes_are_remembered(folder):
    asked = []
    shapes = {"a": {"b": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}, "c": np.ones(4, np.int32)}
    compute = lambda: asked.append(1) or jax.eval_shape(lambda: shapes)
    for _ in range(2):
        found = program_store.remembered_shapes("network", (1, "x"), compute)
        assert found["a"]["b"].shape == (2, 3) and found["a"]["b"].dtype == jnp.bfloat16
        assert found["c"].shape == (4,) and found["c"].dtype == jnp.int32
    assert len(asked) == 1
    program_store.remembered_shapes("network", (2, "x"), compute)
    assert len(asked) == 2


def test_two_processes_may_share_an_empty_store(tmp_path):
    program = (
        "from genhmr_jax.io import compilation_cache, program_store; compilation_cache.enable()\n"
        "import numpy as np\n"
        "double = program_store.stored()(lambda x: x * 2)\n"
        "print(double(np.arange(3.0)))"
    )
    environment = os.environ | {"GENHMR_CACHE": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    found = [process.communicate() for process in both]
    assert found[0] == found[1] == ("[0. 2. 4.]\n", "")
    entries = list((tmp_path / "traced").iterdir())
    assert len(entries) == 1 and program_store.read(entries[0])
