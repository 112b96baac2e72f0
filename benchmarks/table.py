"""The rows of the benchmark table: their type, the text and Markdown forms, and JSON."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

MORE_IS_BETTER = "/s"
"""The end of a unit of which more is better, such as images/s; of any other, less is better."""
HEAD = ("benchmark", "ours", "peer", "ratio", "floor", "share", "peer is", "notes")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      name: what is measured, with its size.
      ours: the measured value in `unit`; None where it cannot be measured on this machine.
      unit: "s", "MiB", "programs", "images/s", ... (see MORE_IS_BETTER).
      peer: what ours is compared with; "" for nothing.
      peer_value: its value in the same unit, measured in turns with ours.
      floor: the best value that this machine could reach, from its measured rates.
      floor_from: how the operations and bytes of the floor were counted.
      note: anything else, such as the reason why there is no value.
    """

    name: str
    ours: float | None
    unit: str = "s"
    peer: str = ""
    peer_value: float | None = None
    floor: float | None = None
    floor_from: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the peer: above 1, ours is better."""
        return self._better(self.ours, self.peer_value)

    @property
    def share(self) -> float | None:
        """The part of the best possible value that ours reaches, 0..1."""
        return self._better(self.ours, self.floor)

    def _better(self, ours: float | None, other: float | None) -> float | None:
        if not ours or not other:
            return None
        return ours / other if self.unit.endswith(MORE_IS_BETTER) else other / ours


def not_available(name: str, reason: str) -> Row:
    """The row of something that cannot be measured here."""
    return Row(name, None, note=f"not available: {reason}")


def of_timing(found: Mapping[str, Any] | Sequence[Any]) -> Row:
    """The row of a module that knows no Rows.

    Args:
      found: `name`, `ours_s`, `peer` and `peer_s`, in this order or by these names; by name also
        the other fields of a Row.
    """
    if not isinstance(found, Mapping):
        found = dict(zip(("name", "ours_s", "peer", "peer_s"), found, strict=False))
    more = {name: found[name] for name in ("floor", "floor_from", "note") if name in found}
    peer = found.get("peer") or "", found.get("peer_s")
    return Row(found["name"], found["ours_s"], "s", *peer, **more)


def value_text(value: float | None, unit: str) -> str:
    """Three significant digits with the unit; seconds below one in ms or us."""
    if value is None:
        return ""
    if unit == "s" and value < 1:
        return f"{_digits(1e3 * value)} ms" if value >= 1e-3 else f"{_digits(1e6 * value)} us"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def cells(row: Row) -> tuple[str, ...]:
    """The texts of HEAD."""
    return (
        row.name,
        value_text(row.ours, row.unit),
        value_text(row.peer_value, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}x",
        value_text(row.floor, row.unit),
        "" if row.share is None else f"{100 * row.share:.3g} %",
        row.peer,
        "; ".join(text for text in (row.note, row.floor_from) if text),
    )


def text(groups: Mapping[str, Sequence[Row]]) -> str:
    """The table for a terminal: columns of one width, a line for each group."""
    lines = [HEAD, *(cells(row) for rows in groups.values() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD) - 1)]

    def one(line: Sequence[str]) -> str:
        first, *rest = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        return "  ".join([first, *rest, line[-1]]).rstrip()

    out = [one(HEAD)]
    for group, rows in groups.items():
        out += [f"-- {group}", *(one(cells(row)) for row in rows)]
    return "\n".join(out)


def markdown(groups: Mapping[str, Sequence[Row]]) -> str:
    """One Markdown table for each group."""
    line = lambda row: "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
    parts = []
    for group, rows in groups.items():
        table = [line(HEAD), line(["---"] * len(HEAD)), *(line(cells(row)) for row in rows)]
        parts += [f"### {group}", "\n".join(table)]
    return "\n\n".join(parts)


def save(
    path: str | os.PathLike, machine: Mapping[str, Any], groups: Mapping[str, Sequence[Row]]
) -> None:
    """Write all of it as JSON."""
    rows = {group: [dataclasses.asdict(row) for row in rows] for group, rows in groups.items()}
    found = {"machine": dict(machine), "groups": rows}
    pathlib.Path(path).write_text(json.dumps(found, indent=1) + "\n")


def load(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, list[Row]]]:
    """What `save` has written: the machine and the groups."""
    found = json.loads(pathlib.Path(path).read_text())
    groups = {group: [Row(**row) for row in rows] for group, rows in found["groups"].items()}
    return found["machine"], groups
