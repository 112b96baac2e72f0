"""Types of flags: numbers in a range, points, file formats."""

import argparse
from collections.abc import Callable, Sequence


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """An argparse type: an int or float within [low, high] (NaN is outside)."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            expected = "a whole number" if kind is int else "a number"
            expected += f" from {low:.10g} to {high:.10g}"
            raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")
        return value

    return parse


def point(text: str) -> tuple[float, float]:
    """An argparse type: X,Y in px."""
    parse = number(float, -1e6, 1e6)
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"must be two numbers X,Y, not {text!r}")
    return parse(parts[0]), parse(parts[1])


def formats(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """An argparse type: a comma-separated choice of file formats, each once."""
    known = tuple(dict.fromkeys(known))

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
        if unknown := [part for part in found if part not in known]:
            choices, others = ",".join(known), ",".join(unknown)
            raise argparse.ArgumentTypeError(f"must be of {choices}, not {others!r}")
        return found

    return parse


def counts(text: str) -> tuple[int, ...]:
    """An argparse type: comma-separated whole numbers of 1 or more."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        problem = f"must be whole numbers of 1 or more like 1,3,5,10, not {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return tuple(dict.fromkeys(values))


def model_kind(text: str) -> str:
    """An argparse type: a kind of system (systems/registry.py) that recovers people."""
    from genhmr_jax.systems import registry

    if text not in registry.kinds():
        problem = f"must be one of {', '.join(registry.kinds())}, not {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return text
