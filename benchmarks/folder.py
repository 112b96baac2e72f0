"""`genhmr recover` of a folder as a whole process: photos and people a second, with pictures and
without."""

import re
import sys

from benchmarks import machine, photos
from benchmarks.photo import flops_of_a_person
from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row
from benchmarks.timing import run_process

COUNT = 100
FEW = 10  # photos of a quick run, and of the run whose time is subtracted


def rows(settings: Settings) -> list[Row]:
    """Rates of the photos beyond the first ones: start-up and compilation do not count.

    Two folders are recovered, one of FEW photos and the whole one. The rate is that of the
    difference.
    """
    every = settings.photos or photos.make(
        settings.work / "photos", FEW if settings.quick else COUNT
    )
    files = sorted(path for path in every.iterdir() if path.is_file())
    few = files[: max(len(files) // 10, 1)] if len(files) <= FEW else files[:FEW]
    flops, source = flops_of_a_person()
    found = []
    for name, flags in (("with pictures", []), ("without pictures", ["--no-overlay"])):
        recover(settings, few, flags)  # fills the caches
        start, whole = recover(settings, few, flags), recover(settings, files, flags)
        seconds = whole["wall"] - start["wall"]
        counts = {
            "photos/s": (whole["photos"] - start["photos"]) / seconds,
            "people/s": (whole["people"] - start["people"]) / seconds,
        }
        note = f"{len(files)} photos, whole process {whole['wall']:.0f} s"
        for unit, rate in counts.items():
            people = unit == "people/s"
            floor = machine.rates().flops / flops if people else None
            text = source if people else ""
            found.append(
                Row(f"folder, {name}", rate, unit, floor=floor, floor_from=text, note=note)
            )
        found.append(Row(f"folder, {name}: peak memory", whole["peak"], "MiB"))
    return found


def recover(settings: Settings, files: list, flags: list[str]) -> dict[str, float]:
    """Seconds, photos, people and memory of one `genhmr recover`."""
    command = [sys.executable, "-m", "genhmr_jax.cli.main", "recover", *map(str, files)]
    command += [f"--out={settings.work}/recovered", *flags]
    done = run_process(command, settings.environment(), str(ROOT))
    people = [int(n) for n in re.findall(r": (\d+) (?:person|people)\b", done.stdout)]
    return {"wall": done.wall, "peak": done.peak, "photos": len(people), "people": sum(people)}
