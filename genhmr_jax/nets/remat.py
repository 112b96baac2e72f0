"""Rematerialisation: the backward pass recomputes activations in place of storing them."""

from collections.abc import Callable

import jax

CHOICES = ("none", "blocks")


def checkpointed(function: Callable, remat: str, *, scanned: bool = False) -> Callable:
    """Wrap a function so that only its arguments are stored for the backward pass.

    Args:
      function: any function of arrays.
      remat: "blocks"; "none" returns the function unchanged.
      scanned: the function is the body of a `lax.scan`. The loop already prevents XLA from merging
        the second computation with the first.

    Raises:
      ValueError: another choice.
    """
    if remat not in CHOICES:
        raise ValueError(f"unknown remat {remat!r}: choose among {', '.join(CHOICES)}")
    return function if remat == "none" else jax.checkpoint(function, prevent_cse=not scanned)
