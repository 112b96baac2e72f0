"""Rows that need a GPU: people a second of the default pipeline's solve, and the model FLOPs
utilisation of a ViT-H's train step."""

import jax
import numpy as np

from benchmarks import photo
from benchmarks.settings import Settings
from benchmarks.table import Row, not_available
from benchmarks.timing import median_seconds
from benchmarks.train_step import measure
from genhmr_jax.recover.photo import RecoverOptions

PEOPLE = (64, 256)  # rows of a solve
IMAGES = 64  # of a train step


def rows(settings: Settings) -> list[Row]:
    """Both, on the first device; the floor of the train step is the device's peak."""
    if jax.default_backend() != "gpu":
        return [not_available("GPU", "JAX finds none")]
    model, options, found = photo.recoverer(), RecoverOptions(), []
    for count in PEOPLE:
        inputs = photo.people_of_sample(count)
        solve = lambda i=inputs, n=count: jax.block_until_ready(
            model.solve(i, np.arange(n), options)
        )
        seconds = median_seconds(solve, 5)
        found.append(Row(f"solve of {count} people", count / seconds, "people/s"))
    if settings.quick:
        return [*found, not_available("train step of a ViT-H", "left out by --quick")]
    step = measure("configs/genhmr/vit.py:h", batch=IMAGES, profiled=False)
    mfu = step["mfu"]
    return [
        *found,
        Row(
            f"train step of a ViT-H, batch {IMAGES}",
            step["rows_per_s"],
            "images/s",
            floor=step["rows_per_s"] / mfu if mfu else None,
            floor_from="the peak of the device's data sheet, bfloat16" if mfu else "",
            note=f"MFU {100 * mfu:.0f} %" if mfu else "peak unknown",
        ),
    ]
