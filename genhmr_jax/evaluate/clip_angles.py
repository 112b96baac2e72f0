"""Joint angles of rendered clips, from the pixels: the whole way of `genhmr angles`."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from genhmr_jax.evaluate.angles import pairs
from genhmr_jax.evaluate.clip_metrics import matched_frames
from genhmr_jax.evaluate.clip_split import COUNT, KnownClip, open_clips
from genhmr_jax.evaluate.clips import recover
from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.geometry.motion import OBSERVED, Motion
from genhmr_jax.recover.angles import PersonAngles, angles_of
from genhmr_jax.recover.clip_recovery import ClipOptions
from genhmr_jax.recover.motions import motions_of_clip
from genhmr_jax.recover.photo import Recoverer
from genhmr_jax.systems.biopose.branches import gap
from genhmr_jax.systems.biopose.calibration import COLUMNS
from genhmr_jax.systems.biopose.methods import METHODS
from genhmr_jax.systems.biopose.validation import NOT_FEET

TEXT = (
    "Rendered clips, each of one person of the validation subjects, from the pixels alone. The "
    "truth is inverse kinematics of the true body. Both are filtered (6 Hz). Errors in degrees, "
    "over the frames of the track; second solutions of a shoulder count as equal. No feet: 38 "
    "angles without ankle, subtalar and toe joints; inner: without the pelvis too. Bias, limits "
    "(1.96 standard deviations of the errors, Bland and Altman 1986), r: of the first method."
)

Compared = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Errors, truth and half widths of the bands (f, 44), degrees, of f frames."""


def measure_clip_angles(
    model: Recoverer,
    folder: str | Path,
    corpus: str | Path | None = None,
    *,
    count: int = COUNT,
    options: ClipOptions | None = None,
) -> dict[str, Any]:
    """Measure the angles of recovered people on the test clips (evaluate/clip_split.py).

    Args:
      model, folder, corpus, count, options: as for clips.measure_clips.

    Returns:
      {"text", "split", "clips", "results": {method: figures}}; figures are "mae", "mae_no_feet",
      "mae_inner", "coverage", and for each angle "coordinates" (MAE), "bias", "limits", "r",
      "coverages" and "quantile" (80 % of the absolute errors are below).

    Raises:
      InputError: an error of the test set.
    """
    split = open_clips(folder, corpus, count)
    parts: dict[str, list[Compared]] = {method: [] for method in METHODS}
    used = 0
    for truth in tqdm(split.clips, "clips", unit="clip", disable=None):
        found = compared_clip(model, truth, options or ClipOptions())
        if found is None:
            continue
        used += 1
        for method, compared in found.items():
            parts[method].append(compared)
    results = {method: _figures(found) for method, found in parts.items() if found}
    return {"text": TEXT, "split": split.facts, "clips": used, "results": results}


def compared_clip(
    model: Recoverer, truth: KnownClip, options: ClipOptions
) -> dict[str, Compared] | None:
    """Recover a clip, and compare its angles by each of METHODS; None if nobody is found."""
    clip = recover(truth, model, options)
    matched = matched_frames(clip, truth)
    if not len(matched) or not matched.max():
        return None
    motion = motions_of_clip(clip)[int(matched.argmax())]
    true = angles_of(known_motion(truth), model.body, method="ik")
    return {
        method: _compared(angles_of(motion, model.body, method=method), true) for method in METHODS
    }


def known_motion(truth: KnownClip) -> Motion:
    """The true motion of a clip, in the axes of the camera."""
    frames = len(truth.times)
    poses = np.concatenate([truth.global_orient, truth.body_pose], 1).reshape(frames, 24, 3)
    return Motion(
        name="person 1", times=truth.times, betas=truth.betas, poses=poses,
        translation=truth.translation, state=np.full(frames, OBSERVED),
        confidence=np.ones((frames, 24), np.float32),
    )  # fmt: skip


def _compared(person: PersonAngles, true: PersonAngles) -> Compared:
    """Errors, truth and half widths (f, 44), degrees, of the frames that both have."""
    rows = np.abs(true.times[:, None] - person.times).argmin(0)
    same = np.abs(true.times[rows] - person.times) < 0.5 / 60
    ours, theirs = person.values[same][:, COLUMNS], true.values[rows[same]][:, COLUMNS]
    error = gap(np.radians(ours.astype(np.float64)), np.radians(theirs.astype(np.float64)))
    return np.degrees(error), theirs, person.band[same]


def _figures(parts: list[tuple[np.ndarray, ...]]) -> dict[str, Any]:
    error, truth, band = (np.concatenate(column) for column in zip(*parts, strict=True))
    mae, inner = np.abs(error).mean(0), NOT_FEET.copy()
    inner[:3] = False
    named = lambda values: dict(zip(ANGLES, map(float, values), strict=True))
    share = np.where(np.isnan(band).any(0), np.nan, (np.abs(error) <= band).mean(0))
    both = truth - truth.mean(0), truth + error - (truth + error).mean(0)
    product = np.sqrt((both[0] ** 2).sum(0) * (both[1] ** 2).sum(0))
    return {
        "frames": len(error),
        "mae": float(mae.mean()),
        "mae_no_feet": float(mae[NOT_FEET].mean()),
        "mae_inner": float(mae[inner].mean()),
        "coverage": float(share.mean()),
        "coordinates": named(mae),
        "bias": named(error.mean(0)),
        "limits": named(1.96 * error.std(0)),
        "r": named((both[0] * both[1]).sum(0) / np.maximum(product, 1e-9)),
        "coverages": named(share),
        "quantile": named(np.quantile(np.abs(error), 0.8, axis=0)),
    }


def clip_angles_table(report: dict[str, Any]) -> str:
    """The Markdown tables of the result of `measure_clip_angles`."""
    facts, results = report["split"], report["results"]
    lines = [
        f"test clips v{facts['version']}, {report['clips']} of {facts['count']} clips, hash "
        f"{facts['hash']}. {report['text']}",
        "",
        "| method | no feet | inner | all | coverage, % |",
        "|---|---|---|---|---|",
    ]
    for method, figures in results.items():
        share = "" if np.isnan(figures["coverage"]) else f"{100 * figures['coverage']:.0f}"
        means = (figures[name] for name in ("mae_no_feet", "mae_inner", "mae"))
        lines.append(f"| {method} | {' | '.join(f'{value:.2f}' for value in means)} | {share} |")
    lines += [
        "",
        "| angle | " + " | ".join(results) + " | bias | limits | r | coverage, % |",
        "|---" * (len(results) + 5) + "|",
    ]
    best = next(iter(results.values()), None)
    for title, names in pairs().items() if best else ():
        mean = lambda table, names=names: float(np.mean([table[name] for name in names]))
        cells = [f"{mean(figures['coordinates']):.1f}" for figures in results.values()]
        cells += [f"{mean(best['bias']):+.1f}", f"±{mean(best['limits']):.0f}"]
        cells += [f"{mean(best['r']):.2f}", f"{100 * mean(best['coverages']):.0f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)
