"""The files of `genhmr angles` for one person."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.geometry.anatomy import ANGLES, COORDINATES
from genhmr_jax.geometry.gait import Cycle
from genhmr_jax.geometry.markers import MARKERS
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.opensim import write_mot, write_trc
from genhmr_jax.recover.angles import PersonAngles
from genhmr_jax.systems.biopose.model_file import write_model

PLOTTED = {
    "hip_flexion": "hip flexion", "hip_adduction": "hip adduction",
    "hip_rotation": "hip internal rotation", "knee_angle": "knee flexion",
    "ankle_angle": "ankle dorsiflexion", "subtalar_angle": "subtalar inversion",
    "shoulder_elevation": "shoulder elevation", "elbow_flex": "elbow flexion",
}  # fmt: skip
_SIDES = {"r": "right", "l": "left"}
_COLOURS = {"r": "tab:green", "l": "tab:red"}
_SAMPLES = 101  # of a cycle: 0..100 %


def write_person(stem: Path, person: PersonAngles) -> list[Path]:
    """Write STEM.mot, .trc, .osim and _angles.csv, _gait.csv of walking, and _angles.png.

    The picture is left out if matplotlib (the extra `plots`) is not installed.

    Raises:
      InputError: a file cannot be written.
    """
    named = lambda suffix: stem.with_name(stem.name + suffix)
    files = [named(suffix) for suffix in (".mot", ".trc", ".osim", "_angles.csv")]
    columns = {name: person.columns[name] for name in COORDINATES}
    write_mot(files[0], person.times, columns, notes_of(person))
    write_trc(files[1], MARKERS, person.times, person.markers)
    write_model(files[2], stem.name, person.skeleton, person.mass, "; ".join(notes_of(person)))
    _write_table(files[3], person)
    if person.cycles:
        files.append(named("_gait.csv"))
        _write_gait(files[-1], person)
    if _write_plot(named("_angles.png"), person):
        files.append(named("_angles.png"))
    return files


def notes_of(person: PersonAngles) -> list[str]:
    """What a reader of the angles must know, in lines without "="."""
    low_pass = "not filtered"
    if person.cutoff:
        low_pass = f"Butterworth low-pass of 4th order without lag, {person.cutoff:g} Hz"
    rmse = 1e3 * float(np.sqrt((person.rmse**2).mean()))
    method = {
        "neurik": "NeurIK, a network over frames",
        "ik": "inverse kinematics of each frame",
        "reading": "rotations of the body, calibrated",
    }[person.method]
    return [
        "Written by genhmr_jax (genhmr angles), from one camera",
        f"Method: {method}",
        f"Filter: {low_pass}",
        f"Axes: {person.axes}; turned by {person.turned:.2f} degrees about y, "
        "so that the pelvis faces x on average",
        f"Height {person.height:.3f} m, mass {person.mass:.1f} kg, markers within {rmse:.1f} mm",
    ]


def _write_table(path: Path, person: PersonAngles) -> None:
    """All angles (degrees), translations (metres) and half widths of bands of each frame."""
    columns = person.columns
    if not np.isnan(person.band).any():
        columns |= dict(zip((f"{name}_pm80" for name in ANGLES), person.band.T, strict=True))
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "observed", "marker_rmse", *columns])
        for row, time in enumerate(person.times):
            numbers = (f"{column[row]:.4f}" for column in columns.values())
            seen, rmse = int(person.observed[row]), f"{person.rmse[row]:.5f}"
            writer.writerow([f"{time:.6f}", seen, rmse, *numbers])


def _write_gait(path: Path, person: PersonAngles) -> None:
    """A row for each cycle: events (seconds), parameters, and extremes of the leg's angles."""
    leg = ("hip_flexion", "hip_adduction", "knee_angle", "ankle_angle")
    head = ["side", "heel_strike", "toe_off", "next_heel_strike", "stride_time", "stance_percent"]
    head += ["cadence", "stride_length", "speed"]
    head += [f"{end}_{name}" for name in leg for end in ("min", "max")]
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for cycle in person.cycles:
            times = cycle.start, cycle.toe_off, cycle.end, cycle.seconds
            row = [cycle.side, *(f"{time:.3f}" for time in times), f"{100 * cycle.stance:.1f}"]
            row += [f"{cycle.cadence:.1f}", f"{cycle.length:.3f}", f"{cycle.speed:.3f}"]
            inside = (person.times >= cycle.start) & (person.times <= cycle.end)
            for name in leg:
                values = person.columns[f"{name}_{cycle.side}"][inside]
                row += [f"{values.min():.1f}", f"{values.max():.1f}"]
            writer.writerow(row)


def in_percent(person: PersonAngles, name: str, cycle: Cycle) -> np.ndarray:
    """An angle of the cycle's side at 0..100 % of it."""
    return _of_cycle(person, person.columns[f"{name}_{cycle.side}"], cycle)


def _of_cycle(person: PersonAngles, column: np.ndarray, cycle: Cycle) -> np.ndarray:
    times = np.linspace(cycle.start, cycle.end, _SAMPLES)
    return np.interp(times, person.times, column)


def _draw_band(
    axes: Any, times: Any, column: np.ndarray, person: PersonAngles, name: str, colour: str,
    cycles: Sequence[Cycle] = (),
) -> None:  # fmt: skip
    """The 80 % band around an angle, which is over time, or the mean of cycles.

    Angles of the ISB's shoulder, which are read from others, have none.
    """
    if name not in ANGLES or np.isnan(person.band).any():
        return
    half = person.band[:, ANGLES.index(name)]
    if cycles:
        times = np.arange(_SAMPLES)
        half = np.mean([_of_cycle(person, half, cycle) for cycle in cycles], 0)
    axes.fill_between(times, column - half, column + half, color=colour, alpha=0.12, linewidth=0)


def _write_plot(path: Path, person: PersonAngles) -> bool:
    """Main angles: over the cycle of walking, each cycle and the mean; else over time."""
    try:
        from matplotlib.figure import Figure  # an optional extra: genhmr_jax[plots]
    except ImportError:
        return False
    figure = Figure(figsize=(13, 9), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 4).flat, PLOTTED.items(), strict=True):
        for side, colour in _COLOURS.items():
            mine = [cycle for cycle in person.cycles if cycle.side == side]
            if not person.cycles:
                column = person.columns[f"{name}_{side}"]
                axes.plot(person.times, column, color=colour, label=_SIDES[side])
                _draw_band(axes, person.times, column, person, f"{name}_{side}", colour)
            for cycle in mine:
                axes.plot(in_percent(person, name, cycle), color=colour, alpha=0.35, linewidth=1)
            if mine:
                mean = np.mean([in_percent(person, name, cycle) for cycle in mine], 0)
                axes.plot(mean, color=colour, label=_SIDES[side])
                _draw_band(axes, None, mean, person, f"{name}_{side}", colour, mine)
                leave = 100 * np.mean([cycle.stance for cycle in mine])
                axes.axvline(leave, color=colour, linestyle=":", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("% of the cycle" if person.cycles else "seconds")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("degrees")
    figure.axes[0].legend()
    figure.suptitle(f"{person.name}: {notes_of(person)[-1]}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return True
