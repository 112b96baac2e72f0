"""Rematerialisation: the backward pass recomputes activations in place of storing them."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

CHOICES = ("none", "products", "blocks")
_KEPT = "kept for the backward pass"
_policies = jax.checkpoint_policies


def kept(x: jax.Array) -> jax.Array:
    """The same array, which "products" stores: one that is small relative to its computation."""
    return checkpoint_name(x, _KEPT)


def checkpointed(function: Callable, remat: str, *, scanned: bool = False) -> Callable:
    """Wrap a function so that less is stored for the backward pass.

    Args:
      function: any function of arrays.
      remat: "blocks" stores only the arguments. "products" also stores the results of products and
        convolutions with parameters and the arrays marked by `kept`, so that only element-wise
        operations and scores of attention are computed again. "none" returns the function
        unchanged.
      scanned: the function is the body of a `lax.scan`. The loop already prevents XLA from merging
        the second computation with the first.

    Raises:
      ValueError: another choice.
    """
    if remat not in CHOICES:
        raise ValueError(f"unknown remat {remat!r}: choose among {', '.join(CHOICES)}")
    if remat == "none":
        return function
    policy = _products if remat == "products" else None
    return jax.checkpoint(function, prevent_cse=not scanned, policy=policy)


def _products(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    """Whether "products" stores the result of an operation.

    A product without batch dimensions is one with parameters; those of attention have some.
    """
    return (
        primitive is jax.lax.conv_general_dilated_p
        or _policies.dots_with_no_batch_dims_saveable(primitive, *arguments, **parameters)
        or _policies.save_only_these_names(_KEPT)(primitive, *arguments, **parameters)
    )
