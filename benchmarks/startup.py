"""`genhmr demo` as a whole process: the first one ever, and a second one, whose programs are
cached."""

import sys

from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row, not_available
from benchmarks.timing import COUNT_PROGRAMS, Process, middle, run_process

FLOOR = "import jax, jax.numpy as jnp; jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()"
"""The least that a process with JAX does."""


def demo(settings: Settings, environment: dict[str, str]) -> Process:
    """One `genhmr demo`."""
    command = [sys.executable, "-m", "genhmr_jax.cli.main", "demo", f"--out={settings.work}/demo"]
    return run_process(command, environment, str(ROOT))


def rows(settings: Settings) -> list[Row]:
    """Time, processor time and memory of both, and the programs of the second one."""
    found = []
    if settings.quick:
        found.append(not_available("first demo ever, nothing cached", "left out by --quick"))
    else:
        cold = demo(settings, settings.environment(settings.work / "empty_cache"))
        found += figures("first demo ever, nothing cached", cold)
    # The caches of this run are filled by a demo that also counts its programs.
    warm = settings.environment()
    demo(settings, warm)
    counted = demo(settings, warm | COUNT_PROGRAMS)
    second = middle([demo(settings, warm) for _ in range(settings.repeats)])
    floor = middle([run_process([sys.executable, "-c", FLOOR], warm) for _ in range(3)])
    found += figures("second demo", second, floor)
    found.append(Row("second demo: programs compiled or read", counted.programs, "programs"))
    return found


def figures(name: str, process: Process, floor: Process | None = None) -> list[Row]:
    """Rows of a process; the floor is another one."""
    source = "a process with JAX" if floor else ""
    units = {"wall": "s", "user": "s", "peak": "MiB"}
    names = {"wall": "wall", "user": "user processor time", "peak": "peak memory"}
    return [
        Row(
            f"{name}: {names[field]}",
            getattr(process, field),
            unit,
            floor=getattr(floor, field) if floor else None,
            floor_from=source,
        )
        for field, unit in units.items()
    ]
