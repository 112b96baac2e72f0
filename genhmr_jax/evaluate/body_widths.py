"""The errors of joint angles that a recovered body itself has, on development clips.

    python -m genhmr_jax.evaluate.body_widths --data-dir data --poses cmu_poses.npz --count 10

prints the table of systems/biopose/body_errors.py. The clips are rendered motions of training
subjects (clip_split.DEVELOPMENT), which no benchmark uses.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from genhmr_jax.evaluate.clip_angles import Compared, compared_clip
from genhmr_jax.evaluate.clip_split import DEVELOPMENT, open_clips
from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument
from genhmr_jax.recover.clip_recovery import ClipOptions
from genhmr_jax.recover.photo import Recoverer, load
from genhmr_jax.systems.biopose.body_errors import BODY_HALF_WIDTH

COUNT, SHARE = 12, 0.8
_FACING = 90.0  # degrees of the pelvis's rotation: beyond it the body is back to front


def measure_widths(
    model: Recoverer, folder: str | pathlib.Path, corpus: str | None, count: int = COUNT
) -> dict[str, Any]:
    """Measure the half widths of the body's errors.

    Args:
      model: of recover.photo.load.
      folder, corpus: as of clip_split.open_clips.
      count: number of clips.

    Returns:
      "clips", their number; "frames" and "facing", the share of them that is not back to front;
      "widths", degrees, of the angles of both sides together; "coverage" of each clip with the
      widths of all others, 0..1; "mae" by method, degrees, without back to front.

    Raises:
      InputError: an error of the clips, or no clip in which the person is found.
    """
    split = open_clips(folder, corpus, count, DEVELOPMENT)
    clips = []
    for truth in tqdm(split.clips, "clips", unit="clip", disable=None):
        found = compared_clip(model, truth, ClipOptions())
        if found is not None:
            clips.append(found)
    if not clips:
        raise InputError(folder, "nobody is found in the clips", "give another model")
    first = [found["neurik"] for found in clips]
    facing = [_facing(found) for found in first]
    everything = range(len(clips))
    coverage = []
    for left in everything if len(clips) > 1 else ():
        others = [i for i in everything if i != left]
        widths = half_widths([first[i] for i in others], [facing[i] for i in others])
        error, _, band = (x[facing[left]] for x in first[left])
        inside = np.abs(error) <= np.hypot(_of_markers(band), widths)
        coverage.append(float(inside.mean()) if inside.size else float("nan"))
    kept = np.concatenate(facing)
    mean = lambda method: np.concatenate([found[method][0] for found in clips])[kept]
    return {
        "clips": len(clips),
        "frames": len(kept),
        "facing": float(kept.mean()),
        "widths": by_name(half_widths(first, facing)),
        "coverage": coverage,
        "mae": {method: float(np.abs(mean(method)).mean()) for method in clips[0]},
    }


def half_widths(
    clips: list[Compared], facing: list[Bool[np.ndarray, "f"]]
) -> Float[np.ndarray, "A"]:
    """The half width w of each angle, degrees.

    With it the band, of half width sqrt(b^2 + w^2), holds SHARE of the true angles; b is the half
    width for the errors of the method. Both sides of the body have the same w.
    """
    error = np.concatenate([found[0][kept] for found, kept in zip(clips, facing, strict=True)])
    band = np.concatenate([found[2][kept] for found, kept in zip(clips, facing, strict=True)])
    rest = error**2 - _of_markers(band) ** 2
    names = [_without_side(name) for name in ANGLES]
    widths = np.zeros(len(ANGLES))
    for name in dict.fromkeys(names):
        own = np.array([other == name for other in names])
        widths[own] = np.sqrt(max(np.quantile(rest[:, own], SHARE), 0.0))
    return widths


def by_name(widths: Float[np.ndarray, "A"]) -> dict[str, float]:
    """Half widths by the names of the angles, without their sides."""
    names = [_without_side(name) for name in ANGLES]
    return {name: round(float(w), 1) for name, w in zip(names, widths, strict=True)}


def _without_side(name: str) -> str:
    return name.removesuffix("_r").removesuffix("_l")


def _facing(found: Compared) -> Bool[np.ndarray, "f"]:
    return np.abs(found[0][:, ANGLES.index("pelvis_rotation")]) < _FACING


def _of_markers(band: Float[np.ndarray, "f A"]) -> Float[np.ndarray, "f A"]:
    """The part of a band that is not the body's (recover/angles.py joins them)."""
    return np.sqrt(np.maximum(band**2 - BODY_HALF_WIDTH**2, 0.0))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure the errors of angles of the body.")
    add = parser.add_argument
    add("--data-dir", required=True, type=path_argument, help="folder of the clips")
    add("--poses", type=path_argument, help="pose corpus, from which missing clips are rendered")
    add("--checkpoint", type=path_argument, help="model folder; default: that of the package")
    add("--count", type=int, default=COUNT, help="number of clips")
    args = parser.parse_args()
    try:
        found = measure_widths(load(args.checkpoint), args.data_dir, args.poses, args.count)
        print(json.dumps(found, indent=1))
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
