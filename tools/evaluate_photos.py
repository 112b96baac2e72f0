"""Measures a model on photos of one person each, whose outline is known.

    python tools/evaluate_photos.py --photos DIR --out DIR [--checkpoint DIR] [--refine-steps N]

DIR of the photos holds NAME.jpg, NAME.mask.png (white person) and boxes.json ({"NAME": [x0, y0, x1, y1]}, px). Every photo is
recovered with sampling alone and with refinement, from the photo alone. Printed and written to OUT/photos.json, per photo and on average:

* IoU: of the mesh's silhouette and the mask;
* PCK: share of the clearly detected keypoints whose body keypoint is projected within a tenth of the torso (mid-shoulders to mid-hips)
  of them. The refinement fits these very keypoints: it is a measure of fit, not of truth;
* error: mean distance of the same points, px and % of the longer side of the person's box;
* seconds: one photo, detection to mesh, no files, on the second call (everything compiled).
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genhmr_jax import compilation_cache, recover
from genhmr_jax.cli import number
from genhmr_jax.cli_recover import draw, make_writable, save_png
from genhmr_jax.errors import InputError
from genhmr_jax.images import read_image
from genhmr_jax.people import People
from genhmr_jax.render.silhouette import mask_iou, silhouette

MIN_CONFIDENCE = 0.3
PCK_TORSO = 0.1


@dataclasses.dataclass(frozen=True)
class Score:
    """How well one recovered body lies on one photo."""

    iou: float
    pck: float
    error_px: float
    error_box: float  # of the longer side of the box


@dataclasses.dataclass(frozen=True)
class PhotoResult:
    """One photo: with sampling alone, with refinement, and the time of the latter."""

    name: str
    found: int
    sampled: Score
    refined: Score
    seconds: float


def evaluate(photos: Path, out: Path, recoverer, options: recover.RecoverOptions) -> list[PhotoResult]:
    """Scores every photo of boxes.json and draws its overlay.

    Raises:
      InputError: a file is missing or broken, or nobody was found in a photo.
    """
    try:
        boxes = json.loads((photos / "boxes.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        remedy = 'write {"NAME": [x0, y0, x1, y1]} for every NAME.jpg'
        raise InputError(photos / "boxes.json", f"cannot be read ({error})", remedy) from error
    return [_evaluate_photo(photos, out, name, np.asarray(box, np.float32), recoverer, options) for name, box in sorted(boxes.items())]


def _evaluate_photo(photos: Path, out: Path, name: str, box: np.ndarray, recoverer, options: recover.RecoverOptions) -> PhotoResult:
    image = read_image(photos / f"{name}.jpg")
    mask = read_image(photos / f"{name}.mask.png")[..., 0] > 127
    if mask.shape != image.shape[:2]:
        raise InputError(photos / f"{name}.mask.png", "has another size than the photo", "make them equal")
    sampled = recoverer.recover(image, options=dataclasses.replace(options, refine_steps=0))
    refined = recoverer.recover(image, options=options)
    start = time.perf_counter()
    recoverer.recover(image, options=options)
    seconds = time.perf_counter() - start
    if not len(sampled) or not len(refined):
        raise InputError(photos / f"{name}.jpg", "nobody was found", "check the detector on it")
    for stage, people in (("sampled", sampled), ("refined", refined)):
        save_png(out / f"{name}_{stage}.png", draw(image, people))
    return PhotoResult(name, len(refined), score(sampled, box, mask), score(refined, box, mask), seconds)


def score(people: People, box: np.ndarray, mask: np.ndarray) -> Score:
    """Scores the person whose box overlaps `box` (4,) px best against the true mask (H, W)."""
    person = int(np.argmax(box_overlap(people.boxes, box)))
    drawn = silhouette(people.vertices[person], people.faces, float(people.focal_length), *map(int, people.image_size))
    error = float(people.reprojection_error(min_confidence=MIN_CONFIDENCE)[person])
    width, height = people.boxes[person, 2:] - people.boxes[person, :2]
    return Score(
        iou=mask_iou(drawn, mask),
        pck=torso_pck(people.projected_keypoints[person], people.keypoints2d[person], list(people.keypoint_names)),
        error_px=error,
        error_box=error / float(max(width, height)),
    )


def box_overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union (P,) of boxes (P, 4) with one box (4,), xyxy."""
    size = np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return size / (areas - size)


def torso_pck(projected: np.ndarray, detected: np.ndarray, names: list[str]) -> float:
    """Share of clearly detected keypoints (K, 3) with their projection (K, 2) within PCK_TORSO of the torso's length."""
    middle = [np.mean([detected[names.index(f"{side}_{part}"), :2] for side in ("left", "right")], axis=0) for part in ("shoulder", "hip")]
    torso = np.linalg.norm(middle[0] - middle[1])
    seen = detected[:, 2] >= MIN_CONFIDENCE
    distance = np.linalg.norm(projected - detected[:, :2], axis=-1)
    return float((distance[seen] <= PCK_TORSO * torso).mean()) if seen.any() else float("nan")


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of every figure."""
    return Score(*np.mean([dataclasses.astuple(score) for score in scores], axis=0).tolist())


def table(results: Sequence[PhotoResult]) -> str:
    """Markdown: one line a photo, and the means. Each figure is `sampling alone -> with refinement`."""
    lines = ["| photo | IoU | PCK@0.1 | error, px | error, % of box | s |", "|---|---|---|---|---|---|"]
    means = PhotoResult(
        "mean",
        0,
        mean_score([r.sampled for r in results]),
        mean_score([r.refined for r in results]),
        float(np.mean([r.seconds for r in results])),
    )
    for r in (*results, means):
        a, b = r.sampled, r.refined
        lines.append(
            f"| {r.name} | {a.iou:.3f} -> {b.iou:.3f} | {a.pck:.3f} -> {b.pck:.3f} | {a.error_px:.1f} -> {b.error_px:.1f} "
            f"| {100 * a.error_box:.1f} -> {100 * b.error_box:.1f} | {r.seconds:.2f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--checkpoint", help="default: the model of the package")
    parser.add_argument("--body", default="neutral")
    parser.add_argument("--iterations", type=number(int, 1, 100), default=5)
    parser.add_argument("--refine-steps", type=number(int, 1, 10_000), help="default: the model's")
    args = parser.parse_args(argv)
    try:
        out = make_writable(args.out)
        compilation_cache.enable()
        chosen = {"iterations": args.iterations} | ({"refine_steps": args.refine_steps} if args.refine_steps else {})
        results = evaluate(args.photos, out, recover.load(args.checkpoint, body=args.body), recover.RecoverOptions(**chosen))
    except InputError as error:
        print(f"evaluate_photos: {error}", file=sys.stderr)
        return 1
    print(table(results))
    (out / "photos.json").write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
