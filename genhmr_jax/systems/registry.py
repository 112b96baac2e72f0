"""The systems by kind: the `stage` of a config, and the `kind` of a model folder.

A system is added with `register`, or by an installed package that names its Entry in the entry
point group `genhmr_jax.systems`; docs/adding_a_system.md has an example.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import logging
import types
from typing import Any

import ml_collections

from genhmr_jax.core.system import System
from genhmr_jax.io.errors import InputError
from genhmr_jax.train.lora import adapted
from genhmr_jax.train.task import Task

log = logging.getLogger("genhmr_jax")

GROUP = "genhmr_jax.systems"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a system is. Modules are imported when they are used: recovering does not import
    training.

    Attributes:
      system: module with `make_system(spec: dict) -> System`, for the spec of a model's
        config.json; "" for what is trained but recovers nobody.
      task: module with `make_task(config) -> Task`, and `abstract_task(config, *under) -> Task`,
        which has shapes in place of trained arrays; `under` are configs of what it is trained over.
        "": it is not trained here.
    """

    system: str = ""
    task: str = ""


_REGRESSORS = Entry("genhmr_jax.systems.regressors.system", "genhmr_jax.systems.regressors.task")
_ENTRIES: dict[str, Entry] = {
    "genhmr": Entry("genhmr_jax.systems.genhmr.system", "genhmr_jax.systems.genhmr.task"),
    "hmr2": _REGRESSORS,
    "tokenhmr": _REGRESSORS,
    "regressor": Entry(task=_REGRESSORS.task),
    "tokenizer": Entry(task="genhmr_jax.systems.tokenizer.task"),
    "lifter": Entry(task="genhmr_jax.systems.lifter.task"),
}


def register(kind: str, entry: Entry) -> None:
    """Adds a system, or replaces one."""
    _ENTRIES[kind] = entry


@functools.cache
def _installed() -> dict[str, Entry]:
    """The systems of other installed packages; a broken one is left out with a warning."""
    found = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            found[point.name] = point.load()
        except Exception as error:  # whatever that package raises
            log.warning("the system %s (%s) cannot be loaded: %s", point.name, point.value, error)
    return found


def entries() -> dict[str, Entry]:
    """All systems by kind."""
    return _installed() | _ENTRIES


def kinds() -> tuple[str, ...]:
    """The kinds of systems that recover people."""
    return tuple(kind for kind, entry in entries().items() if entry.system)


def system_of(meta: dict[str, Any], where: object) -> System:
    """The system that a model's config.json describes.

    Args:
      meta: its content.
      where: its folder, for errors.

    Raises:
      InputError: it is of a kind that recovers nobody, or its spec is of another version.
    """
    kind = meta.get("kind")
    if kind not in kinds():
        remedy = "give the model folder of a training (--config=configs/genhmr/keypoints.py)"
        if kind == "vit":
            remedy = "start a training from it with --config.init"
        raise InputError(where, f"is a {kind!r} model, which recovers nobody", remedy)
    try:
        return importlib.import_module(entries()[kind].system).make_system(meta["spec"])
    except (TypeError, KeyError, ValueError) as error:
        problem = f"config.json does not describe a model ({error})"
        raise InputError(where, problem, "export or convert the model again") from error


def make_task(config: ml_collections.ConfigDict) -> Task:
    """The training task of `config.stage`, over the trained models that the config names.

    Raises:
      InputError: an unknown stage, or a model that is missing or another one.
    """
    return adapted(_task_module(config).make_task(config), config)


def abstract_task(config: ml_collections.ConfigDict, *under: ml_collections.ConfigDict) -> Task:
    """The task with shapes in place of trained arrays: to compile it without data and without a
    trained model.

    Args:
      config: of any stage.
      under: configs of what it is trained over: of the tokenizer, for GenHMR.
    """
    return adapted(_task_module(config).abstract_task(config, *under), config)


def _task_module(config: ml_collections.ConfigDict) -> types.ModuleType:
    stages = [kind for kind, entry in entries().items() if entry.task]
    if config.stage not in stages:
        raise InputError(
            "config.stage", f"is {config.stage!r}", f"it must be one of {', '.join(stages)}"
        )
    return importlib.import_module(entries()[config.stage].task)
