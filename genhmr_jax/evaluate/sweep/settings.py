"""Reads a sweep file and the --set overrides, and checks both against the configs."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.evaluate.sweep.definition import EVALUATE, Overrides, Sweep
from genhmr_jax.io.config_files import (
    call,
    field_names,
    field_value,
    load_config,
    nearest,
    parse_value,
)
from genhmr_jax.io.errors import InputError


def load_sweep(name: str) -> Sweep:
    """Load the sweep of "configs/sweeps/FILE.py:arg".

    Raises:
      InputError: the file or the argument does not exist (the nearest names are given), or does not
        return a sweep of two stages whose overrides are of these stages or of the evaluation.
    """
    file, sweep = name.partition(":")[0], call(name, "get_sweep")
    if not isinstance(sweep, Sweep) or not sweep.points:
        problem = "get_sweep() returns no genhmr_jax.evaluate.sweep.definition.Sweep with points"
        raise InputError(file, problem, "see configs/sweeps/ for examples")
    if len(sweep.configs) != 2:
        problem = f"has configs of {len(sweep.configs)} stages"
        raise InputError(file, problem, "give two, the first stage and the second")
    names = [point.name for point in sweep.points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(file, f"has points of the same name: {', '.join(twice)}", "rename them")
    _check_kinds(sweep.overrides, sweep, file)
    for point in sweep.points:
        _check_kinds(point.overrides, sweep, f"{file}, point {point.name}")
    return sweep


def _check_kinds(overrides: Overrides, sweep: Sweep, where: str) -> None:
    """Raise InputError for overrides of a kind that the sweep does not have."""
    for kind in overrides:
        if kind not in sweep.kinds:
            raise InputError(where, f"has overrides of {kind!r}", nearest(kind, sweep.kinds))


def config_file(sweep_name: str, config: str) -> str:
    """The path of a config of a sweep: in the folder above the sweep's, or else in ./configs."""
    file = pathlib.Path(sweep_name.partition(":")[0]).parent.parent / config
    if not file.with_name(file.name.partition(":")[0]).exists():
        file = pathlib.Path("configs") / config
    return str(file)


def read_set(texts: Sequence[str], sweep: Sweep, sweep_name: str) -> dict[str, dict[str, Any]]:
    """Parse --set texts to overrides {field: value} of each kind of the sweep.

    "STAGE.x" and "evaluate.x" apply to one kind. Any other field applies to each stage whose config
    has it.

    Raises:
      InputError: an unknown field (the nearest one is given), a value of another type, or a field
        that the sweep sets itself: one that it varies, or the folder of the first stage.
    """
    # 1. The known fields of each kind.
    first, second = sweep.stages
    configs = {
        stage: load_config(config_file(sweep_name, config), sweep.overrides.get(stage, {}))
        for stage, config in sweep.configs.items()
    }
    known = {stage: set(field_names(config)) for stage, config in configs.items()}
    known[EVALUATE] = {field.name for field in dataclasses.fields(Settings)}
    found: dict[str, dict[str, Any]] = {kind: {} for kind in sweep.kinds}
    for text in texts:
        # 2. The kinds to which a text applies.
        where, (key, equals, value) = f"--set {text}", text.partition("=")
        if not equals:
            raise InputError(where, "has no value", f"give KEY=VALUE, like --set {second}.steps=9")
        kind, _, field = key.partition(".")
        targets = [(kind, field)]
        if kind not in sweep.kinds or not field:
            targets = [(stage, key) for stage in configs if key in known[stage]]
        if not targets or targets[0][1] not in known[targets[0][0]]:
            prefixed = {f"{k}.{f}" for k in sweep.kinds for f in known[k]}
            everything = sorted(known[first] | known[second] | prefixed)
            raise InputError(where, f"no config has a field {key!r}", nearest(key, everything))
        if (second, first) in targets:
            raise InputError(where, "is the folder of the first stage", "give --first-stage=DIR")

        # 3. Its value for each of them.
        for kind, field in targets:
            if any(field in point.overrides.get(kind, {}) for point in sweep.points):
                file = sweep_name.partition(":")[0]
                remedy = f"leave it out, or copy {file} and change its points"
                raise InputError(where, f"is a field that the sweep varies ({sweep.axis})", remedy)
            old = getattr(Settings, field, None)
            if kind != EVALUATE:
                old = field_value(configs[kind], field)
            found[kind][field] = parse_value(value, old, field, where)
    return found
