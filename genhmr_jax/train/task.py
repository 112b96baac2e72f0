"""What a training stage is to the loop, and which stage a config names."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax

from genhmr_jax.io.model_folder import warm_start

log = logging.getLogger("genhmr_jax")

Place = Callable[[Any], Any]  # host arrays of a whole batch -> global arrays, rows split over the mesh


class Task(Protocol):
    """A stage. Its arrays: `params` are trained; `extra` is state that the loss itself carries on (a codebook); `frozen` is only read.

    The loss of a batch is a plain sum over its rows of weight x value, with weights that `prepare` makes once for the whole batch. So
    the sum over micro-batches is exact, and everything random is drawn in `prepare`, for each row from its own number: how a batch
    is split over devices, processes and micro-batches never changes what is computed.
    """

    frozen: Any

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """(params, extra), pytrees of dicts. Pure."""

    def warm_start(self, params: Any) -> Any:
        """`params` with what `config.init` names taken over."""

    def sources(self) -> dict[str, Any]:
        """The parts of a batch by name, each a data.pipeline.Source. Opens the data, for training and validation."""

    def batch_shapes(self) -> dict[str, Any]:
        """The batch as ShapeDtypeStructs, without opening any data."""

    def prepare(self, frozen: Any, batch: Any) -> Any:
        """Batch -> samples: augmentation, masks, labels, weights; every leaf has the rows first. Pure, no parameters."""

    def loss(self, params: Any, extra: Any, frozen: Any, sample: Any) -> tuple[jax.Array, dict[str, Any]]:
        """-> loss, {"terms": its named parts, "metrics": scalars (sums too), "carry": arrays with rows first}. Pure."""

    def next_extra(self, extra: Any, carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        """-> next extra, metrics of the whole batch. Pure."""

    def without_remat(self) -> "Task":
        """The same task storing all activations: for counting what the model itself computes."""

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Measures on the validation split; equal on every process."""

    def export(self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]) -> None:
        """Writes the model for use, from host arrays."""


def take_over(directories: str, params: Any) -> Any:
    """`params` with the arrays of model folders that fit, and a log of which did; as they are where no folder is named.

    Args:
      directories: with commas between; what several have is the last one's.
    """
    for directory in filter(None, directories.split(",")):
        params, report = warm_start(directory, params)
        log.info("from %s: %s", directory, ", ".join(f"{len(names)} {kind}" for kind, names in report.items()))
        for kind in ("missing", "misfit", "unused"):
            log.info("%s: %s", kind, " ".join(report[kind]) or "none")
    return params
