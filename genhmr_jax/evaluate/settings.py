"""Settings of `evaluate.views`, for its command line and for sweeps.

JAX is not imported, so that sweeps can check their settings quickly.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from genhmr_jax.core.choices import DECODE_RULES, SCHEDULES
from genhmr_jax.io.config_files import nearest
from genhmr_jax.io.errors import InputError

_LEAST = {
    "iterations": 0,
    "temperature": 0,
    "refine_steps": 0,
    "prior_pose": 0,
    "views": 1,
    "batch_size": 1,
}


AUTO = "auto"
ONLY_GENHMR = ("rule", "schedule", "temperature")
"""Settings without meaning for any other system."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of sampling and refinement, and the number of views.

    Attributes:
      iterations: T of sampling. 0 is the number of GenHMR's paper (5), and of any other system its
        own default.
      rule: of GenHMR: the embeddings that are decoded, one of core.choices.DECODE_RULES, or AUTO
        for the rule of the system.
      schedule: of GenHMR: the mask schedule, a key of core.choices.SCHEDULES.
      temperature: of GenHMR: 0 takes the most probable tokens.
      refine_steps: steps of the 2D refinement.
      prior_pose: lambda of the refinement, the weight of the distance from the sampled pose.
      views: number of simulated views. Of an image set, all images are used.
      batch_size: views in a batch; it changes the time but not the errors.
      seed: of the views and of sampling.
    """

    iterations: int = 0
    rule: str = AUTO
    schedule: str = "cosine"
    temperature: float = 0.0
    refine_steps: int = 10
    prior_pose: float = 0.004
    views: int = 1024
    batch_size: int = 64
    seed: int = 0

    @staticmethod
    def of(values: Mapping[str, Any], where: object = "evaluate") -> "Settings":
        """The default settings with other values for some fields.

        Args:
          values: name of a field -> value.
          where: the place of the values, for errors.

        Raises:
          InputError: an unknown name (the nearest known name is given), or a value of a wrong type
            or out of range.
        """
        fields = {f.name: f.type for f in dataclasses.fields(Settings)}
        for name, value in values.items():
            if name not in fields:
                problem = f"evaluation has no setting {name!r}"
                raise InputError(where, problem, nearest(name, fields))
            kind = fields[name]
            allowed = (int, float) if kind is float else kind
            if isinstance(value, bool) or not isinstance(value, allowed):
                remedy = f"give it as {kind.__name__}, like {getattr(Settings, name)!r}"
                raise InputError(where, f"{name} cannot be {value!r}", remedy)
        settings = Settings(**values)
        for name, low in _LEAST.items():
            value = getattr(settings, name)
            if not value >= low:
                raise InputError(where, f"{name} is {value}", f"give at least {low}")
        for name, known in (("rule", (AUTO, *DECODE_RULES)), ("schedule", SCHEDULES)):
            value = getattr(settings, name)
            if value not in known:
                raise InputError(where, f"{name} is {value!r}", nearest(value, known))
        return settings

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Add a flag for each setting, such as --refine-steps=10."""
        for field in dataclasses.fields(Settings):
            parser.add_argument(
                "--" + field.name.replace("_", "-"),
                type=field.type,
                default=field.default,
                metavar=field.type.__name__.upper(),
                help="default: %(default)s",
            )

    @staticmethod
    def from_args(args: argparse.Namespace) -> "Settings":
        """The settings of the flags of `add_flags`. Raises InputError."""
        return Settings.of({f.name: getattr(args, f.name) for f in dataclasses.fields(Settings)})

    def changed(self) -> list[str]:
        """The names of settings that differ from the defaults."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]

    def flags(self) -> list[str]:
        """The flags of `add_flags` for settings that differ from the defaults."""
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in self.changed()]
