"""`genhmr recover` of a folder: photos and people a second, with pictures and without."""

import contextlib
import io
import re
import sys
import time

from benchmarks import machine, photos
from benchmarks.photo import SOURCE, detection_flops, solve_flops
from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row
from benchmarks.timing import run_process
from genhmr_jax.cli.main import main
from genhmr_jax.io.image_files import find_images

COUNT = 100
FEW = 10  # photos of a quick run
KINDS = {"with pictures": [], "without pictures": ["--no-overlay"]}


def rows(settings: Settings) -> list[Row]:
    """Rates in this process after a few photos, so that start-up and compilation do not count; then
    time and memory of a process.

    Raises:
      RuntimeError: nobody is found in any photo.
    """
    folder = settings.photos
    if folder is None:
        folder = photos.make(settings.work / "photos", FEW if settings.quick else COUNT)
    files = [str(path) for path in find_images([str(folder)]).files]
    floor = 1 / machine.floor(detection_flops() + solve_flops(1))
    found = []
    for kind, flags in KINDS.items():
        recover(settings, files[:FEW:3], flags)
        seconds, people = recover(settings, files, flags)
        if not people:
            raise RuntimeError(f"nobody was found in the photos of {folder}")
        name = f"{len(files)} photos, {kind}"
        found.append(Row(name, len(people) / seconds, "photos/s"))
        found.append(Row(name, sum(people) / seconds, "people/s", "", None, floor, SOURCE))
    if settings.quick:
        return found
    for kind, flags in KINDS.items():
        command = [sys.executable, "-m", "genhmr_jax.cli.main", *arguments(settings, files, flags)]
        # A photo without people is an exit code of 1.
        done = run_process(command, settings.environment(), str(ROOT), accepted=(0, 1))
        name = f"{len(files)} photos, {kind}, whole process"
        found.append(Row(f"{name}: wall", done.wall, "s"))
        found.append(Row(f"{name}: user processor time", done.user, "s"))
        found.append(Row(f"{name}: peak memory", done.peak, "MiB"))
    return found


def arguments(settings: Settings, files: list[str], flags: list[str]) -> list[str]:
    """Of `genhmr`."""
    return ["recover", *files, f"--out={settings.work}/recovered", *flags]


def recover(settings: Settings, files: list[str], flags: list[str]) -> tuple[float, list[int]]:
    """Seconds of `genhmr recover` in this process, and the number of people of each photo."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as text:
        main(arguments(settings, files, flags))
    seconds = time.perf_counter() - start
    people = re.findall(r": (\d+) (?:person|people)\b", text.getvalue())
    return seconds, [int(n) for n in people]
