"""Uncertainty-guided sampling by its number of iterations T (sampling.py), against one encoding and
T decoder passes."""

from benchmarks import sampling
from benchmarks.settings import Settings
from benchmarks.table import Row

PEER = "encoding and T decoder passes"


def rows(settings: Settings) -> list[Row]:
    """The shipped model, and unless quick a model of the paper's size."""
    quick = {"default_batches": (1,), "paper_batches": (), "rounds": 5}
    return [
        Row(
            f"UGS, {one['model']} model, batch {one['batch']}, T={one['iterations']}",
            one["sampling_ms"] / 1000,
            "s",
            PEER,
            (one["encode_ms"] + one["iterations"] * one["pass_ms"]) / 1000,
            note=f"programs compiled for other T and temperatures: {one['compiled']}",
        )
        for one in sampling.rows(**(quick if settings.quick else {}))
    ]
