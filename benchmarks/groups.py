"""The groups of benchmarks: one module each, with a function `rows`."""

import dataclasses
import importlib
import inspect
import traceback

from benchmarks import table
from benchmarks.settings import Settings
from benchmarks.table import Row


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of rows.

    Attributes:
      title: its heading.
      module: of this package; its `rows(settings)` returns Rows, or what `table.of_timing` takes.
        `rows()` is called without settings if it takes none.
      quick: whether --quick includes it.
    """

    title: str
    module: str
    quick: bool = True


FAILED = "failed: "
"""The start of the note of a row in place of a group that raised an error."""

GROUPS = {
    "startup": Group("Start-up: `genhmr demo` as a whole process", "startup"),
    "photo": Group("A further photo", "photo"),
    "folder": Group("A folder of photos", "folder"),
    "smpl": Group("SMPL", "smpl"),
    "networks": Group("Tokenizer and decoder", "networks"),
    "sampling": Group("Uncertainty-guided sampling", "ugs"),
    "refinement": Group("2D pose-guided refinement", "refine"),
    "data": Group("Data pipeline", "data_pipeline"),
    "train": Group("Train step", "train_step"),
    "checkpoint": Group("Checkpoints", "checkpoint"),
    "trainings": Group("The tiny trainings of README", "trainings", quick=False),
    "compile": Group("Compile time", "compile_time", quick=False),
    "vit": Group("ViT", "vit_vs_torch", quick=False),
    "attention": Group("Attention on a TPU that is not here", "attention_aot", quick=False),
    "lifting": Group("Errors of lifting", "lifting", quick=False),
    "gpu": Group("GPU", "gpu"),
}


def collect(name: str, settings: Settings) -> list[Row]:
    """The rows of a group. A failure is a row too: it does not stop the other groups."""
    group = GROUPS[name]
    try:
        module = importlib.import_module(f"benchmarks.{group.module}")
        takes = inspect.signature(module.rows).parameters
        found = list(module.rows(settings) if "settings" in takes else module.rows())
    except ImportError as error:
        return [table.not_available(group.title, str(error))]
    except Exception as error:
        traceback.print_exc()
        return [Row(group.title, None, note=f"{FAILED}{type(error).__name__}: {error}")]
    return [row if isinstance(row, Row) else table.of_timing(row) for row in found]
