"""The free benchmark of clips: the people of rendered clips over time, against known motion."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from genhmr_jax.evaluate import clip_metrics
from genhmr_jax.evaluate.clip_metrics import MATCHED, SHORT
from genhmr_jax.evaluate.clip_split import COUNT, SECONDS, SPEC, KnownClip, open_clips
from genhmr_jax.geometry.motion import OBSERVED
from genhmr_jax.io.video import open_clip
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.clip_recovery import ClipOptions, recover_clip
from genhmr_jax.recover.photo import Recoverer

CLIPS = (
    f"Rendered clips of {SECONDS:g} s at {SPEC.rate:g} frames a second, each of one person of the "
    "validation subjects, from the pixels alone; in every second clip an object passes in front of "
    "the person. Of several tracks the one with the keypoints of the person in most frames is "
    "taken. Means over the frames in which the person was found. MPJPE: 24 joints relative to the "
    "pelvis; PA: after one similarity transform a frame. Acceleration error: of the joints "
    "relative to the pelvis, over three frames in succession; pelvis: of the pelvis in the camera. "
    "Acceleration: of the recovered joints relative to the pelvis. Position: of the pelvis in the "
    "camera. Joints, px: their projections. Back to front: the root is turned by more than 90 "
    f"degrees about the vertical of the body; flips: runs of less than {SHORT} such frames."
)
FRAMES, SAME, TRACK = "frame by frame", "track, in the same frames", "track, all its frames"
COMPARED = (
    "pa_mpjpe_mm", "mpjpe_mm", "accel_error", "pelvis_accel_error", "position_m", "joints_px",
)  # fmt: skip
_COLUMNS = {
    "pa_mpjpe_mm": ("PA-MPJPE, mm", 1, 1),
    "mpjpe_mm": ("MPJPE, mm", 1, 1),
    "accel_error": ("acceleration error, m/s²", 1, 2),
    "pelvis_accel_error": ("pelvis, m/s²", 1, 2),
    "accel": ("acceleration, m/s²", 1, 2),
    "position_m": ("position, m", 1, 3),
    "joints_px": ("joints, px", 1, 2),
    "back_to_front": ("back to front, %", 100, 1),
    "flips": ("flips", 1, 0),
    "found": ("found, %", 100, 1),
}
"""Title, factor and decimals of the figures of clip_metrics.means."""


def measure_clips(
    model: Recoverer,
    folder: str | Path,
    corpus: str | Path | None = None,
    *,
    count: int = COUNT,
    options: ClipOptions | None = None,
    true_focal: bool = False,
) -> dict[str, Any]:
    """Measure a model on the test clips.

    Args:
      model: the model.
      folder: folder of the test set; missing clips are rendered there.
      corpus: pose corpus from which they are rendered; not needed for a complete set.
      count: number of clips. Published numbers are those of COUNT clips.
      options: of the recovery; None: the defaults.
      true_focal: give the model the focal length; without it, errors of position are mostly those
        of the guessed focal length.

    Returns:
      {"text", "split", "true_focal", "seconds_per_frame", "tracks", "identity_breaks", "results":
      {row: figures}, "improvement", "clips": the same of each clip}; `clips_table` formats it.
      "improvement" is 1 - track / frames of each figure of COMPARED, in the same frames, and the
      number of clips in which the track is better.

    Raises:
      InputError: an error of the test set (`open_clips`).
    """
    split = open_clips(folder, corpus, count)
    rows: list[dict[str, Any]] = []
    for truth in tqdm(split.clips, "clips", unit="clip", disable=None):
        how = options or ClipOptions()
        if true_focal:
            how = dataclasses.replace(how, photo=dataclasses.replace(how.photo, focal=truth.focal))
        began = time.perf_counter()
        clip = recover(truth, model, how)
        seconds = time.perf_counter() - began
        rows.append(compare(clip, truth) | {"seconds_per_frame": seconds / len(truth.times)})
    # The first clip compiles.
    timed = [row["seconds_per_frame"] for row in rows[1:] or rows]
    return {
        "text": CLIPS,
        "split": split.facts,
        "true_focal": true_focal,
        "seconds_per_frame": float(np.mean(timed)),
        **summary(rows),
    }


def recover(truth: KnownClip, model: Recoverer, options: ClipOptions) -> Clip:
    """The people of a test clip."""
    return recover_clip(open_clip(truth.folder, fps=truth.rate), model, options)


def compare(clip: Clip, truth: KnownClip) -> dict[str, Any]:
    """The sums of clip_metrics for a recovered clip, by row, and the numbers of its tracks."""
    matched = clip_metrics.matched_frames(clip, truth)
    of_person = int((matched >= MATCHED).sum())
    found: dict[str, Any] = {
        "name": truth.name,
        "occluded": truth.occluded,
        "tracks": len(clip),
        "identity_breaks": max(of_person - 1, 0),
    }
    if not len(matched) or not matched.max():
        nothing = {"found": (0.0, len(truth.times))}
        return found | {"sums": {row: nothing for row in (FRAMES, SAME, TRACK)}}
    best = int(matched.argmax())
    frames, track = clip_metrics.of_frames(clip, best), clip_metrics.of_track(clip, best)
    answers = {
        FRAMES: frames,
        SAME: track.only(clip.state[best] == OBSERVED),
        TRACK: track,
    }
    sums = {row: clip_metrics.sums(answer, truth) for row, answer in answers.items()}
    return found | {"sums": sums}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all clips of `compare`, see `measure_clips`."""
    clips = []
    for row in rows:
        figures = {name: clip_metrics.means([part]) for name, part in row["sums"].items()}
        clips.append({name: value for name, value in row.items() if name != "sums"} | figures)
    labels = (FRAMES, SAME, TRACK)
    results = {label: clip_metrics.means([row["sums"][label] for row in rows]) for label in labels}
    improvement = {}
    for name in COMPARED:
        before, after = results[FRAMES].get(name), results[SAME].get(name)
        pairs = [(clip[FRAMES].get(name), clip[SAME].get(name)) for clip in clips]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        improvement[name] = {
            "relative": 1 - after / before if before and after is not None else None,
            "clips_better": sum(b < a for a, b in known),
            "clips": len(known),
        }
    return {
        "tracks": sum(row["tracks"] for row in rows),
        "identity_breaks": sum(row["identity_breaks"] for row in rows),
        "results": results,
        "improvement": improvement,
        "clips": clips,
    }


def clips_table(report: dict[str, Any]) -> str:
    """The Markdown table of the result of `measure_clips`."""
    facts, first = report["split"], report["results"][TRACK]
    focal = "the true focal length is given" if report["true_focal"] else "no focal length is given"
    lines = [
        f"test clips v{facts['version']}, {facts['count']} clips, hash {facts['hash']}, mean pixel "
        f"{facts['mean_pixel']}; {focal}. {report['tracks']} tracks, {report['identity_breaks']} "
        f"identity breaks; {1000 * report['seconds_per_frame']:.0f} ms a frame. {report['text']}",
        "",
        "| | " + " | ".join(title for title, _, _ in _COLUMNS.values()) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for label, figures in report["results"].items():
        cells = [_cell(figures.get(name), *_COLUMNS[name][1:]) for name in _COLUMNS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    cells = []
    for name in _COLUMNS:
        gain = report["improvement"].get(name)
        relative = None if gain is None else gain["relative"]
        better = "" if relative is None else f" ({gain['clips_better']}/{gain['clips']})"
        cells.append(_cell(None if relative is None else -relative, 100, 1, "%") + better)
    lines.append(f"| change in the same frames (clips that are better) | {' | '.join(cells)} |")
    if first.get("true_accel") is not None:
        lines += ["", f"The acceleration of the true joints is {first['true_accel']:.2f} m/s²."]
    return "\n".join(lines)


def _cell(value: float | None, factor: float, decimals: int, unit: str = "") -> str:
    if value is None:
        return ""
    sign = "+" if unit else ""
    return f"{factor * value:{sign}.{decimals}f}" + (f" {unit}" if unit else "")
