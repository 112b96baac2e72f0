"""Joint angles of unseen subjects: NeurIK, inverse kinematics, and reading rotations.

The truth is inverse kinematics from the true markers, with the skeleton of the true shape
(systems/biopose/labels.py). It is no independent measurement: these figures say what is lost by
noise, by an unknown shape, and by a network in place of the optimiser.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems.biopose.calibration import (
    COLUMNS,
    EXACT,
    MOVED,
    NOISY,
    error_of,
    given_markers,
    held_out,
    rows_of_clip,
    usable,
)
from genhmr_jax.systems.biopose.from_rotations import Calibration, read
from genhmr_jax.systems.biopose.ik import IkSpec, solve
from genhmr_jax.systems.biopose.labels import RATE, SPEC, AngleClips, load_labels
from genhmr_jax.systems.biopose.samples import WORST_FIT
from genhmr_jax.systems.biopose.skeleton import skeleton_of
from genhmr_jax.systems.biopose.system import NeurIkSystem, mean_skeleton
from genhmr_jax.systems.biopose.validation import NOT_FEET

LABELS = "angles.npz"
"""Name of the file of `genhmr data angles` in the folder of the test set."""
TEXT = (
    "Clips of validation subjects, bodies of random shapes, at "
    f"{RATE:g} frames a second. The truth is inverse kinematics from the true markers with the "
    "skeleton of the true shape. Mean absolute errors in degrees; second solutions of a shoulder "
    "count as equal. No feet: 38 angles without ankle, subtalar and toe joints. IK: from the true "
    "shape; IK, free scales: from the mean shape. Reading: rotations of the true body, calibrated. "
    "Acceleration: of the errors, and of the true angles. Coverage: of the 80 % band, in subjects "
    "that did not calibrate it."
)


def measure_angles(
    system: NeurIkSystem, params: Any, folder: str | Path, count: int | None = None
) -> dict[str, Any]:
    """Measure NeurIK on the validation clips of stored motions.

    Args:
      system, params: of system.load_neurik.
      folder: it holds LABELS.
      count: the first clips only.

    Returns:
      {"text", "clips", "frames", "results": {markers: {method: figures}}}, where figures are
      "mae", "mae_no_feet", "coordinates": {angle: MAE}, "accel", and, for NeurIK, "coverage",
      "worst_coverage", "r", "bias" and "limits" (Bland and Altman 1986) of each angle.
      "true_accel": of the true angles.

    Raises:
      InputError: no such labels.
    """
    clips = load_labels(Path(folder) / LABELS)
    chosen = usable(clips, "val")[:count]
    if not chosen:
        problem = "has no clips of validation subjects"
        raise InputError(folder, problem, "write it with `genhmr data angles`")
    measuring, factor = held_out(clips)[1], np.asarray(params["bands"]["factor"])
    tables: dict[str, dict[str, list[_Part]]] = {EXACT: {}, NOISY: {}, MOVED: {}}
    for clip in tqdm(chosen, "angles", unit="clip", disable=None):
        rows = rows_of_clip(clips, clip)
        truth, good = np.degrees(clips.angles[rows]), clips.rmse[rows] < WORST_FIT
        is_measured = str(clips.subjects[clip]) in measuring
        for kind, table in tables.items():
            markers = given_markers(clips, clip, kind)
            for name, answer in answers(system, params, clips, clip, markers, kind).items():
                found, spread = answer()
                with_band = spread is not None and is_measured
                band = factor * spread[:, COLUMNS] if with_band else None
                part = _Part(error_of(found, clips, clip), truth, good, band)
                table.setdefault(name, []).append(part)
    results = {
        kind: {name: _figures(parts) for name, parts in table.items()}
        for kind, table in tables.items()
    }
    still = [np.diff(part.truth, 2, axis=0) for part in tables[EXACT]["NeurIK"]]
    return {
        "text": TEXT,
        "clips": len(chosen),
        "frames": int((clips.ends - clips.starts)[chosen].sum()),
        "subjects": sorted({str(clips.subjects[clip]) for clip in chosen}),
        "true_accel": float(np.median(np.abs(np.concatenate(still))) * RATE**2),
        "results": results,
    }


def answers(
    system: NeurIkSystem, params: Any, clips: AngleClips, clip: int, markers: np.ndarray, kind: str
) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray | None]]]:
    """For each method a function that gives COORDINATES (F, 47), and the spread or None."""
    betas, body = clips.betas[clip], load_body("neutral")

    def neurik() -> tuple[np.ndarray, np.ndarray]:
        found = system.solve(params, markers, RATE)
        return found.values, found.spread

    def free() -> tuple[np.ndarray, None]:
        spec = IkSpec(steps=SPEC.steps, scale_rounds=4)
        return solve(mean_skeleton(), markers, spec).values, None

    found = {"NeurIK": neurik, "IK, free scales": free}
    if kind == EXACT:
        poses = clips.poses[rows_of_clip(clips, clip)].reshape(-1, 24, 3)
        calibration = Calibration(**params["reading"])
        found["reading"] = lambda: (read(body, betas, poses, calibration), None)
    else:
        found["IK"] = lambda: (solve(skeleton_of(body, betas), markers, SPEC).values, None)
    return found


class _Part(NamedTuple):
    """The answer for a clip, degrees; `band`: half widths, or None."""

    error: Float[np.ndarray, "F 44"]
    truth: Float[np.ndarray, "F 44"]
    good: Bool[np.ndarray, "F"]
    band: Float[np.ndarray, "F 44"] | None


def _figures(parts: list[_Part]) -> dict[str, Any]:
    """The figures of a method, see `measure_angles`."""
    error = np.concatenate([part.error[part.good] for part in parts])
    truth = np.concatenate([part.truth[part.good] for part in parts])
    mae = np.abs(error).mean(0)
    turning = [np.diff(part.error, 2, axis=0) for part in parts]
    named = lambda values: dict(zip(ANGLES, map(float, values), strict=True))
    found = {
        "mae": float(mae.mean()),
        "mae_no_feet": float(mae[NOT_FEET].mean()),
        "coordinates": named(mae),
        "accel": float(np.median(np.abs(np.concatenate(turning))) * RATE**2),
    }
    banded = [part for part in parts if part.band is not None]
    if banded:
        inside = [(np.abs(p.error) <= p.band)[p.good] for p in banded]
        share = np.concatenate(inside).mean(0)
        width = np.concatenate([p.band[p.good] for p in banded]).mean(0)
        found |= {
            "coverage": float(share.mean()),
            "worst_coverage": [float(share.min()), float(share.max())],
            "coverages": named(share),
            "half_width": named(width),
            "r": named(_correlation(truth, truth + error)),
            "bias": named(error.mean(0)),
            "limits": named(1.96 * error.std(0)),
        }
    return found


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(0), y - y.mean(0)
    return (x * y).sum(0) / np.maximum(np.sqrt((x**2).sum(0) * (y**2).sum(0)), 1e-9)


def angles_table(report: dict[str, Any]) -> str:
    """The Markdown tables of the result of `measure_angles`."""
    lines = [
        f"{report['clips']} clips, {report['frames']} frames, subjects "
        f"{', '.join(report['subjects'])}. {report['text']}",
        "",
        "| markers | method | no feet | all | acceleration, deg/s² | coverage, % |",
        "|---|---|---|---|---|---|",
    ]
    for kind, methods in report["results"].items():
        for name, figures in methods.items():
            share = figures.get("coverage")
            cell = "" if share is None else f"{100 * share:.0f}"
            lines.append(
                f"| {kind} | {name} | {figures['mae_no_feet']:.2f} | {figures['mae']:.2f} | "
                f"{figures['accel']:.0f} | {cell} |"
            )
    lines += [
        "",
        f"The median acceleration of the true angles is {report['true_accel']:.0f} deg/s².",
    ]
    exact, noisy = report["results"][EXACT], report["results"][NOISY]
    columns = [exact["NeurIK"], exact["IK, free scales"], exact["reading"]]
    columns += [noisy["NeurIK"], noisy["IK"], noisy["IK, free scales"]]
    lines += [
        "",
        f"| angle | NeurIK | IK, free scales | reading | {NOISY}: NeurIK | IK | IK, free scales | "
        "coverage, % | r |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, names in pairs().items():
        mean = lambda table, names=names: np.mean([table[name] for name in names])
        cells = [f"{mean(figures['coordinates']):.1f}" for figures in columns]
        nothing, banded = dict.fromkeys(ANGLES, np.nan), noisy["NeurIK"]
        cells.append(f"{100 * mean(banded.get('coverages', nothing)):.0f}")
        cells.append(f"{mean(banded.get('r', nothing)):.3f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pairs() -> dict[str, list[str]]:
    """Angles by name without side: both sides share a row."""
    found: dict[str, list[str]] = {}
    for name in ANGLES:
        found.setdefault(name.removesuffix("_r").removesuffix("_l"), []).append(name)
    return found
