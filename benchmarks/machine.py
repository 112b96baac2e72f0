"""The machine: its name, its versions, whether it is idle, and the rates that give the floors."""

import concurrent.futures
import functools
import importlib.metadata
import os
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import best_seconds

PACKAGES = ("jax", "jaxlib", "numpy", "torch")
BUSY = 0.1  # share of the processors that other work may take
SIZES = (512, 1024, 2048)  # of the square matrices whose product is measured
LOG_COPIED = 28
COPIED = 2**LOG_COPIED  # bytes of the array that is copied: larger than any cache
ON_DEVICE = 2**30  # the same on an accelerator


def floor(flops: float, moved: float = 0.0) -> float:
    """Seconds below which JAX's first device cannot do so many operations and move so many bytes.

    On a CPU, NumPy's product counts too if it is faster than JAX's, and the rate of copies is that
    of so many bytes, which may fit into a cache.
    """
    host = jax.default_backend() == "cpu"
    product = max(product_rates().values()) if host else product_rates()["jax"]
    bandwidth = copy_rate(moved) if host else device_copy_rate()
    return max(flops / product, moved / bandwidth)


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
            best[name] = max(best[name], 2 * size**3 / best_seconds(call, 10))
    return best


def copy_rate(moved: float = 2 * COPIED) -> float:
    """Bytes a second, read and written, of a copy on the host that moves so many bytes, rounded up
    to a power of two."""
    return _copy_rate(min(max(int(np.ceil(np.log2(max(moved, 1) / 2))), 20), LOG_COPIED))


@functools.cache
def _copy_rate(log_bytes: int) -> float:
    """The rate for an array of 2^log_bytes bytes: by one thread, or by one for each core."""
    source = np.ones(2**log_bytes // 4, np.float32)
    target, cores, best = np.empty_like(source), core_count(), 0.0
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for parts in {1, cores}:
            pairs = list(
                zip(np.array_split(target, parts), np.array_split(source, parts), strict=True)
            )
            copy = lambda pairs=pairs: [np.copyto(*pair) for pair in pairs]
            if parts > 1:
                copy = lambda pairs=pairs: list(pool.map(lambda pair: np.copyto(*pair), pairs))
            best = max(best, 2 * source.nbytes / best_seconds(copy, 10))
    return best


@functools.cache
def device_copy_rate() -> float:
    """Bytes a second that JAX's first device reads and writes when it negates a large array."""
    array, negate = jnp.ones(ON_DEVICE // 4), jax.jit(jnp.negative)
    return 2 * ON_DEVICE / best_seconds(lambda: negate(array).block_until_ready(), 10)


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
        "copy_gb_per_s": round(copy_rate() / 1e9, 1),
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
