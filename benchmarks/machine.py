"""The machine: its name, its versions, whether it is idle, and the rates that give the floors."""

import concurrent.futures
import dataclasses
import functools
import importlib.metadata
import os
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import median_seconds

PACKAGES = ("jax", "jaxlib", "numpy", "torch")
BUSY = 0.1  # share of the processors that other work may take
SIZES = (512, 1024, 2048)  # of the square matrices whose product is measured
COPIED = 2**28  # bytes of the array that is copied: larger than any cache
ON_DEVICE = 2**30  # the same on an accelerator


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a device can do.

    Attributes:
      flops: operations a second of float32 matrix products.
      bandwidth: bytes a second that a copy reads and writes.
    """

    flops: float
    bandwidth: float

    def floor(self, flops: float, moved: float) -> float:
        """Seconds below which so many operations and bytes cannot be done."""
        return max(flops / self.flops, moved / self.bandwidth)


@functools.cache
def rates() -> Rates:
    """The rates of JAX's first device, measured once.

    On a CPU, NumPy's product counts too if it is faster than JAX's.
    """
    if jax.default_backend() == "cpu":
        return Rates(max(product_rates().values()), copy_rate())
    array = jnp.ones(ON_DEVICE // 4)
    copy = jax.jit(jnp.negative)
    seconds = median_seconds(lambda: copy(array).block_until_ready(), 10)
    return Rates(product_rates()["jax"], 2 * ON_DEVICE / seconds)


@functools.cache
def product_rates() -> dict[str, float]:
    """Operations a second of float32 matrix products, in JAX's default precision: by NumPy on the
    host, and by JAX on its first device, each with its best size."""
    product, best = jax.jit(jnp.matmul), {"numpy": 0.0, "jax": 0.0}
    on_host = jax.default_backend() == "cpu"
    for size in SIZES if on_host else (*SIZES, 4096, 8192):
        a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
        out, b = np.empty_like(a), jnp.asarray(a)
        calls = {"jax": lambda b=b: product(b, b).block_until_ready()}
        if size in SIZES:
            calls["numpy"] = lambda a=a, out=out: np.matmul(a, a, out=out)
        for name, call in calls.items():
            best[name] = max(best[name], 2 * size**3 / median_seconds(call, 5))
    return best


@functools.cache
def copy_rate() -> float:
    """Bytes a second, read and written, of a copy on the host: by one thread, or by one for each
    core."""
    source = np.ones(COPIED // 4, np.float32)
    target, cores, best = np.empty_like(source), core_count(), 0.0
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for parts in {1, cores}:
            pairs = list(
                zip(np.array_split(target, parts), np.array_split(source, parts), strict=True)
            )
            copy = lambda pairs=pairs: list(pool.map(lambda pair: np.copyto(*pair), pairs))
            best = max(best, 2 * COPIED / median_seconds(copy, 5))
    return best


def core_count() -> int:
    """The processors that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Names, versions and rates."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    products = {name: round(rate / 1e9, 1) for name, rate in product_rates().items()}
    return {
        "processor": _processor(),
        "cores": core_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
        "product_gflops": products,
        "copy_gb_per_s": round(rates().bandwidth / 1e9, 1),
    }


def _processor() -> str:
    """The model of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"


def busy_share(seconds: float = 1.0) -> float | None:
    """The share of the processors' time that other work takes just now; None where unknown."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """Busy ticks and all ticks of the processors since the machine started (Linux)."""
    try:
        with open("/proc/stat") as file:
            numbers = [int(n) for n in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = numbers[3] + numbers[4]  # idle, and waiting for a disk
    return sum(numbers) - idle, sum(numbers)
