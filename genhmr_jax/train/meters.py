"""The speed of training: samples per second, ms per step, model FLOPs utilisation, and memory."""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

import jax

from genhmr_jax.train.peak_flops import peak_flops


class Meter:
    """A meter that counts steps and their time.

    The first step, which compiles, and the time while `paused` do not count.

    Args:
      samples: rows of a step, on all devices together.
      flops: of the model for a step, on all devices together (program.model_flops).
      devices: number of devices of the mesh.
      local: this process's devices, for the peak FLOPs and the memory.
      clock: seconds.
    """

    def __init__(
        self,
        samples: int,
        flops: float,
        devices: int,
        local: list[jax.Device] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.samples, self.flops, self.devices = samples, flops, devices
        self.local, self.clock = local or jax.local_devices(), clock
        self._since, self._steps, self._waited = None, 0, 0.0

    def step(self) -> None:
        """Count a finished step."""
        if self._since is None:
            self._restart()
        else:
            self._steps += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time does not count."""
        start = self.clock()
        yield
        self._waited += self.clock() - start

    def rates(self) -> dict[str, float]:
        """Means since the last call.

        Returns:
          samples_per_s, step_ms (after the second step); mfu, the model's FLOPs over the devices'
          bfloat16 peak (where the peak is known); device_gib and device_peak_gib, the largest of
          the local devices (where they are known); host_peak_gib.
        """
        found = {}
        if self._steps:
            seconds = max(self.clock() - self._since - self._waited, 1e-9) / self._steps
            found = {"samples_per_s": self.samples / seconds, "step_ms": 1000 * seconds}
            if peak := peak_flops(self.local[0].device_kind):
                found["mfu"] = self.flops / seconds / (peak * self.devices)
            self._restart()
        memory = [device.memory_stats() or {} for device in self.local]
        for name, key in (("device_gib", "bytes_in_use"), ("device_peak_gib", "peak_bytes_in_use")):
            if all(key in stats for stats in memory):
                found[name] = max(stats[key] for stats in memory) / 2**30
        # Linux counts in KiB, macOS in bytes.
        unit = 2**30 if sys.platform == "darwin" else 2**20
        found["host_peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return found

    def _restart(self) -> None:
        self._since, self._steps, self._waited = self.clock(), 0, 0.0
