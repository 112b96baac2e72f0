"""Checks of the sizes of networks, for their specs."""

from typing import Any


def check_sizes(spec: Any, *names: str, least: int = 1) -> None:
    """Raise ValueError unless these attributes of a spec are at least `least`."""
    for name in names:
        if getattr(spec, name) < least:
            raise ValueError(f"{name} is {getattr(spec, name)}: at least {least} is needed")


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError unless the channels divide over the heads of an attention."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of {heads} heads")
