"""Reads a sweep file and the --set overrides, and checks both against the configs."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.evaluate.sweep.definition import Sweep
from genhmr_jax.io.config_files import (
    call,
    field_names,
    field_value,
    load_config,
    nearest,
    parse_value,
)
from genhmr_jax.io.errors import InputError

KINDS = ("tokenizer", "genhmr", "evaluate")


def load_sweep(name: str) -> Sweep:
    """Load the sweep of "configs/sweeps/FILE.py:arg".

    Raises:
      InputError: the file or the argument does not exist (the nearest names are given), or does not
        return a sweep.
    """
    file, sweep = name.partition(":")[0], call(name, "get_sweep")
    if not isinstance(sweep, Sweep) or not sweep.points:
        problem = "get_sweep() returns no genhmr_jax.evaluate.sweep.definition.Sweep with points"
        raise InputError(file, problem, "see configs/sweeps/ for examples")
    names = [point.name for point in sweep.points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(file, f"has points of the same name: {', '.join(twice)}", "rename them")
    return sweep


def config_file(sweep_name: str, config: str) -> str:
    """The path of a config of a sweep: in the folder above the sweep's, or else in ./configs."""
    file = pathlib.Path(sweep_name.partition(":")[0]).parent.parent / config
    if not file.with_name(file.name.partition(":")[0]).exists():
        file = pathlib.Path("configs") / config
    return str(file)


def read_set(texts: Sequence[str], sweep: Sweep, sweep_name: str) -> dict[str, dict[str, Any]]:
    """Parse --set texts to overrides {field: value} of each of KINDS.

    "tokenizer.x", "genhmr.x" and "evaluate.x" apply to one kind. Any other field applies to each
    stage whose config has it.

    Raises:
      InputError: an unknown field (the nearest one is given), a value of another type, or a field
        that the sweep varies.
    """
    # 1. The known fields of each kind.
    configs = {
        "tokenizer": load_config(config_file(sweep_name, sweep.tokenizer_config), sweep.tokenizer),
        "genhmr": load_config(config_file(sweep_name, sweep.genhmr_config), sweep.genhmr),
    }
    known = {kind: set(field_names(config)) for kind, config in configs.items()}
    known["evaluate"] = {field.name for field in dataclasses.fields(Settings)}
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for text in texts:
        # 2. The kinds to which a text applies.
        where, (key, equals, value) = f"--set {text}", text.partition("=")
        if not equals:
            raise InputError(where, "has no value", "give KEY=VALUE, like --set genhmr.steps=500")
        kind, _, field = key.partition(".")
        targets = [(kind, field)]
        if kind not in KINDS or not field:
            targets = [(k, key) for k in configs if key in known[k]]
        if not targets or targets[0][1] not in known[targets[0][0]]:
            prefixed = {f"{k}.{f}" for k in KINDS for f in known[k]}
            everything = sorted(known["tokenizer"] | known["genhmr"] | prefixed)
            raise InputError(where, f"no config has a field {key!r}", nearest(key, everything))

        # 3. Its value for each of them.
        for kind, field in targets:
            if any(field in getattr(point, kind) for point in sweep.points):
                file = sweep_name.partition(":")[0]
                remedy = f"leave it out, or copy {file} and change its points"
                raise InputError(where, f"is a field that the sweep varies ({sweep.axis})", remedy)
            old = getattr(Settings, field, None)
            if kind != "evaluate":
                old = field_value(configs[kind], field)
            found[kind][field] = parse_value(value, old, field, where)
    return found
