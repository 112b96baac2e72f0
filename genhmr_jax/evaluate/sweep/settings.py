"""Reading a sweep file and the --set overrides, and checking both against the configs before
anything runs."""

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
    """The sweep of "configs/sweeps/FILE.py:arg".

    Raises:
      InputError: no such file or argument (the nearest names are given), or one that returns no
        sweep.
    """
    file, sweep = name.partition(":")[0], call(name, "get_sweep")
    if not isinstance(sweep, Sweep) or not sweep.points:
        raise InputError(
            file,
            "get_sweep() returns no genhmr_jax.evaluate.sweep.definition.Sweep with points",
            "see configs/sweeps/ for examples",
        )
    names = [point.name for point in sweep.points]
    if len(set(names)) < len(names):
        raise InputError(
            file,
            f"has points of the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}",
            "rename them",
        )
    return sweep


def config_file(sweep_name: str, config: str) -> str:
    """The path of a config that a sweep names: in the folder above the sweep's own, or else in
    ./configs."""
    file = pathlib.Path(sweep_name.partition(":")[0]).parent.parent / config
    return str(
        file
        if file.with_name(file.name.partition(":")[0]).exists()
        else pathlib.Path("configs") / config
    )


def read_set(texts: Sequence[str], sweep: Sweep, sweep_name: str) -> dict[str, dict[str, Any]]:
    """--set texts as overrides of each of KINDS.

    "tokenizer.x", "genhmr.x" and "evaluate.x" go to one; any other field goes to each stage whose
    config has it.

    Raises:
      InputError: an unknown field (with the nearest), a value of another type, or a field that the
        sweep itself varies.
    """
    configs = {
        "tokenizer": load_config(config_file(sweep_name, sweep.tokenizer_config), sweep.tokenizer)
    }
    configs["genhmr"] = load_config(config_file(sweep_name, sweep.genhmr_config), sweep.genhmr)
    known = {kind: set(field_names(config)) for kind, config in configs.items()}
    known["evaluate"] = {field.name for field in dataclasses.fields(Settings)}
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(
                f"--set {text}", "says no value", "give KEY=VALUE, like --set genhmr.steps=500"
            )
        kind, _, field = key.partition(".")
        targets = (
            [(kind, field)]
            if kind in KINDS and field
            else [(k, key) for k in ("tokenizer", "genhmr") if key in known[k]]
        )
        everything = sorted(
            {f for k in ("tokenizer", "genhmr") for f in known[k]}
            | {f"{k}.{f}" for k in KINDS for f in known[k]}
        )
        if not targets or targets[0][1] not in known[targets[0][0]]:
            raise InputError(
                f"--set {text}", f"no config has a field {key!r}", nearest(key, everything)
            )
        for kind, field in targets:
            if any(field in getattr(point, kind) for point in sweep.points):
                remedy = (
                    f"leave it out, or copy {sweep_name.partition(':')[0]} and change its points"
                )
                raise InputError(
                    f"--set {text}", f"is what the sweep itself varies ({sweep.axis})", remedy
                )
            old = (
                getattr(Settings, field)
                if kind == "evaluate"
                else field_value(configs[kind], field)
            )
            found[kind][field] = parse_value(value, old, field, f"--set {text}")
    return found
