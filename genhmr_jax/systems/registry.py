"""The registry of systems. A kind is the `stage` of a config and the `kind` of a model folder.

A system is added by `register`, or by an installed package with an Entry in the entry point group
`genhmr_jax.systems`. docs/adding_a_system.md has an example.
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
from genhmr_jax.io.errors import EXPORT_AGAIN, InputError, blamed_on
from genhmr_jax.train import ranges
from genhmr_jax.train.lora import adapted
from genhmr_jax.train.task import Task

log = logging.getLogger("genhmr_jax")

GROUP = "genhmr_jax.systems"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The modules of a system, imported on first use: inference does not import training.

    Attributes:
      system: module with `make_system(spec: dict) -> System`, where `spec` is that of a model's
        config.json. "" for a network that does not recover people.
      task: module with `make_task(config) -> Task` and `abstract_task(config, *under) -> Task`.
        The abstract task has shapes in place of trained arrays; `under` are the configs of the
        models over which it is trained. "" for a system without training.
      recovers: "people", or "hands" (recover/hands.py).
    """

    system: str = ""
    task: str = ""
    recovers: str = "people"


_REGRESSORS = Entry("genhmr_jax.systems.regressors.system", "genhmr_jax.systems.regressors.task")
_ENTRIES: dict[str, Entry] = {
    "genhmr": Entry("genhmr_jax.systems.genhmr.system", "genhmr_jax.systems.genhmr.task"),
    "posturehmr": Entry(
        "genhmr_jax.systems.posturehmr.system", "genhmr_jax.systems.posturehmr.task"
    ),
    "mesh2d": Entry(task="genhmr_jax.systems.posturehmr.mesh2d_task"),
    "maskhand": Entry(
        "genhmr_jax.systems.maskhand.system", "genhmr_jax.systems.maskhand.task", "hands"
    ),
    "hmr2": _REGRESSORS,
    "tokenhmr": _REGRESSORS,
    "mqhmr": Entry("genhmr_jax.systems.regressors.multi_query_system", _REGRESSORS.task),
    "regressor": Entry(task=_REGRESSORS.task),
    "tokenizer": Entry(task="genhmr_jax.systems.tokenizer.task"),
    "lifter": Entry(task="genhmr_jax.systems.lifter.task"),
    "hand_lifter": Entry(task="genhmr_jax.systems.lifter.hand_task"),
    "neurik": Entry(task="genhmr_jax.systems.biopose.task"),
}


def register(kind: str, entry: Entry) -> None:
    """Add a system, or replace one."""
    _ENTRIES[kind] = entry


@functools.cache
def _installed() -> dict[str, Entry]:
    """The systems of other installed packages. A broken one is skipped with a warning."""
    found = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            found[point.name] = point.load()
        except Exception as error:  # the package may raise any type
            log.warning("the system %s (%s) cannot be loaded: %s", point.name, point.value, error)
    return found


def entries() -> dict[str, Entry]:
    """All systems by kind."""
    return _installed() | _ENTRIES


def kinds(recovers: str = "people") -> tuple[str, ...]:
    """The kinds of systems that recover people, or hands."""
    found = entries().items()
    return tuple(kind for kind, entry in found if entry.system and entry.recovers == recovers)


def system_of(meta: dict[str, Any], where: object, recovers: str = "people") -> System:
    """The system of a model's config.json.

    Args:
      meta: its content.
      where: its folder, for errors.
      recovers: what it must recover: "people" or "hands".

    Raises:
      InputError: this kind does not recover them, or the spec is of another version.
    """
    kind = meta.get("kind")
    if kind not in kinds(recovers):
        recipes = {"people": "genhmr/keypoints.py", "hands": "maskhand/cpu.py"}
        remedy = f"give the model folder of a training (--config=configs/{recipes[recovers]})"
        if kind == "vit":
            remedy = "start a training from it with --config.init"
        if recovers == "people" and kind in kinds("hands"):
            remedy = "use `genhmr hands`"
        raise InputError(where, f"is a {kind!r} model, which does not recover {recovers}", remedy)
    try:
        system = importlib.import_module(entries()[kind].system).make_system(meta["spec"])
        system.shapes  # noqa: B018 (raises an error if the sizes of the spec do not fit)
        return system
    except (TypeError, KeyError, ValueError) as error:
        problem = f"config.json does not describe a model ({error})"
        raise InputError(where, problem, EXPORT_AGAIN) from error


def make_task(config: ml_collections.ConfigDict) -> Task:
    """The training task of `config.stage`, over the trained models that the config names.

    Raises:
      InputError: the stage is unknown, a field of the config is out of range, or a named model is
        missing or of another kind.
    """
    return _task(config, "make_task")


def abstract_task(config: ml_collections.ConfigDict, *under: ml_collections.ConfigDict) -> Task:
    """The task with shapes in place of trained arrays, which compiles without a trained model.

    Args:
      config: of any stage.
      under: configs of the models over which it is trained: of the tokenizer, for GenHMR.
    """
    return _task(config, "abstract_task", *under)


def _task(
    config: ml_collections.ConfigDict, function: str, *under: ml_collections.ConfigDict
) -> Task:
    """The task that a function of the stage's module makes of a config, which is checked first."""
    ranges.check(config)
    with blamed_on("--config.model", "choose values that fit"):
        return adapted(getattr(_task_module(config), function)(config, *under), config)


def _task_module(config: ml_collections.ConfigDict) -> types.ModuleType:
    stages = [kind for kind, entry in entries().items() if entry.task]
    if config.stage not in stages:
        remedy = f"it must be one of {', '.join(stages)}"
        raise InputError("config.stage", f"is {config.stage!r}", remedy)
    return importlib.import_module(entries()[config.stage].task)
