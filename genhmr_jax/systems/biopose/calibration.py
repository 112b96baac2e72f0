"""Held-out clips: the sizes of NeurIK's bands, and the lines of the readings.

NeurIK predicts the mean absolute error of each angle in each frame. One factor for each coordinate
turns it into the half width of a band that holds the true angle in 80 % of the frames of held-out
subjects, whose markers are exact, noisy, or moved as in training, one third each.
"""

import zlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from genhmr_jax.geometry.anatomy import ANGLES, COORDINATES
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.systems.biopose.branches import gap
from genhmr_jax.systems.biopose.from_rotations import Calibration, fitted, read
from genhmr_jax.systems.biopose.ik import CHUNK
from genhmr_jax.systems.biopose.labels import POSED, RATE, AngleClips
from genhmr_jax.systems.biopose.samples import WORST_FIT, NoiseSpec, errors
from genhmr_jax.systems.biopose.skeleton import marker_body
from genhmr_jax.systems.biopose.system import NeurIkSystem
from genhmr_jax.systems.biopose.validation import NOISE
from genhmr_jax.train.random_streams import stream

SHARE = 0.8
"""Of the frames, whose truth a band holds."""
EXACT, NOISY, MOVED = "true markers", f"{1000 * NOISE:g} mm of noise", "errors as in training"
"""Markers: as they are, with white noise, and with samples.NoiseSpec."""
COLUMNS = [COORDINATES.index(name) for name in ANGLES]
"""Of ANGLES among COORDINATES."""
FEWEST = 8
"""Frames of a clip that is used."""
_READ_CLIPS = 200  # training clips that calibrate the readings


def held_out(clips: AngleClips) -> tuple[list[str], list[str]]:
    """Validation subjects that calibrate, and those that are measured: every other one by name.

    A single subject does both.
    """
    subjects = sorted({str(clips.subjects[clip]) for clip in clips.of("val")})
    return subjects[::2], subjects[1::2] or subjects


def usable(clips: AngleClips, split: str) -> list[int]:
    """The clips of a split that are long enough."""
    lengths = clips.ends - clips.starts
    return [int(clip) for clip in clips.of(split) if lengths[clip] >= FEWEST]


def rows_of_clip(clips: AngleClips, clip: int) -> slice:
    """The frames of a clip."""
    return slice(int(clips.starts[clip]), int(clips.ends[clip]))


def given_markers(clips: AngleClips, clip: int, kind: str) -> Float[np.ndarray, "F 70 3"]:
    """The markers of a clip: EXACT, NOISY or MOVED, metres; always the same ones."""
    body, rows = marker_body(load_body("neutral")), rows_of_clip(clips, clip)
    count = rows.stop - rows.start
    at = rows.start + np.minimum(np.arange(-(-count // CHUNK) * CHUNK), count - 1)
    poses = clips.poses[at].reshape(-1, 24, 3)
    markers = np.asarray(POSED(body, clips.betas[clip], poses))
    seed = zlib.crc32(f"{clips.names[clip]} {clip}".encode())
    if kind == NOISY:
        noise = np.random.default_rng(seed).normal(0, NOISE, markers.shape)
        markers = markers + noise.astype(np.float32)
    elif kind == MOVED:
        times = np.arange(len(markers), dtype=np.float32) / RATE
        markers = markers + np.asarray(_MOVING(_key_of(seed), times, markers))
    return markers[:count]


def _key_of(seed: int) -> jax.Array:
    return jax.random.fold_in(stream(0, "marker_errors"), np.uint32(seed))


_MOVING = jax.jit(lambda key, times, markers: errors(key, times, markers, NoiseSpec(clean=0.0)))


def error_of(
    found: Float[np.ndarray, "F 47"], clips: AngleClips, clip: int
) -> Float[np.ndarray, "F 44"]:
    """Errors of ANGLES, degrees, without full turns and second solutions of a shoulder.

    Args:
      found: of COORDINATES, degrees.
    """
    truth = clips.angles[rows_of_clip(clips, clip)].astype(np.float64)
    return np.degrees(gap(np.radians(found[:, COLUMNS].astype(np.float64)), truth))


def band_factors(system: NeurIkSystem, params: Any, clips: AngleClips) -> Float[np.ndarray, "44"]:
    """Half widths of the bands, in predicted mean absolute errors, of ANGLES.

    Args:
      params: {"neurik": arrays}.
    """
    subjects, ratios = held_out(clips)[0], []
    for clip in usable(clips, "val"):
        if str(clips.subjects[clip]) not in subjects:
            continue
        good = clips.rmse[rows_of_clip(clips, clip)] < WORST_FIT
        for kind in (EXACT, NOISY, MOVED):
            found = system.solve(params, given_markers(clips, clip, kind), RATE)
            error = np.abs(error_of(found.values, clips, clip))
            ratios.append((error / found.spread[:, COLUMNS])[good])
    if not ratios:
        return np.ones(len(ANGLES), np.float32)
    return np.quantile(np.concatenate(ratios), SHARE, axis=0).astype(np.float32)


def reading_calibration(clips: AngleClips) -> Calibration:
    """The lines of the readings, from training clips."""
    body, readings, truths = load_body("neutral"), [], []
    chosen = usable(clips, "train")
    for clip in chosen[:: max(1, len(chosen) // _READ_CLIPS)]:
        rows = rows_of_clip(clips, clip)
        poses = clips.poses[rows].reshape(-1, 24, 3)
        found = read(body, clips.betas[clip], poses, Calibration.none())
        good = clips.rmse[rows] < WORST_FIT
        readings.append(np.radians(found[good][:, COLUMNS].astype(np.float64)))
        truths.append(clips.angles[rows][good].astype(np.float64))
    return fitted(np.concatenate(readings), np.concatenate(truths))
