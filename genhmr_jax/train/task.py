"""The interface between a system's training and the training loop."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax

from genhmr_jax.core.system import System
from genhmr_jax.io.model_folder import warm_start

log = logging.getLogger("genhmr_jax")

Place = Callable[[Any], Any]
"""Puts the host arrays of a whole batch on the devices, rows split over the mesh."""


class Task(Protocol):
    """What is trained: data, samples, loss, validation and export of one system.

    A task has three trees of arrays. `params` is trained. `extra` is state that the loss itself
    updates, such as a codebook. `frozen` is only read.

    The loss of a batch is a plain sum over its rows of weight x value, with weights that `prepare`
    makes once for the whole batch. So the sum over micro-batches is exact. Everything random is
    drawn in `prepare`, for each row from its own number. Therefore the split of a batch over
    devices, processes and micro-batches never changes the result.

    A task inherits the methods with a body, and overrides what differs.

    Attributes:
      frozen: arrays, see above; shapes in a task that is only compiled.
      system: what the exported model runs as; None for a stage that recovers nobody.
    """

    frozen: Any
    system: System | None = None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """(params, extra), pytrees of dicts. Pure."""
        ...

    def warm_start(self, params: Any) -> Any:
        """`params` with the arrays that `config.init` names; by default as they are."""
        return params

    def sources(self) -> dict[str, Any]:
        """The parts of a batch by name, each a data.pipeline.Source.

        Opens the data of training and validation, so that missing data stops the run at its start.
        """
        ...

    def batch_shapes(self) -> dict[str, Any]:
        """The batch as ShapeDtypeStructs, without opening any data."""
        ...

    def prepare(self, frozen: Any, batch: Any) -> Any:
        """Batch -> samples: augmentation, masks, labels, weights; every leaf has the rows first.

        Pure; independent of the parameters.
        """
        ...

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Any
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The loss, and its parts. Pure.

        Returns:
          loss, and {"terms": its named parts, "metrics": scalars, which are sums over rows too,
          "carry": arrays with rows first, for `next_extra`}.
        """
        ...

    def next_extra(
        self, extra: Any, carry: Any, key: jax.Array
    ) -> tuple[Any, dict[str, jax.Array]]:
        """The next `extra`, and metrics of the whole batch. Pure."""
        return extra, {}

    def without_remat(self) -> "Task":
        """The same task, storing all activations: to count the FLOPs of the model itself."""
        return self

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Measures on the validation split; equal on every process."""
        ...

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        """Writes the model for use, from host arrays."""
        ...


def take_over(directories: str, params: Any) -> Any:
    """`params` with those arrays of model folders that fit; the log lists which did.

    Args:
      directories: separated by commas; the last folder wins. "" leaves `params` as they are.
    """
    for directory in filter(None, directories.split(",")):
        params, report = warm_start(directory, params)
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in report.items())
        log.info("from %s: %s", directory, counts)
        for kind in ("missing", "misfit", "unused"):
            log.info("%s: %s", kind, " ".join(report[kind]) or "none")
    return params
