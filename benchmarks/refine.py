"""The 2D refinement (refinement.py) against 100 steps of Adam on the same objective."""

from benchmarks import refinement
from benchmarks.settings import Settings
from benchmarks.table import Row


def rows(settings: Settings) -> list[Row]:
    """Time at each batch, with the mean final losses of both."""
    return [
        Row(
            f"refinement, batch {one['batch']}",
            one["seconds"],
            "s",
            "100 steps of Adam",
            one["adam_seconds"],
            note=f"final loss {1e3 * one['loss']:.3f}e-3, Adam {1e3 * one['adam_loss']:.3f}e-3",
        )
        for one in refinement.rows(rounds=settings.rounds)
    ]
