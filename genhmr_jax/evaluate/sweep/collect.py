"""One table and one plot of what a sweep has measured so far: OUT/table.md, OUT/table.csv,
OUT/plot.png."""

import csv
import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np

from genhmr_jax.evaluate.sweep.plan import Plan, Row
from genhmr_jax.io.atomic import atomic_path

STAGES = ("sampled", "refined")


@dataclasses.dataclass(frozen=True)
class Line:
    """What is known of a point: how many seeds are done, the mean of each figure, and how far the
    mean PA-MPJPE can be trusted.

    Attributes:
      values: {column: mean over seeds}; columns are "tokenizer_mpjpe_mm" and
        "CONTEXT/STAGE/FIGURE".
      spread: {"CONTEXT/STAGE": mm}: standard deviation over seeds; with one seed, the standard
        error over views.
    """

    row: Row
    seeds: int
    values: dict[str, float]
    spread: dict[str, float]


def collect(plan: Plan) -> list[Line]:
    """Reads the evaluations that are there."""
    return [_line(plan, row) for row in plan.rows]


def write(plan: Plan, lines: list[Line]) -> list[pathlib.Path]:
    """Writes table.md, table.csv and, where matplotlib is installed and something is measured,
    plot.png. Returns what was written."""
    files = [plan.out / "table.md", plan.out / "table.csv"]
    for file, text in zip(files, (markdown(plan, lines), _csv(plan, lines)), strict=True):
        with atomic_path(file) as temporary:
            temporary.write_text(text)
    if any(line.seeds for line in lines):
        try:
            import matplotlib  # noqa: F401  an optional extra
        except ImportError:
            print("no plot: matplotlib is not installed (pip install 'genhmr_jax[plots]')")
        else:
            with atomic_path(plan.out / "plot.png") as temporary:
                _plot(plan, lines, temporary)
            files.append(plan.out / "plot.png")
    return files


def contexts(lines: list[Line]) -> list[str]:
    """What the models were shown, in the order of the evaluations: "keypoints", "image", ..."""
    return list(
        dict.fromkeys(name.split("/")[0] for line in lines for name in line.values if "/" in name)
    )


def markdown(plan: Plan, lines: list[Line]) -> str:
    """The table, rounded; a point that is not measured has dashes."""
    shown = contexts(lines) or ["keypoints"]
    label = lambda c: f"{c}: " if len(shown) > 1 else ""
    head = [plan.sweep.axis, "tokenizer MPJPE"]
    head += [
        f"{label(c)}{figure} {stage}"
        for c in shown
        for stage in STAGES
        for figure in ("PA-MPJPE", "MPJPE")
    ]
    head += [f"{label(c)}ms a view" for c in shown]
    rows = []
    for line in lines:
        get = lambda name, scale=1.0, line=line: (
            f"{scale * line.values[name]:.1f}" if name in line.values else "-"
        )
        cells = [line.row.point.name, get("tokenizer_mpjpe_mm")]
        for c in shown:
            for stage in STAGES:
                pa, spread = get(f"{c}/{stage}/pa_mpjpe_mm"), line.spread.get(f"{c}/{stage}")
                cells += [
                    pa if spread is None else f"{pa} ± {spread:.1f}",
                    get(f"{c}/{stage}/mpjpe_mm"),
                ]
        rows.append(cells + [get(f"{c}/refined/seconds_per_view", 1000.0) for c in shown])
    seeds = len(plan.rows[0].evaluations)
    note = (
        f"standard deviation over {seeds} seeds" if seeds > 1 else "standard error over the views"
    )
    missing = [line.row.point.name for line in lines if line.seeds < seeds]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
    return f"{text}\n\nErrors in mm; ± is the {note}.\n" + (
        f"Not complete: {', '.join(missing)}.\n" if missing else ""
    )


def _line(plan: Plan, row: Row) -> Line:
    found: dict[str, list[float]] = {}
    spread: dict[str, float] = {}
    done = [plan.nodes[key].marker for key in row.evaluations if plan.nodes[key].done]
    for file in done:
        for context, stages in json.loads(file.read_text())["contexts"].items():
            for stage, figures in stages.items():
                for figure, value in figures.items():
                    found.setdefault(f"{context}/{stage}/{figure}", []).append(value)
    for model in row.tokenizers:
        value = _tokenizer_error(model)
        if value is not None:
            found.setdefault("tokenizer_mpjpe_mm", []).append(value)
    for name, values in found.items():
        if name.endswith("/pa_mpjpe_mm"):
            place = name.removesuffix("/pa_mpjpe_mm")
            spread[place] = (
                float(np.std(values, ddof=1))
                if len(values) > 1
                else found[f"{place}/pa_mpjpe_standard_error_mm"][0]
            )
    return Line(
        row, len(done), {name: float(np.mean(values)) for name, values in found.items()}, spread
    )


def _tokenizer_error(model: pathlib.Path) -> float | None:
    """What stage 1 measured of its tokenizer."""
    file = model / "config.json"
    measured: dict[str, Any] = (
        json.loads(file.read_text()).get("measured", {}) if file.is_file() else {}
    )
    return measured.get("val_mpjpe_mm")


def _csv(plan: Plan, lines: list[Line]) -> str:
    """Everything, unrounded."""
    columns = list(dict.fromkeys(name for line in lines for name in line.values))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["point", plan.sweep.axis, "seeds", *columns])
    for line in lines:
        table.writerow(
            [
                line.row.point.name,
                line.row.point.x,
                line.seeds,
                *(line.values.get(name, "") for name in columns),
            ]
        )
    return text.getvalue()


def _plot(plan: Plan, lines: list[Line], file: pathlib.Path) -> None:
    """PA-MPJPE and MPJPE over the axis: sampled dashed, refined solid, a colour for each
    context."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    done = [line for line in lines if line.seeds]
    names = any(isinstance(line.row.point.x, str) for line in done)
    places = list(range(len(done))) if names else [float(line.row.point.x) for line in done]
    shown = contexts(done)
    for i, context in enumerate(shown):
        for stage, style in zip(STAGES, ("--", "-"), strict=True):
            label = f"{context}, {stage}" if len(shown) > 1 else stage
            for axes, kind in ((left, "pa_mpjpe_mm"), (right, "mpjpe_mm")):
                values = [line.values.get(f"{context}/{stage}/{kind}", np.nan) for line in done]
                error = (
                    [line.spread.get(f"{context}/{stage}", 0.0) for line in done]
                    if axes is left
                    else None
                )
                axes.errorbar(
                    places,
                    values,
                    error,
                    fmt=f"o{style}",
                    color=f"C{i}",
                    label=label,
                    markersize=4,
                    capsize=2,
                )
    for axes, title in ((left, "PA-MPJPE, mm"), (right, "MPJPE, mm")):
        if plan.sweep.log_axis and not names:
            axes.set_xscale("log", base=2)
        axes.set_xticks(places, [line.row.point.name for line in done], rotation=30 if names else 0)
        axes.minorticks_off()
        axes.set(xlabel=plan.sweep.axis, ylabel=title)
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.savefig(file)
