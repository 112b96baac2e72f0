"""Rematerialisation: what the backward pass computes again in place of keeping it in memory."""

from collections.abc import Callable

import jax

CHOICES = ("none", "blocks")


def checkpointed(function: Callable, remat: str, *, scanned: bool = False) -> Callable:
    """The function itself ("none"), or one of which the backward pass keeps the arguments alone ("blocks").

    Args:
      scanned: the function is the body of a `lax.scan`, whose loop already keeps XLA from merging the second computation with the first.

    Raises:
      ValueError: another choice.
    """
    if remat not in CHOICES:
        raise ValueError(f"unknown remat {remat!r}: choose among {', '.join(CHOICES)}")
    return function if remat == "none" else jax.checkpoint(function, prevent_cse=not scanned)
