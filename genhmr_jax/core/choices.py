"""Allowed values of options. JAX is not imported: command lines and sweeps check options first."""

from typing import Any

CONTEXTS = ("all", "image", "keypoints")
"""What a system is conditioned on: all inputs, the image only, or the 2D and 3D keypoints only."""

DECODE_RULES = ("expected", "final", "committed", "hard")
"""Which embeddings of sampled tokens are decoded; GenHmrSystem.sample describes each rule."""


def _cosine(r: Any) -> Any:
    import jax.numpy as jnp

    return jnp.cos(jnp.pi / 2 * r)


def _sqrt(r: Any) -> Any:
    import jax.numpy as jnp

    return 1.0 - jnp.sqrt(r)


SCHEDULES = {
    "cosine": _cosine,
    "linear": lambda r: 1.0 - r,
    "square": lambda r: 1.0 - r**2,
    "cubic": lambda r: 1.0 - r**3,
    "sqrt": _sqrt,
}
"""Mask schedules gamma(r): the share of masked tokens after a share r of the steps."""

DIFFERENTIABLE_SAMPLING = ("none", "expected", "straight_through")
"""How gradients of the decoded body reach the logits in training (systems/genhmr/objective.py)."""

PRECISIONS = ("float32", "bfloat16")
"""Of the computation in training (train/step.py)."""
