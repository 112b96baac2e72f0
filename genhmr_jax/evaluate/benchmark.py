"""The free benchmark of rendered people with exact labels."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.evaluate import predictions, robustness, uncertainty, worst
from genhmr_jax.evaluate.measuring import back_to_front, joint_errors, joint_means
from genhmr_jax.evaluate.predictions import Prediction, Prepared
from genhmr_jax.evaluate.synthetic_split import COUNT, Split, as_test_image, open_split
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

SYNTHETIC = (
    "Rendered people of validation subjects, one in each image, from the pixels alone: our own "
    "detector finds people and 2D keypoints, and the detected person nearest to the true keypoints "
    "is taken. A person who is not found counts with the mean pose, upright and frontal. 24 joints "
    "of SMPL's posed skeleton. MPJPE: relative to the pelvis (joint 0). PA: one similarity "
    "transform (scale, rotation, shift; no reflection) for each person. Mean over joints, then "
    "over people. The focal length is not given to the model. Back to front: the root is turned by "
    "more than 90 degrees about the vertical of the body."
)
SEARCH = RecoverOptions(max_people=3)
"""Options of the person detection."""
HYPOTHESES = 8
FAILED = 150.0
"""PA-MPJPE of a person, mm, above which the pose counts as wrong."""


def synthetic(
    model: Recoverer | None,
    folder: str | Path,
    corpus: str | Path | None = None,
    *,
    version: int = 1,
    count: int = COUNT,
    iterations: Sequence[int] = (1, 3, 5, 10),
    refine_steps: int = RefineSpec.steps,
    with_robustness: bool = False,
    with_uncertainty: bool = False,
    pictures: Path | None = None,
    context: str = "all",
    true_keypoints: bool = False,
) -> dict[str, Any]:
    """Measure a model on a fixed synthetic test set.

    Args:
      model: the model, or None for only the mean pose.
      folder: folder of the test set; missing images are rendered there.
      corpus: pose corpus from which the images are rendered; not needed for a complete set.
      version: of the test set, a key of synthetic_split.VERSIONS.
      count: number of images. Published numbers are those of COUNT images.
      iterations: numbers of sampling iterations; each is evaluated without and with refinement.
      refine_steps: 0 evaluates only without refinement.
      with_robustness: measure also the robustness (robustness.sweep).
      with_uncertainty: measure also whether the confidence predicts the error, and the choice among
        HYPOTHESES hypotheses.
      pictures: folder for plots and for the picture of the worst people (worst.jpg), if any.
      context: what the model is conditioned on, see RecoverOptions.
      true_keypoints: give the model the true 2D keypoints instead of detected ones.

    Returns:
      {"text", "split", "found", "results": {label: figures}}, and "robustness" and "uncertainty" if
      requested; `synthetic_table` formats it.

    Raises:
      InputError: an error of the test set (`open_split`), or fewer than two people were found and
        the uncertainty is requested.
    """
    # 1. The test set and the baseline.
    split = open_split(folder, corpus, count, version)
    truth = np.stack([sample.joints for sample in split.samples])
    baseline = predictions.mean_pose(load_body() if model is None else model.body, len(truth))
    results = {"mean pose": figures(baseline, split, truth, 0.0)}
    report = {"text": SYNTHETIC, "split": split.facts, "found": 1.0, "results": results}
    if model is None:
        return report

    # 2. Detect once, then solve with each setting.
    images = [as_test_image(sample, with_keypoints=true_keypoints) for sample in split.samples]
    prepared = predictions.prepare(model, images, SEARCH, warm_up=True)
    report["found"] = float(prepared.found.mean())
    before, options = float(prepared.seconds.mean()), RecoverOptions(context=context)
    for label, how in predictions.settings(iterations, refine_steps, options).items():
        prediction = predictions.solve(model, prepared, how, warm_up=True)
        results[label] = figures(prediction, split, truth, before)

    # 3. Further measures with the default setting.
    default = dataclasses.replace(options, refine_steps=refine_steps)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        prediction = predictions.solve(model, prepared, default)
        errors = joint_errors(prediction.joints, truth)
        of_people = (prepared, prediction, np.asarray(model.body.faces))
        worst.draw(split.samples, *of_people, errors, pictures / "worst.jpg")
    if with_uncertainty:
        report["uncertainty"] = _uncertainty(model, prepared, truth, default, pictures)
    if with_robustness:
        report["robustness"] = robustness.sweep(model, split, corpus, default)
    return report


def figures(
    prediction: Prediction, split: Split, truth: np.ndarray, seconds: float
) -> dict[str, Any]:
    """Mean errors over the test set, mm and px, and the error of each joint.

    "back_to_front" and "failed" (PA-MPJPE above FAILED) are shares of the people, 0..1.

    Args:
      prediction: of the N people.
      split: the test set.
      truth: (N, 24, 3) joints.
      seconds: time of detection and preparation for each person.
    """
    errors = joint_errors(prediction.joints, truth)
    result: dict[str, Any] = {}
    for name, values in errors.items():
        result[f"{name}_mm"] = float(values.mean())
        result[f"{name}_median_mm"] = float(np.median(values.mean(1)))
    true = np.stack([sample.keypoints for sample in split.samples])
    roots = np.stack([sample.global_orient for sample in split.samples])
    turned = back_to_front(prediction.pose[:, :3], roots)
    result["back_to_front"] = float(turned.mean())
    result["failed"] = float((errors["pa_mpjpe"].mean(1) > FAILED).mean())
    distance = np.linalg.norm(prediction.keypoints - true[..., :2], axis=-1)
    known = (true[..., 2] > 0) & np.isfinite(distance)
    people = known.any(1)
    means = np.where(known, distance, 0.0).sum(1)[people] / known.sum(1)[people]
    return result | {
        "reprojection_px": float(means.mean()) if len(means) else None,
        "seconds": seconds + prediction.seconds,
        "joints_pa_mm": joint_means(errors["pa_mpjpe"]),
    }


def _uncertainty(
    model: Recoverer,
    prepared: Prepared,
    truth: np.ndarray,
    options: RecoverOptions,
    pictures: Path | None,
) -> dict[str, Any]:
    """Confidence and error of the people who were found.

    They are measured on the default answer, and on several hypotheses at temperature 1.
    """
    found = prepared.found
    if found.sum() < 2:
        problem = f"{found.sum()} of {len(found)} people were found"
        raise InputError("--uncertainty", problem, "give more images, or another model")
    answer = predictions.solve(model, prepared, options)
    confidence = answer.confidence[found]
    errors = joint_errors(answer.joints[found], truth[found])["pa_mpjpe"]
    report = uncertainty.measure(confidence, errors, SMPL24)

    many = dataclasses.replace(options, hypotheses=HYPOTHESES, temperature=1.0)
    several = predictions.solve(model, prepared, many)
    targets = np.repeat(truth[found][:, None], HYPOTHESES, 1)
    of_hypotheses = joint_errors(several.hypotheses[found], targets)["pa_mpjpe"].mean(-1)
    sure = several.hypothesis_confidence[found].mean(-1)
    report["hypotheses"] = uncertainty.hypotheses(of_hypotheses, sure)
    if pictures is not None and not uncertainty.plot(
        report, confidence, errors, pictures / "uncertainty.png"
    ):
        print("no plot: matplotlib is not installed (pip install 'genhmr_jax[plots]')")
    return report


def synthetic_table(report: dict[str, Any]) -> str:
    """The Markdown table of the result of `synthetic`."""
    facts = report["split"]
    names = ("pa_mpjpe_mm", "pa_mpjpe_median_mm", "mpjpe_mm", "mpjpe_median_mm")
    lines = [
        f"synthetic test set v{facts['version']}, {facts['count']} images, hash {facts['hash']}, "
        f"mean pixel {facts['mean_pixel']}; {100 * report['found']:.1f} % found. {report['text']}",
        "",
        "| | PA-MPJPE, mm | median | MPJPE, mm | median | back to front, % "
        f"| PA-MPJPE > {FAILED:.0f} mm, % | reprojection, px | ms a person |",
        "|---" * 9 + "|",
    ]
    for label, row in report["results"].items():
        pixels = "" if row["reprojection_px"] is None else f"{row['reprojection_px']:.1f}"
        errors = " | ".join(f"{row[name]:.1f}" for name in names)
        wrong = f"{100 * row['back_to_front']:.1f} | {100 * row['failed']:.1f}"
        time = f"{1000 * row['seconds']:.0f}"
        lines.append(f"| {label} | {errors} | {wrong} | {pixels} | {time} |")
    for name, table in (("uncertainty", uncertainty.table), ("robustness", robustness.table)):
        if name in report:
            lines += ["", table(report[name])]
    return "\n".join(lines)
