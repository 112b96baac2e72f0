"""The values that the fields of a config may have.

A probability of 2, a negative weight, an unknown choice or a pattern without a match would train
something else without a message, and an interval of 0 steps would end a run after its first step.
"""

import math
import re
from typing import Any

import ml_collections

from genhmr_jax.core.choices import DIFFERENTIABLE_SAMPLING, PRECISIONS, SCHEDULES
from genhmr_jax.io.config_files import field_values
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets import remat
from genhmr_jax.train.mesh import AXES

_INF, _MOST = math.inf, 2**53
# (pattern of the field's path, smallest, largest): the first one that matches counts. Other numbers
# must be finite.
_RANGES: tuple[tuple[str, float, float], ...] = (
    (r"steps|accumulate|keep|(log|evaluate|checkpoint)_every|evaluate_(poses|windows)", 1, _MOST),
    (r"seed", 0, 2**32 - 1),
    (r"(image_)?batch_size|hang_after|lora\..+|input\..+|mesh\.fsdp_min_size", 0, _INF),
    (r"drop_path|optim\.(b1|b2)", 0, 1 - 1e-9),  # what is left is divided by
    (r"optim\.(ema_decay|final|layer_decay)|loss\.(label_smoothing|codebook_decay)", 0, 1),
    (r"optim\.encoder_layers", -1, _INF),
    (r"optim\.clip_norm", 1e-12, _INF),  # 0 would let nothing be trained
    (r"masking\.steps|training\.steps_per_sample|silhouette\..+", 1, _INF),
    (r"masking\.(corrupt|drop_(image|keypoints|lifted)|min_ratio|unroll)", 0, 1),
    (r"training\.(rollout_prob|true_mesh2d)|data\.rare_poses|data\.noise\.clean", 0, 1),
    (r"data\.augment\.(rotate|flip|colour|extreme_crop|occlude)", 0, 1),
    (r"data\.turn\.(mirror|drop|drop3d)", 0, 1),
    (r"data\.view\.(mirror|free_rotation|outlier|swap|drop|drop_face|occlude|truncate)", 0, 1),
    (r"data\.view\.(hide_feet_hands|lift_unknown|finger|noticed)", 0, 1),
    # Of these the logarithm is drawn, or they are divided by.
    (r"data\.view\.(focal|height)_(low|high)|data\.noise\.(shortest|longest)", 1e-3, _INF),
    (r"(data\.(augment|noise|turn|view)|loss|optim)\..+", 0, _INF),
)
_ORDERED = (
    ("data.view.focal_low", "data.view.focal_high"),
    ("data.view.height_low", "data.view.height_high"),
    ("data.view.jitter_low", "data.view.jitter_high"),
    ("data.noise.shortest", "data.noise.longest"),
)
_CHOICES = {
    "precision": PRECISIONS,
    "remat": remat.CHOICES,
    "masking.schedule": tuple(SCHEDULES),
    "loss.differentiable_sampling": DIFFERENTIABLE_SAMPLING,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Check the fields of a config.

    Raises:
      InputError: a number is not finite or out of its range, both batch sizes are 0, a choice is
        unknown, or a list of patterns has another form.
    """
    fields = field_values(config)
    for field, choices in _CHOICES.items():
        if field in fields and fields[field] not in choices:
            remedy = f"choose among {', '.join(choices)}"
            raise InputError(f"--config.{field}", f"is {fields[field]!r}", remedy)
    _check_patterns(fields)
    _check_numbers({name: value for name, value in fields.items() if _is_number(value)})


def _check_numbers(numbers: dict[str, float]) -> None:
    """Check each number, and those that depend on each other."""
    for field, value in numbers.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--config.{field}", f"is {value}", "give a finite number")
        low, high = next((r[1:] for r in _RANGES if re.fullmatch(r[0], field)), (-_INF, _INF))
        if not low <= value <= high:
            wanted = f"a number from {low} to {high}"
            if value < low and high >= _MOST:
                wanted = f"{low} or more"
            raise InputError(f"--config.{field}", f"is {_text(value)}", f"give {wanted}")
    for low, high in _ORDERED:
        if numbers.get(low, 0) > numbers.get(high, _INF):
            problem = f"is {numbers[low]}, above {high}, which is {numbers[high]}"
            raise InputError(f"--config.{low}", problem, "give the smaller number here")
    steps, drawn = (numbers.get(f) for f in ("model.steps", "training.steps_per_sample"))
    if steps and drawn and drawn > steps:
        problem = f"is {drawn}, and model.steps is {steps}"
        raise InputError("--config.training.steps_per_sample", problem, f"give at most {steps}")
    sizes = [numbers[field] for field in ("batch_size", "image_batch_size") if field in numbers]
    if sizes and not sum(sizes):
        remedy = "one of them must be 1 or more"
        raise InputError("--config.batch_size", "and image_batch_size are 0", remedy)


def _check_patterns(fields: dict[str, Any]) -> None:
    """Check the lists of patterns of parameter paths."""
    axes = lambda value: (
        isinstance(value, tuple | list) and all(axis is None or axis in AXES for axis in value)
    )
    forms = {
        "optim.frozen": ("('encoder/.*',)", None),
        "optim.groups": ("(('encoder/.*', 0.1),)", lambda v: _is_number(v) and 0 <= v < _INF),
        "sharding_rules": ("(('.*/out/kernel', ('tensor', 'fsdp')),)", axes),
    }
    for field, (example, is_value) in forms.items():
        given, remedy = fields.get(field, ()), f"give a tuple such as {example}, or ()"
        if not isinstance(given, tuple | list):
            raise InputError(f"--config.{field}", f"is {given!r}", remedy)
        for item in given:
            is_pair = is_value and isinstance(item, tuple | list) and len(item) == 2
            pattern, value = item if is_pair else (item, None)
            if not _is_pattern(pattern) or (is_value and not is_value(value)):
                raise InputError(f"--config.{field}", f"contains {item!r}", remedy)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


def _text(number: float) -> str:
    """A number for a message. Python refuses to print one of 4300 digits."""
    if abs(number) < 2**64 or isinstance(number, float):
        return str(number)
    return "less than -2^64" if number < 0 else "more than 2^64"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
