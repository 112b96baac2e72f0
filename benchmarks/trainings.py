"""The two trainings of README's toy as whole processes, nothing cached."""

import sys

from benchmarks.settings import ROOT, Settings
from benchmarks.startup import figures
from benchmarks.table import Row
from benchmarks.timing import middle, run_process


def rows(settings: Settings) -> list[Row]:
    """Time, processor time and memory of each."""
    runs: dict[str, list] = {"tokenizer": [], "genhmr": []}
    for number in range(settings.repeats):
        # Nothing is kept from one repeat to the next, and nothing by the first for the second.
        folder = settings.work / f"trainings_{number}"
        for stage, processes in runs.items():
            command = [sys.executable, "-m", "genhmr_jax.main"]
            command += [f"--config=configs/{stage}/tiny.py", f"--workdir={folder}/{stage}"]
            if stage == "genhmr":
                command.append(f"--config.tokenizer={folder}/tokenizer/model")
            environment = settings.environment(folder / f"cache_{stage}")
            processes.append(run_process(command, environment, str(ROOT)))
    return [
        row
        for stage, processes in runs.items()
        for row in figures(f"training configs/{stage}/tiny.py", middle(processes))
    ]
