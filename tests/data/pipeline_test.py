"""The input pipeline: which rows a process loads, order, resuming, prefetching."""

import itertools
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genhmr_jax.data import pipeline, poses
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets.rows import AXES

SIZE = 16


class Numbers:
    """A source whose samples tell their number; remembers which steps were loaded."""

    def __init__(self, size: int = SIZE):
        self.size, self.loaded, self.lock = size, [], threading.Lock()

    def load(self, numbers):
        with self.lock:
            self.loaded.append(int(numbers[0]) // self.size)
        return {
            "number": numbers.astype(np.uint32),
            "maps": [np.sin(numbers)[:, None, None].astype(np.float16) * np.ones((1, 2, 3))],
        }

    def shapes(self):
        return {
            "number": jax.ShapeDtypeStruct((), np.uint32),
            "maps": [jax.ShapeDtypeStruct((2, 3), np.float64)],
        }


def row_sharding(shape: tuple[int, int, int], devices=None) -> NamedSharding:
    """Rows as in training, on a mesh of the first devices."""
    devices = np.array(jax.devices()[: np.prod(shape)] if devices is None else devices)
    mesh = Mesh(devices.reshape(shape), ("data", "fsdp", "tensor"))
    return NamedSharding(mesh, PartitionSpec(AXES))


@pytest.fixture(params=["grain", "threads"])
def host(request, monkeypatch):
    """Both ways to load: with grain, and where it is not installed."""
    if request.param == "grain":
        pytest.importorskip("grain")
    else:
        monkeypatch.setattr(pipeline.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def eight():
    """Eight devices; `test_on_eight_devices` runs this file where there are as many."""
    if jax.device_count() < 8:
        pytest.skip("runs in a process of its own with 8 devices")
    return jax.devices()[:8]


@pytest.mark.skipif("WITH_EIGHT_DEVICES" in os.environ, reason="runs here already")
def test_on_eight_devices():
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "WITH_EIGHT_DEVICES": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "eight_devices",
        __file__,
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "9 passed" in done.stdout, done.stdout + done.stderr


def numbers_of(batches) -> list[list[int]]:
    return [np.asarray(batch["a"]["number"]).tolist() for batch in batches]


def expected(first: int, last: int) -> list[list[int]]:
    return [list(range(step * SIZE, (step + 1) * SIZE)) for step in range(first, last)]


@pytest.mark.parametrize("threads, prefetch", [(0, 0), (3, 2)])
def test_batches_in_order(host, threads, prefetch):
    sharding = row_sharding((1, 1, 1))
    sources = {"a": Numbers(), "b": Numbers(8)}
    batches = list(pipeline.Batches(sources, sharding, 3, 9, threads, prefetch))
    assert numbers_of(batches) == expected(3, 9)
    assert np.asarray(batches[1]["b"]["number"]).tolist() == list(range(32, 40))
    for step, batch in enumerate(batches, 3):
        (maps,) = batch["a"]["maps"]
        assert maps.sharding == sharding
        np.testing.assert_allclose(
            maps[:, 1, 2], np.sin(np.arange(step * SIZE, (step + 1) * SIZE)), atol=1e-3
        )


def test_resumed_equals_unbroken(host):
    sharding = row_sharding((1, 1, 1))
    first = pipeline.Batches({"a": Numbers()}, sharding, 0, 10)
    head = [next(first) for _ in range(4)]
    state = first.state()
    first.close()
    second = pipeline.Batches({"a": Numbers()}, sharding, state["next_index"], 10)
    assert state == {"next_index": 4}
    assert numbers_of(head + list(second)) == expected(0, 10)


def test_what_is_prefetched_does_not_count(host):
    source = Numbers()
    batches = pipeline.Batches(
        {"a": source}, row_sharding((1, 1, 1)), 5, 100, threads=2, prefetch=3
    )
    assert batches.state() == {"next_index": 5}
    next(batches)
    next(batches)
    batches.close()
    assert batches.state() == {"next_index": 7}
    assert 7 <= max(source.loaded) <= 5 + 2 + 3 + 3 + 2  # loaded ahead, but boundedly so


def test_batches_reach_the_device_ahead_of_the_caller(host):
    moved = threading.Semaphore(0)

    class Watched(Numbers):
        def load(self, numbers):
            moved.release()
            return super().load(numbers)

    batches = pipeline.Batches(
        {"a": Watched()}, row_sharding((1, 1, 1)), 0, 10, threads=0, prefetch=2
    )
    next(batches)
    for _ in range(3):  # the first one, and two that nobody has asked for
        assert moved.acquire(timeout=20)
    batches.close()


def test_an_error_while_loading_reaches_the_caller(host):
    class Broken(Numbers):
        def load(self, numbers):
            if numbers[0] == 2 * SIZE:
                raise OSError("disk is gone")
            return super().load(numbers)

    batches = pipeline.Batches({"a": Broken()}, row_sharding((1, 1, 1)), 0, 5)
    assert numbers_of(itertools.islice(batches, 2)) == expected(0, 2)
    with pytest.raises(OSError, match="disk is gone"):
        next(batches)
    with pytest.raises(RuntimeError):  # and no later batch passes for the missing one
        next(batches)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)])
def test_processes_together_load_the_global_batch_eight_devices(eight, shape, corpus_file):
    """Whatever the mesh and the number of processes: each row's sample is the same, and every row
    is loaded."""
    source = poses.PoseSource(poses.load_corpus(corpus_file, "train"), SIZE, seed=3)
    sharding, step = row_sharding(shape), 7
    whole = source.load(step * SIZE + np.arange(SIZE))
    for processes in (1, 2, 4, 8):
        joined = np.full((SIZE, 72), np.nan, np.float32)
        for devices in np.split(np.array(eight), processes):
            rows = pipeline.local_rows(sharding, SIZE, devices)
            assert len(rows) == SIZE * max(len(devices) // shape[2], 1) // (shape[0] * shape[1])
            joined[rows] = source.load(step * SIZE + rows).pose
        np.testing.assert_array_equal(joined, whole.pose)


def test_rows_of_a_host_need_not_be_contiguous_eight_devices(eight):
    """A pod of 2 x 4 chips with hosts of 2 x 2: the mesh runs along the rows of chips, so a host
    holds two pieces of the batch."""
    sharding = row_sharding((8, 1, 1))
    assert pipeline.local_rows(sharding, SIZE, [eight[i] for i in (0, 1, 4, 5)]).tolist() == [
        0,
        1,
        2,
        3,
        8,
        9,
        10,
        11,
    ]
    assert pipeline.local_rows(sharding, SIZE).tolist() == list(range(SIZE))


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_global_arrays_are_the_same_on_every_mesh_eight_devices(eight, shape):
    shuffled = [eight[i] for i in (3, 1, 7, 0, 5, 2, 6, 4)]
    sharding = row_sharding(shape, shuffled)
    batches = list(pipeline.Batches({"a": Numbers()}, sharding, 2, 4))
    assert numbers_of(batches) == expected(2, 4)
    assert batches[0]["a"]["number"].sharding == sharding


def test_batch_that_does_not_divide_eight_devices(eight):
    with pytest.raises(
        InputError,
        match=(
            r"source 'a': a batch of 18 does not divide into 8 parts \(mesh data 4 x fsdp "
            r"2\); use 16 or 24"
        ),
    ):
        pipeline.Batches({"a": Numbers(18)}, row_sharding((4, 2, 1)), 0, 1)
    with pytest.raises(InputError, match=r"--config.batch_size: a batch of 3 .*; use 8"):
        pipeline.check_divides(3, row_sharding((8, 1, 1)), "--config.batch_size")


def test_sources_tell_the_shapes_of_what_they_load(corpus_file):
    source = poses.PoseSource(poses.load_corpus(corpus_file, "train"), SIZE, seed=0)
    loaded = source.load(np.arange(5))
    told = jax.tree.map(lambda s: (s.shape, np.dtype(s.dtype)), source.shapes())
    assert told == jax.tree.map(lambda x: (x.shape[1:], x.dtype), loaded)
