"""The free benchmarks, for people without licences: `synthetic`, rendered people with exact labels; `photos`, outlines of real ones."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.evaluate import looking, robustness, uncertainty, worst
from genhmr_jax.evaluate.looking import Answers
from genhmr_jax.evaluate.predictors import settings
from genhmr_jax.evaluate.synthetic_split import COUNT, Split, open_split
from genhmr_jax.geometry.metrics import silhouette_iou
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import read_image
from genhmr_jax.recover.people import People
from genhmr_jax.recover.photo import Recoverer, RecoverOptions
from genhmr_jax.render.silhouette import silhouette

SYNTHETIC = (
    "Rendered people of validation subjects, one in each image, from the pixels alone: our own detector finds people and 2D keypoints, and "
    "of the people found the one nearest to the true keypoints is taken; who is not found counts with the mean pose, upright and frontal. "
    "24 joints of SMPL's skeleton as posed; MPJPE: relative to the pelvis (joint 0); PA: one similarity transform (scale, rotation, shift; "
    "no reflection) for each person. Mean over joints, then over people. The focal length is not given to the model."
)
PHOTOS = (
    "Photos of one person each whose outline is known, from the photo alone; of the people found, the one whose box overlaps the given box "
    "best is taken. IoU: of the silhouette of the mesh and the true mask; the refinement fits the 2D network's own mask. PCK: "
    "share of clearly detected keypoints whose body keypoint is projected within a tenth of the torso of them; the refinement fits these "
    "very keypoints: a measure of fit, not of truth. Who is not found counts with IoU 0 and PCK 0, and in no mean of errors."
)
HYPOTHESES = 8
MIN_CONFIDENCE = 0.3
PCK_TORSO = 0.1


def synthetic(
    model: Recoverer | None,
    folder: str | Path,
    corpus: str | Path | None = None,
    *,
    count: int = COUNT,
    iterations: Sequence[int] = (1, 3, 5, 10),
    refine_steps: int = RefineSpec.steps,
    with_robustness: bool = False,
    with_uncertainty: bool = False,
    pictures: Path | None = None,
    context: str = "all",
    true_keypoints: bool = False,
) -> dict[str, Any]:
    """Measures a model on the fixed synthetic test set.

    Args:
      model: or None for the mean pose alone.
      folder: where the test set is kept; what is missing is rendered there.
      corpus: pose corpus, of which it is rendered; not needed where it is complete.
      count: images. Published numbers are of all COUNT.
      iterations: of sampling, each evaluated with sampling alone and with refinement.
      refine_steps: 0 evaluates sampling alone.
      with_robustness: also under occlusion, truncation, ... (robustness.AXES).
      with_uncertainty: also whether the confidence predicts the error, and the choice among HYPOTHESES.
      pictures: folder for plots and for the picture of the worst people (worst.jpg), if any.
      context: what the model is shown, see RecoverOptions.
      true_keypoints: the model gets the true 2D keypoints of everybody, in place of detected ones.

    Returns:
      {"text", "split", "found", "results": {label: figures}}, and "robustness", "uncertainty" where asked for; `synthetic_table` prints it.

    Raises:
      InputError: of the test set (`open_split`); fewer than two people were found, and uncertainty is asked for.
    """
    split = open_split(folder, corpus, count)
    truth = np.stack([sample.joints for sample in split.samples])
    report: dict[str, Any] = {"text": SYNTHETIC, "split": split.facts, "found": 1.0, "results": {}}
    if model is None:
        from genhmr_jax.geometry.bodies import load_body

        report["results"]["mean pose"] = figures(looking.mean_pose_answers(load_body(), len(truth)), split, truth, 0.0)
        return report
    report["results"]["mean pose"] = figures(looking.mean_pose_answers(model.body, len(truth)), split, truth, 0.0)
    seen = looking.look(model, [looking.shot_of(sample, with_keypoints=true_keypoints) for sample in split.samples])
    report["found"] = float(seen.found.mean())
    for label, options in settings(iterations, refine_steps, RecoverOptions(context=context)).items():
        report["results"][label] = figures(looking.solve(model, seen, options), split, truth, seen.seconds)
    default = RecoverOptions(refine_steps=refine_steps, context=context)
    if pictures is not None and not true_keypoints:
        pictures.mkdir(parents=True, exist_ok=True)
        errors = looking.joint_errors(looking.solve(model, seen, default).joints, truth)
        worst.draw(model, split.samples, errors, default, pictures / "worst.jpg")
    if with_uncertainty and seen.found.sum() < 2:
        raise InputError("--uncertainty", f"{seen.found.sum()} of {count} people were found", "give more images, or another model")
    if with_uncertainty:
        report["uncertainty"] = _uncertainty(model, seen, truth, default, pictures)
    if with_robustness:
        report["robustness"] = robustness.sweep(model, split, corpus, default)
    return report


def figures(answers: Answers, split: Split, truth: np.ndarray, seconds: float) -> dict[str, Any]:
    """Means over the test set, mm and px, and each joint's errors.

    Args:
      answers: of the N people.
      split: the test set.
      truth: (N, 24, 3) joints.
      seconds: a person, that came before the solving.
    """
    errors = looking.joint_errors(answers.joints, truth)
    result: dict[str, Any] = {}
    for name, values in errors.items():
        result |= {f"{name}_mm": float(values.mean()), f"{name}_median_mm": float(np.median(values.mean(1)))}
    true = np.stack([sample.keypoints for sample in split.samples])
    distance = np.linalg.norm(answers.keypoints - true[..., :2], axis=-1)
    known = (true[..., 2] > 0) & np.isfinite(distance)
    people = known.any(1)
    means = np.where(known, distance, 0.0).sum(1)[people] / known.sum(1)[people]
    result["reprojection_px"] = float(means.mean()) if len(means) else None
    result["seconds"] = seconds + answers.seconds
    result["joints_pa_mm"] = dict(zip(SMPL24, np.round(errors["pa_mpjpe"].mean(0), 2).tolist(), strict=True))
    return result


def _uncertainty(model: Recoverer, seen: looking.Seen, truth: np.ndarray, options: RecoverOptions, pictures: Path | None) -> dict[str, Any]:
    """Confidence and error of those who were found: of the default answer, and of several hypotheses at temperature 1."""
    found = seen.found
    answer = looking.solve(model, seen, options)
    confidence, errors = answer.confidence[found], looking.joint_errors(answer.joints[found], truth[found])["pa_mpjpe"]
    report = uncertainty.measure(confidence, errors, SMPL24)
    several = looking.solve(model, seen, dataclasses.replace(options, hypotheses=HYPOTHESES, temperature=1.0))
    targets = np.repeat(truth[found][:, None], HYPOTHESES, 1)
    chosen = looking.joint_errors(several.hypotheses[found], targets)["pa_mpjpe"].mean(-1)
    report["hypotheses"] = uncertainty.hypotheses(chosen, several.hypothesis_confidence[found].mean(-1))
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        if not uncertainty.plot(report, confidence, errors, pictures / "uncertainty.png"):
            print("no plot: matplotlib is not installed (pip install 'genhmr_jax[plots]')")
    return report


def synthetic_table(report: dict[str, Any]) -> str:
    """Markdown of what `synthetic` measured."""
    facts = report["split"]
    lines = [
        f"synthetic test set v{facts['version']}, {facts['count']} images, hash {facts['hash']}, mean pixel {facts['mean_pixel']}; "
        f"{100 * report['found']:.1f} % found. {report['text']}",
        "",
        "| | PA-MPJPE, mm | median | MPJPE, mm | median | reprojection, px | ms a person |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, row in report["results"].items():
        pixels = "" if row["reprojection_px"] is None else f"{row['reprojection_px']:.1f}"
        errors = " | ".join(f"{row[name]:.1f}" for name in ("pa_mpjpe_mm", "pa_mpjpe_median_mm", "mpjpe_mm", "mpjpe_median_mm"))
        lines.append(f"| {label} | {errors} | {pixels} | {1000 * row['seconds']:.0f} |")
    for name, table in (("uncertainty", uncertainty.table), ("robustness", robustness.table)):
        if name in report:
            lines += ["", table(report[name])]
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Score:
    """How well one recovered body lies on one photo. Who was not found has IoU and PCK 0 and no errors."""

    iou: float = 0.0
    pck: float = 0.0
    error_px: float | None = None
    error_box: float | None = None  # of the longer side of the box


def photos(model: Recoverer, folder: str | Path, *, options: RecoverOptions | None = None, pictures: Path | None = None) -> dict[str, Any]:
    """Measures a model on photos of one person each, with sampling alone and with refinement.

    Args:
      model: the recoverer.
      folder: holds NAME.jpg, NAME.mask.png (white person) and boxes.json ({"NAME": [x0, y0, x1, y1]}, px).
      options: how to recover; default: as the model card says.
      pictures: folder for the overlays NAME_sampled.png and NAME_refined.png, if any.

    Returns:
      {"text", "photos": {NAME: {"found", "seconds", "sampled": Score, "refined": Score}}, "mean": the same}; "found" is how many people
      were found in a photo, in the mean the share of photos whose person was found. The seconds are those of one photo, detection
      to mesh, no files, when everything is compiled.

    Raises:
      InputError: a file is missing or broken.
    """
    folder, options = Path(folder), options or RecoverOptions()
    results = {name: _photo(model, folder, name, box, options, pictures) for name, box in sorted(_read_boxes(folder).items())}
    hit = [r["refined"]["error_px"] is not None for r in results.values()]
    mean: dict[str, Any] = {"seconds": float(np.mean([r["seconds"] for r in results.values()])), "found": float(np.mean(hit))}
    for stage in ("sampled", "refined"):
        known = {key: [r[stage][key] for r in results.values() if r[stage][key] is not None] for key in Score.__dataclass_fields__}
        mean[stage] = {key: float(np.mean(values)) if values else None for key, values in known.items()}
    return {"text": PHOTOS, "photos": results, "mean": mean}


def _read_boxes(folder: Path) -> dict[str, np.ndarray]:
    file = folder / "boxes.json"
    remedy = 'write {"NAME": [x0, y0, x1, y1]} for every NAME.jpg'
    try:
        boxes = {str(name): np.array(box, np.float32) for name, box in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(file, f"cannot be read ({error})", remedy) from error
    bad = [name for name, box in boxes.items() if box.shape != (4,) or not np.isfinite(box).all() or min(box[2:] - box[:2]) <= 0]
    if bad or not boxes:
        raise InputError(file, f"{bad[0]!r} has no box of four numbers" if bad else "names no photo", remedy)
    return boxes


def _photo(model: Recoverer, folder: Path, name: str, box: np.ndarray, options: RecoverOptions, pictures: Path | None) -> dict[str, Any]:
    image = read_image(folder / f"{name}.jpg")
    mask = read_image(folder / f"{name}.mask.png")[..., 0] > 127
    if mask.shape != image.shape[:2]:
        raise InputError(folder / f"{name}.mask.png", "has another size than the photo", "make them equal")
    sampled = model.recover(image, options=dataclasses.replace(options, refine_steps=0))
    refined = model.recover(image, options=options)
    start = time.perf_counter()
    model.recover(image, options=options)
    seconds = time.perf_counter() - start
    stages = {"sampled": sampled, "refined": refined}
    if pictures is not None:
        from genhmr_jax.recover.report import draw, save_png

        pictures.mkdir(parents=True, exist_ok=True)
        for stage, people in stages.items():
            save_png(pictures / f"{name}_{stage}.png", draw(image, people))
    scores = {stage: dataclasses.asdict(score(people, box, mask)) for stage, people in stages.items()}
    return {"found": len(refined), "seconds": seconds, **scores}


def score(people: People, box: np.ndarray, mask: np.ndarray) -> Score:
    """Scores the person whose box overlaps `box` (4,) px best against the true mask (H, W); nobody's overlaps it: not found."""
    overlap = box_overlap(people.boxes, box)
    if not overlap.any():
        return Score()
    person = int(np.argmax(overlap))
    drawn = silhouette(people.vertices[person], people.faces, float(people.focal_length), *map(int, people.image_size))
    error = float(people.reprojection_error(min_confidence=MIN_CONFIDENCE)[person])
    width, height = people.boxes[person, 2:] - people.boxes[person, :2]
    return Score(
        iou=float(silhouette_iou(drawn, mask)),
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


def photos_table(report: dict[str, Any]) -> str:
    """Markdown: one line a photo, and the means. Each figure is `sampling alone -> with refinement`."""
    lines = [report["text"], "", "| photo | IoU | PCK@0.1 | error, px | error, % of box | s |", "|---|---|---|---|---|---|"]
    for name, row in (*report["photos"].items(), ("mean", report["mean"])):
        a, b = Score(**row["sampled"]), Score(**row["refined"])
        errors = ["not found", ""]
        if a.error_px is not None and b.error_px is not None:
            errors = [f"{a.error_px:.1f} -> {b.error_px:.1f}", f"{100 * a.error_box:.1f} -> {100 * b.error_box:.1f}"]
        shares = f"{a.iou:.3f} -> {b.iou:.3f} | {a.pck:.3f} -> {b.pck:.3f}"
        lines.append(f"| {name} | {shares} | {errors[0]} | {errors[1]} | {row['seconds']:.2f} |")
    return "\n".join(lines)
