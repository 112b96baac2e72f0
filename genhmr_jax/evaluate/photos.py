"""The free benchmark of real photos, each of one person with a known mask."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.evaluate import predictions
from genhmr_jax.evaluate.predictions import Prediction, Prepared, TestImage
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.geometry.metrics import silhouette_iou
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import read_image
from genhmr_jax.recover.photo import Recoverer, RecoverOptions
from genhmr_jax.recover.report import save_png
from genhmr_jax.render.overlay import overlay_with_side
from genhmr_jax.render.silhouette import silhouette

PHOTOS = (
    "Photos of one person each with a known mask, from the photo alone: the detected person whose "
    "box overlaps the given box most is taken. IoU: of the silhouette of the mesh and the true "
    "mask. The refinement fits the mask of the 2D network, not the true one. PCK: share of clearly "
    "detected keypoints within a tenth of the torso of the projected keypoint of the body. The "
    "refinement fits the same keypoints, so PCK measures the fit and not the truth. A person who "
    "is not found counts with IoU 0 and PCK 0, and in no mean of errors."
)
MIN_CONFIDENCE = 0.3  # of a clearly detected keypoint
PCK_TORSO = 0.1


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a body fits one photo. A person who was not found has IoU and PCK 0 and no errors.

    Attributes:
      iou, pck: 0..1.
      error_px: mean distance of the clearly detected keypoints from those of the body, px; NaN
        without such keypoints.
      error_box: the same divided by the longer side of the person's box.
    """

    iou: float = 0.0
    pck: float = 0.0
    error_px: float | None = None
    error_box: float | None = None


def photos(
    model: Recoverer,
    folder: str | Path,
    *,
    options: RecoverOptions | None = None,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Measure a model on photos of one person each, without and with refinement.

    Args:
      model: the model.
      folder: folder with NAME.jpg, NAME.mask.png (the person is white) and boxes.json ({"NAME":
        [x0, y0, x1, y1]}, px).
      options: None: the defaults, with which the model card was measured.
      pictures: folder for the overlays NAME_sampled.png and NAME_refined.png, if any.

    Returns:
      {"text", "photos": {NAME: {"found", "seconds", "sampled": Score, "refined": Score}}, "mean":
      the same}. "found" is the number of people found in a photo; in the mean it is the share of
      photos whose person was found. "seconds" is the time from detection to mesh for one photo,
      without files and compilation.

    Raises:
      InputError: a file is missing or broken.
    """
    folder, options = Path(folder), options or RecoverOptions()
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    results = {
        name: _photo(model, folder, name, box, options, pictures)
        for name, box in sorted(_read_boxes(folder).items())
    }
    rows = list(results.values())
    mean: dict[str, Any] = {
        "seconds": float(np.mean([row["seconds"] for row in rows])),
        "found": float(np.mean([row["refined"]["error_px"] is not None for row in rows])),
    }
    for stage in ("sampled", "refined"):
        mean[stage] = {}
        for field in dataclasses.fields(Score):
            known = [row[stage][field.name] for row in rows if row[stage][field.name] is not None]
            mean[stage][field.name] = float(np.mean(known)) if known else None
    return {"text": PHOTOS, "photos": results, "mean": mean}


def score(prepared: Prepared, prediction: Prediction, faces: np.ndarray, mask: np.ndarray) -> Score:
    """Score the person of one photo.

    Args:
      prepared, prediction: of one row.
      faces: (F, 3) of the body.
      mask: (H, W) true on the person.
    """
    if not prediction.found[0]:
        return Score()
    focal, size = prepared.camera(0).focal, mask.shape[::-1]
    drawn = silhouette(prediction.vertices[0], faces, focal, *size)
    detected = prepared.keypoints[0]
    distance = np.linalg.norm(prediction.keypoints[0] - detected[:, :2], axis=-1)
    distance = distance[detected[:, 2] >= MIN_CONFIDENCE]
    error = pck = float("nan")
    if len(distance):
        error = float(distance.mean())
        pck = float((distance <= PCK_TORSO * torso_length(detected)).mean())
    width, height = prepared.boxes[0, 2:] - prepared.boxes[0, :2]
    return Score(
        iou=float(silhouette_iou(drawn, mask)),
        pck=pck,
        error_px=error,
        error_box=error / float(max(width, height)),
    )


def torso_length(keypoints: np.ndarray) -> float:
    """Distance of the middle of the shoulders from that of the hips, px; keypoints (23, 3)."""
    middle = [
        np.mean([keypoints[DETECTED.index(f"{side}_{part}"), :2] for side in ("left", "right")], 0)
        for part in ("shoulder", "hip")
    ]
    return float(np.linalg.norm(middle[0] - middle[1]))


def photos_table(report: dict[str, Any]) -> str:
    """The Markdown table of `photos`, one line for each photo, and the means.

    Cells are "without refinement -> with refinement".
    """
    lines = [
        report["text"],
        "",
        "| photo | IoU | PCK@0.1 | error, px | error, % of box | s |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in (*report["photos"].items(), ("mean", report["mean"])):
        a, b = Score(**row["sampled"]), Score(**row["refined"])
        errors = "not found | "
        if a.error_px is not None and b.error_px is not None:
            percent = f"{100 * a.error_box:.1f} -> {100 * b.error_box:.1f}"
            errors = f"{a.error_px:.1f} -> {b.error_px:.1f} | {percent}"
        shares = f"{a.iou:.3f} -> {b.iou:.3f} | {a.pck:.3f} -> {b.pck:.3f}"
        lines.append(f"| {name} | {shares} | {errors} | {row['seconds']:.2f} |")
    return "\n".join(lines)


def _photo(
    model: Recoverer,
    folder: Path,
    name: str,
    box: np.ndarray,
    options: RecoverOptions,
    pictures: Path | None,
) -> dict[str, Any]:
    """Measure one photo."""
    image = read_image(folder / f"{name}.jpg")
    mask = read_image(folder / f"{name}.mask.png")[..., 0] > 127
    if mask.shape != image.shape[:2]:
        where = folder / f"{name}.mask.png"
        raise InputError(where, "has another size than the photo", "make them equal")
    test_image = TestImage(image, true_box=box)
    prepared = predictions.prepare(model, [test_image], options, warm_up=True)
    sampling = dataclasses.replace(options, refine_steps=0)
    stages = {
        "sampled": predictions.solve(model, prepared, sampling, batch=1),
        "refined": predictions.solve(model, prepared, options, batch=1, warm_up=True),
    }
    faces, row = np.asarray(model.body.faces), {"found": int(prepared.people[0])}
    row["seconds"] = float(prepared.seconds[0]) + stages["refined"].seconds
    for stage, prediction in stages.items():
        row[stage] = dataclasses.asdict(score(prepared, prediction, faces, mask))
        if pictures is not None:
            camera, bodies = prepared.camera(0), prediction.vertices[prediction.found]
            picture = overlay_with_side(image, bodies, faces, camera.focal, camera.principal_point)
            save_png(pictures / f"{name}_{stage}.png", picture)
    return row


def _read_boxes(folder: Path) -> dict[str, np.ndarray]:
    """Name of a photo -> box (4,) xyxy px. Raises InputError."""
    file = folder / "boxes.json"
    remedy = 'write {"NAME": [x0, y0, x1, y1]} for every NAME.jpg'
    try:
        stored = json.loads(file.read_text())
        boxes = {str(name): np.array(box, np.float32) for name, box in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(file, f"cannot be read ({error})", remedy) from error
    if not boxes:
        raise InputError(file, "names no photo", remedy)
    for name, box in boxes.items():
        if box.shape != (4,) or not np.isfinite(box).all() or min(box[2:] - box[:2]) <= 0:
            raise InputError(file, f"{name!r} has no box of four numbers", remedy)
    return boxes
