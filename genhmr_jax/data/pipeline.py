"""From sources of samples to the global batches of a training step.

A source is a pure function of the global sample number (step x batch size + row), so the global
batch of a step is the same for any number of processes: each loads the rows that its devices hold,
and a run resumes from its step alone.
"""

import collections
import concurrent.futures
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from genhmr_jax.io.errors import InputError

Samples = Any
"""A pytree of arrays with the same leading axis."""


class Source(Protocol):
    """Training samples by number."""

    size: int  # rows of the global batch

    def load(self, numbers: np.ndarray) -> Samples:
        """The samples with these global numbers (b,): arrays (b, ...).

        Pure, and safe to call from several threads.
        """

    def shapes(self) -> Samples:
        """Shapes (jax.ShapeDtypeStruct) of the arrays of one sample, without the row axis."""


def check_divides(size: int, sharding: NamedSharding, where: str, micro_batches: int = 1) -> None:
    """Raises InputError unless a batch divides over the mesh and the micro-batches.

    Args:
      size: rows of the batch.
      sharding: of its rows.
      where: the field at fault, for the error.
      micro_batches: parts that each device's rows are computed in.
    """
    axes = sharding.spec[0] if len(sharding.spec) else None
    axes = {axes} if isinstance(axes, str) else set(axes or ())
    axes = [axis for axis in sharding.mesh.axis_names if axis in axes]
    parts = math.prod(sharding.mesh.shape[axis] for axis in axes) * micro_batches
    if size < 1 or size % parts:
        below, above = size // parts * parts, (size // parts + 1) * parts
        nearest = f"{below} or {above}" if below > 0 else f"{above}"
        split = "mesh " + " x ".join(f"{axis} {sharding.mesh.shape[axis]}" for axis in axes)
        if micro_batches > 1:
            split += f", {micro_batches} micro-batches"
        problem = f"a batch of {size} does not divide into {parts} parts ({split})"
        raise InputError(where, problem, f"use {nearest}")


def local_rows(
    sharding: NamedSharding, size: int, devices: Sequence[jax.Device] | None = None
) -> np.ndarray:
    """The rows (b,) int64 of a global batch that some devices hold, in ascending order.

    They need not be contiguous: on a TPU pod a host's 2 x 2 chips are in several rows of the chip
    grid, and the mesh follows the grid.

    Args:
      size: rows of the batch.
      devices: default: this process's devices.
    """
    if devices is None:
        indices = sharding.addressable_devices_indices_map((size,))
    else:
        everywhere = sharding.devices_indices_map((size,))
        indices = {device: everywhere[device] for device in devices}
    held = np.zeros(size, bool)
    for (rows,) in indices.values():
        held[rows] = True
    return np.flatnonzero(held)


class Batches:
    """Iterator over the global batches of the steps `first_step`..`last_step` - 1.

    A batch is {source name: arrays (size, ...), sharded over rows}. Threads load batches, and one
    thread puts them on the devices, `prefetch` of them ahead of the caller.

    Args:
      sources: by name; each has its own batch size.
      sharding: of the rows over the mesh; other axes are not split.
      threads: threads that load; 0 loads in the caller's thread.
      prefetch: batches kept on the devices ahead of the caller.

    Raises:
      InputError: a batch size does not divide over the mesh.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        sharding: NamedSharding,
        first_step: int,
        last_step: int,
        threads: int = 4,
        prefetch: int = 2,
    ):
        for name, source in sources.items():
            check_divides(source.size, sharding, f"source {name!r}")
        self._sharding, self._sources = sharding, sources
        self._rows = {name: local_rows(sharding, source.size) for name, source in sources.items()}
        self._next, self._submitted, self._last = first_step, first_step, last_step
        host = _grain_batches if importlib.util.find_spec("grain") else _thread_batches
        # Each thread works on one batch, so that a smaller buffer would leave threads idle.
        self._host = host(self._load, first_step, last_step, threads, max(threads, prefetch))
        self._mover = concurrent.futures.ThreadPoolExecutor(1, "to-device")
        self._ahead: collections.deque[concurrent.futures.Future] = collections.deque()
        self._prefetch, self._closed = prefetch, False

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, Samples]:
        if self._next >= self._last:
            self.close()
            raise StopIteration
        if self._closed:
            raise RuntimeError("these batches are closed")
        while len(self._ahead) <= self._prefetch and self._submitted < self._last:
            self._ahead.append(self._mover.submit(self._move_next))
            self._submitted += 1
        try:
            batch = self._ahead.popleft().result()
        except BaseException:
            self.close()  # a batch is missing: later batches must not take its step
            raise
        self._next += 1
        return batch

    def state(self) -> dict[str, int]:
        """The step of the caller's next batch; it does not depend on what is prefetched."""
        return {"next_index": self._next}

    def close(self) -> None:
        """Stops the threads; prefetched batches are lost."""
        self._closed = True
        self._mover.shutdown(wait=True, cancel_futures=True)
        self._host.close()

    def _load(self, step: int) -> dict[str, Samples]:
        return {
            name: source.load(step * source.size + self._rows[name])
            for name, source in self._sources.items()
        }

    def _move_next(self) -> dict[str, Samples]:
        return {name: self._to_devices(name, rows) for name, rows in next(self._host).items()}

    def _to_devices(self, name: str, rows: Samples) -> Samples:
        """This process's rows -> global arrays."""
        held, size = self._rows[name], self._sources[name].size

        def place(local: np.ndarray) -> jax.Array:
            def part(index: tuple[slice, ...]) -> np.ndarray:
                # A device's rows are contiguous, and this process holds all of them.
                start, stop, _ = index[0].indices(size)
                at = int(np.searchsorted(held, start))
                return local[at : at + stop - start]

            return jax.make_array_from_callback((size, *local.shape[1:]), self._sharding, part)

        return jax.tree.map(place, rows)


def _grain_batches(
    load: Callable[[int], Any], first: int, last: int, threads: int, buffered: int
) -> Iterator[Any]:
    """Batches of grain."""
    import grain  # imported late: machines that only run the model need no data packages

    dataset = grain.MapDataset.range(last).map(load)
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=buffered if threads else 0
    )
    iterator = iter(dataset.to_iter_dataset(options))
    iterator.set_state({"next_index": first})
    return iterator


def _thread_batches(
    load: Callable[[int], Any], first: int, last: int, threads: int, buffered: int
) -> Iterator[Any]:
    """The same batches without grain."""
    if not threads:
        yield from map(load, range(first, last))
        return
    with concurrent.futures.ThreadPoolExecutor(threads, "load") as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        for step in range(first, last):
            waiting.append(pool.submit(load, step))
            if len(waiting) >= buffered:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
