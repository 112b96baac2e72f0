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
"""A function that puts the host arrays of a whole batch on the mesh, split by rows."""


class Task(Protocol):
    """The training of one system: data, samples, loss, validation and export.

    A task has three trees of arrays. `params` is trained. `extra` is state that the task updates
    after each step, such as a codebook. `frozen` is only read.

    The loss of a batch is a plain sum over its rows of weight x value, with weights that `prepare`
    computes once for the whole batch. Therefore the sum over micro-batches is exact. All random
    numbers are drawn in `prepare`, for each row from its own number. The split of a batch over
    devices, processes and micro-batches thus never changes the result.

    A task inherits the methods that have a body, and overrides those that differ.

    Attributes:
      frozen: arrays, see above; shapes in a task that is only compiled.
      system: the system of the exported model; None for a stage that does not recover people.
    """

    frozen: Any
    system: System | None = None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Make (params, extra), pytrees of dicts. Pure."""
        ...

    def warm_start(self, params: Any) -> Any:
        """Replace arrays of `params` by those of `config.init`; by default none."""
        return params

    def sources(self) -> dict[str, Any]:
        """The parts of a batch by name, each a data.pipeline.Source.

        The data of training and validation are opened here, so that missing data stops the run at
        its start.
        """
        ...

    def batch_shapes(self) -> dict[str, Any]:
        """The batch as ShapeDtypeStructs, without opening any data."""
        ...

    def prepare(self, frozen: Any, batch: Any) -> Any:
        """Make samples of a batch: augmentation, masks, labels, weights. Leaves have rows first.

        Pure, and independent of the parameters.
        """
        ...

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Any
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Compute the loss and its parts. Pure.

        Returns:
          the loss, and {"terms": its named parts, "metrics": scalars, which are sums over rows too,
          "carry": arrays with rows first, for `next_extra`}.
        """
        ...

    def next_extra(
        self, extra: Any, carry: Any, key: jax.Array
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Compute the next `extra`, and metrics of the whole batch. Pure."""
        return extra, {}

    def without_remat(self) -> "Task":
        """The same task without rematerialisation, to count the FLOPs of the model itself."""
        return self

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Evaluate on the validation split; the results are equal on every process."""
        ...

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        """Write the model folder from host arrays."""
        ...


def take_over(directories: str, params: Any, part: str) -> Any:
    """Replace arrays of `params` by those of model folders that fit; the log lists them.

    Args:
      directories: separated by commas; a later folder takes precedence. "": no change.
      params: the arrays to replace.
      part: their name in the folders.
    """
    for directory in filter(None, directories.split(",")):
        params, report = warm_start(directory, params, part)
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in report.items())
        log.info("from %s: %s", directory, counts)
        for kind in ("missing", "misfit", "unused"):
            log.info("%s: %s", kind, " ".join(report[kind]) or "none")
    return params
