"""The generated part of docs/performance.md."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import table

BEGIN, END = "<!-- begin: python -m benchmarks -->", "<!-- end: python -m benchmarks -->"


def about(machine: Mapping[str, Any]) -> str:
    """The machine in two sentences."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    products = ", ".join(f"{rate:g} by {name}" for name, rate in machine["product_gflops"].items())
    text = (
        f"Measured on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gib']:g} GiB, {machine['system']}, {versions}; devices: "
        f"{machine['devices']}. Its rates: float32 matrix products {products} GFLOP/s, a copy "
        f"{machine['copy_gb_per_s']:g} GB/s read and written."
    )
    if machine["busy_before"] is not None and machine["busy_before"] > 0.1:
        text += f" Other work took {100 * machine['busy_before']:.0f} % of it before the start."
    return text


def generated(machine: Mapping[str, Any], groups: Mapping[str, Sequence[table.Row]]) -> str:
    """The part between the markers: the machine, and the tables of all groups by their titles."""
    return f"{about(machine)}\n\n{table.markdown(groups)}"


def write(
    path: str | os.PathLike, machine: Mapping[str, Any], groups: Mapping[str, Sequence[table.Row]]
) -> None:
    """Replace what stands between the markers of a Markdown file.

    Raises:
      ValueError: the file lacks the markers.
    """
    file = pathlib.Path(path)
    text = file.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    file.write_text(f"{before}{BEGIN}\n\n{generated(machine, groups)}\n\n{END}{after}")
