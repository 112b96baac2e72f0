"""The table and the plot of a sweep so far: OUT/table.md, OUT/table.csv, OUT/plot.png."""

import csv
import dataclasses
import functools
import io
import json
import pathlib

import numpy as np

from genhmr_jax.evaluate import tables
from genhmr_jax.evaluate.sweep.plan import Plan, Row
from genhmr_jax.io.atomic import atomic_path

STAGES = ("sampled", "refined")


@dataclasses.dataclass(frozen=True)
class Measure:
    """What the table shows of a first stage.

    Attributes:
      title: of the column.
      name: of its values.
      measured: its names in the model's config.json; the first one that is there is shown.
      digits: after the point, in table.md.
    """

    title: str
    name: str
    measured: tuple[str, ...]
    digits: int = 1


# The mesh error is that of stored images, or else of simulated views.
MEASURES = {
    "tokenizer": Measure("tokenizer MPJPE", "tokenizer_mpjpe_mm", ("val_mpjpe_mm",)),
    "mesh2d": Measure(
        "2D mesh error, % of the crop",
        "mesh2d_percent",
        ("val_image_mesh_percent", "val_mesh_percent"),
        digits=2,
    ),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """The results of one point.

    Attributes:
      row: the point and its nodes.
      seeds: number of seeds that are evaluated.
      values: {column: mean over seeds}; columns are "CONTEXT/STAGE/FIGURE", and the name of the
        first stage's measure.
      spread: {"CONTEXT/STAGE": mm}: standard deviation of PA-MPJPE over seeds; with one seed, the
        standard error over views.
    """

    row: Row
    seeds: int
    values: dict[str, float]
    spread: dict[str, float]


def collect(plan: Plan) -> list[Line]:
    """Read the evaluations that exist."""
    return [_line(plan, row) for row in plan.rows]


def write(plan: Plan, lines: list[Line]) -> list[pathlib.Path]:
    """Write table.md and table.csv, and return the written files.

    plot.png is written too if matplotlib is installed and there are results.
    """
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
    """The contexts of the evaluations, in their order: "keypoints", "image", ..."""
    names = [name.split("/")[0] for line in lines for name in line.values if "/" in name]
    return list(dict.fromkeys(names))


def markdown(plan: Plan, lines: list[Line]) -> str:
    """The table with rounded values; missing values are dashes."""
    # 1. The head.
    columns = contexts(lines) or ["keypoints"]
    label = lambda c: f"{c}: " if len(columns) > 1 else ""
    own = MEASURES.get(plan.sweep.stages[0])
    head = [plan.sweep.axis, *([own.title] if own else [])]
    head += [
        f"{label(c)}{figure} {stage}"
        for c in columns
        for stage in STAGES
        for figure in ("PA-MPJPE", "MPJPE")
    ]
    head += [f"{label(c)}ms a view" for c in columns]

    # 2. A row for each point.
    rows = []
    for line in lines:
        get = functools.partial(_cell, line.values)
        cells = [line.row.point.name, *([get(own.name, digits=own.digits)] if own else [])]
        for c in columns:
            for stage in STAGES:
                pa, spread = get(f"{c}/{stage}/pa_mpjpe_mm"), line.spread.get(f"{c}/{stage}")
                cells.append(pa if spread is None else f"{pa} ± {spread:.1f}")
                cells.append(get(f"{c}/{stage}/mpjpe_mm"))
        rows.append(cells + [get(f"{c}/refined/seconds_per_view", 1000.0) for c in columns])

    # 3. Notes below the table.
    seeds, note = len(plan.rows[0].evaluations), "standard error over the views"
    if seeds > 1:
        note = f"standard deviation over {seeds} seeds"
    missing = [line.row.point.name for line in lines if line.seeds < seeds]
    text = "\n".join(tables.line(*cells) for cells in (head, ["---"] * len(head), *rows))
    text += f"\n\nErrors in mm; ± is the {note}.\n"
    return text + (f"Not complete: {', '.join(missing)}.\n" if missing else "")


def _cell(values: dict[str, float], name: str, scale: float = 1.0, digits: int = 1) -> str:
    return f"{scale * values[name]:.{digits}f}" if name in values else "-"


def _line(plan: Plan, row: Row) -> Line:
    found: dict[str, list[float]] = {}
    spread: dict[str, float] = {}
    done = [plan.nodes[key].marker for key in row.evaluations if plan.nodes[key].done]
    for file in done:
        for context, stages in json.loads(file.read_text())["contexts"].items():
            for stage, figures in stages.items():
                for figure, value in figures.items():
                    found.setdefault(f"{context}/{stage}/{figure}", []).append(value)
    if own := MEASURES.get(plan.sweep.stages[0]):
        values = [_measured(model, own) for model in row.first_stages]
        if values := [value for value in values if value is not None]:
            found[own.name] = values
    for name, values in found.items():
        if name.endswith("/pa_mpjpe_mm"):
            stage = name.removesuffix("/pa_mpjpe_mm")
            spread[stage] = found[f"{stage}/pa_mpjpe_standard_error_mm"][0]
            if len(values) > 1:
                spread[stage] = float(np.std(values, ddof=1))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return Line(row, len(done), means, spread)


def _measured(model: pathlib.Path, own: Measure) -> float | None:
    """A measure of a trained first stage, by itself; None if it is not known."""
    file = model / "config.json"
    if not file.is_file():
        return None
    values = json.loads(file.read_text()).get("measured", {})
    return next((values[name] for name in own.measured if name in values), None)


def _csv(plan: Plan, lines: list[Line]) -> str:
    """All values, not rounded."""
    columns = list(dict.fromkeys(name for line in lines for name in line.values))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["point", plan.sweep.axis, "seeds", *columns])
    for line in lines:
        point, values = line.row.point, [line.values.get(name, "") for name in columns]
        table.writerow([point.name, point.x, line.seeds, *values])
    return text.getvalue()


def _plot(plan: Plan, lines: list[Line], file: pathlib.Path) -> None:
    """Plot PA-MPJPE and MPJPE over the axis, with a colour for each context.

    Sampled is dashed, refined is solid.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    done = [line for line in lines if line.seeds]
    names = any(isinstance(line.row.point.x, str) for line in done)
    places = list(range(len(done))) if names else [float(line.row.point.x) for line in done]
    all_contexts = contexts(done)
    for i, context in enumerate(all_contexts):
        for stage, style in zip(STAGES, ("--", "-"), strict=True):
            label = f"{context}, {stage}" if len(all_contexts) > 1 else stage
            form = {"fmt": f"o{style}", "color": f"C{i}", "markersize": 4, "capsize": 2}
            spread = [line.spread.get(f"{context}/{stage}", 0.0) for line in done]
            for axes, kind, error in ((left, "pa_mpjpe_mm", spread), (right, "mpjpe_mm", None)):
                values = [line.values.get(f"{context}/{stage}/{kind}", np.nan) for line in done]
                axes.errorbar(places, values, error, label=label, **form)
    for axes, title in ((left, "PA-MPJPE, mm"), (right, "MPJPE, mm")):
        if plan.sweep.log_axis and not names:
            axes.set_xscale("log", base=2)
        axes.set_xticks(places, [line.row.point.name for line in done], rotation=30 if names else 0)
        axes.minorticks_off()
        axes.set(xlabel=plan.sweep.axis, ylabel=title)
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.savefig(file)
