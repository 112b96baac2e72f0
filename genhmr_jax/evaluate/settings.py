"""Evaluation of trained models. Here are only the settings, without JAX: sweeps check theirs against them before anything runs."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from genhmr_jax.io.config_files import nearest
from genhmr_jax.io.errors import InputError

RULES = ("expected", "final", "hard")
SCHEDULES = ("cosine", "linear", "square", "cubic", "sqrt")  # sampling.SCHEDULES


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is sampled and refined, and on how many views it is measured.

    Attributes:
      iterations: T of uncertainty-guided sampling.
      rule: what is decoded, see predict.sample_bodies.
      schedule: share of tokens still masked after each iteration.
      temperature: 0 takes the most probable tokens.
      refine_steps: gradient steps of the 2D refinement.
      prior_pose: lambda of the refinement, the weight that keeps the pose near the sampled one.
      views: how many simulated views (all images of a set are used).
      batch_size: views at a time; it changes the seconds, not the errors.
      seed: of the views and of sampling.
    """

    iterations: int = 5
    rule: str = "expected"
    schedule: str = "cosine"
    temperature: float = 0.0
    refine_steps: int = 100
    prior_pose: float = 0.004
    views: int = 1024
    batch_size: int = 64
    seed: int = 0

    @staticmethod
    def of(values: Mapping[str, Any], where: object = "evaluate") -> "Settings":
        """Settings with some values changed. Raises InputError for an unknown name (with the nearest), or a value that cannot be."""
        fields = {f.name: f.type for f in dataclasses.fields(Settings)}
        for name, value in values.items():
            if name not in fields:
                raise InputError(where, f"evaluation has no setting {name!r}", nearest(name, fields))
            kind = fields[name]
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise InputError(where, f"{name} cannot be {value!r}", f"give it as {kind.__name__}, like {getattr(Settings, name)!r}")
        settings = Settings(**values)
        for name, low in (("iterations", 1), ("temperature", 0), ("refine_steps", 0), ("prior_pose", 0), ("views", 1), ("batch_size", 1)):
            if not getattr(settings, name) >= low:
                raise InputError(where, f"{name} is {getattr(settings, name)}", f"give at least {low}")
        for name, known in (("rule", RULES), ("schedule", SCHEDULES)):
            if getattr(settings, name) not in known:
                raise InputError(where, f"{name} is {getattr(settings, name)!r}", nearest(getattr(settings, name), known))
        return settings

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """A flag for each setting: --refine-steps=50."""
        for field in dataclasses.fields(Settings):
            flag = "--" + field.name.replace("_", "-")
            parser.add_argument(
                flag, type=field.type, default=field.default, metavar=field.type.__name__.upper(), help="default: %(default)s"
            )

    @staticmethod
    def from_args(args: argparse.Namespace) -> "Settings":
        """From the flags of `add_flags`. Raises InputError."""
        return Settings.of({f.name: getattr(args, f.name) for f in dataclasses.fields(Settings)}, "evaluate")

    def flags(self) -> list[str]:
        """The flags that say this, those that differ from the defaults alone."""
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return [f"--{name.replace('_', '-')}={value}" for name, value in changed.items()]
