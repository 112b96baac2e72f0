"""Robustness: the error under occlusion, truncation, low resolution, and other changes.

The other axes are the light, unusual poses, directions and body shapes. All images are made from
the synthetic test set and its seeds. They are its first images after an image operation, or
renderings that differ from them in one property. The true box is given, so that errors are those of
the pose and not of person detection.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import smpl_jax
from PIL import Image
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24

from genhmr_jax.data import poses
from genhmr_jax.data.synthetic.appearance import Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.generate import Sample, SceneSpec, render_sample
from genhmr_jax.evaluate import predictions, uncertainty
from genhmr_jax.evaluate.measuring import joint_errors, joint_means
from genhmr_jax.evaluate.predictions import TestImage
from genhmr_jax.evaluate.synthetic_split import SEED, SIZE, Split, Version, as_test_image
from genhmr_jax.evaluate.tables import line
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

PEOPLE = 20
GREY = 127
GRID = 5  # the side of the occluder is a fifth of the crop; it has 5 x 5 locations
CUTS = {"below": (0.25, 0.5), "above": (0.25,), "left": (0.25, 0.5)}
"""Side -> shares of the box that are cut off."""
RESOLUTIONS = (96, 48, 24, 12)  # px of the longer side of the box
STOPS = (-6, -4, -2, 2)  # powers of two of the amount of light
UNUSUAL = {
    "most usual 10 %": (0.0, 0.1),
    "middle": (0.45, 0.55),
    "most unusual 10 %": (0.9, 1.0),
    "most unusual 1 %": (0.99, 1.0),
}
"""Quantiles of `unusualness`."""
SHAPES = ((0, -2.5), (0, 2.5), (1, -2.5), (1, 2.5))
"""(index of a shape coefficient, change of its value)."""


def occlude(
    image: np.ndarray, box: np.ndarray, row: int, column: int, grid: int = GRID
) -> np.ndarray:
    """The image with a grey square at one cell of a grid over the square crop around a box.

    PARE (Kocabas et al. 2021) slides such a square, after Zeiler and Fergus 2014. The cells here do
    not overlap.

    Args:
      image: uint8 (H, W, 3).
      box: (4,) xyxy px.
      row: from the top, 0..grid-1.
      column: from the left, 0..grid-1.
      grid: number of cells in each direction.
    """
    side = float(max(box[2:] - box[:2]))
    x0, y0 = (box[:2] + box[2:]) / 2 - side / 2 + np.array([column, row]) * side / grid
    x, y = (np.round([low, low + side / grid]).astype(int) for low in (x0, y0))
    result = image.copy()
    result[max(y[0], 0) : max(y[1], 0), max(x[0], 0) : max(x[1], 0)] = GREY
    return result


def cut(test_image: TestImage, side: str, share: float) -> TestImage:
    """Cut off a part of the person: it becomes grey, and the 2D detector does not get it.

    The size of the image does not change, so that camera, principal point and scale stay the same.

    Args:
      test_image: with a box.
      side: "above", "below", "left" or "right".
      share: of the box that is cut off, 0..1.
    """
    height, width = test_image.image.shape[:2]
    x0, y0, x1, y1 = test_image.box
    window = [0, 0, width, height]
    edge = {
        "above": (1, y0 + share * (y1 - y0)),
        "below": (3, y1 - share * (y1 - y0)),
        "left": (0, x0 + share * (x1 - x0)),
        "right": (2, x1 - share * (x1 - x0)),
    }
    index, position = edge[side]
    window[index] = int(round(float(position)))
    image = np.full_like(test_image.image, GREY)
    inside = np.s_[window[1] : window[3], window[0] : window[2]]
    image[inside] = test_image.image[inside]
    return dataclasses.replace(test_image, image=image, window=tuple(window))


def lower_resolution(image: np.ndarray, box: np.ndarray, pixels: int) -> np.ndarray:
    """Reduce the resolution until the longer side of the box (4,) has `pixels` px.

    The image is averaged down, and interpolated back to its size.
    """
    height, width = image.shape[:2]
    scale = min(pixels / float(max(box[2:] - box[:2])), 1.0)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def relight(image: np.ndarray, stops: float) -> np.ndarray:
    """The image with 2^stops times the light (of a display gamma of 2.2), clipped at white."""
    light = np.clip((image / 255.0) ** 2.2 * 2.0**stops, 0, 1)
    return np.round(255 * light ** (1 / 2.2)).astype(np.uint8)


def unusualness(body_poses: np.ndarray) -> np.ndarray:
    """(N,) mean angle between the joint rotations of poses (N, 69) and their means, radians."""
    joints = [Rotation.from_rotvec(turns) for turns in np.split(body_poses, 23, axis=1)]
    return np.mean([(turn * turn.mean().inv()).magnitude() for turn in joints], axis=0)


def poses_between(corpus: poses.PoseCorpus, low: float, high: float, count: int) -> np.ndarray:
    """Poses (count, 72), spread over the corpus, whose `unusualness` is between two quantiles."""
    how = unusualness(corpus.poses[:, 3:])
    chosen = np.flatnonzero((how >= np.quantile(how, low)) & (how <= np.quantile(how, high)))
    return corpus.poses[chosen[np.linspace(0, len(chosen) - 1, count).astype(int)]]


def reshaped(body: smpl_jax.SmplModel, coefficient: int, amount: float) -> smpl_jax.SmplModel:
    """The body with another mean shape: one shape coefficient is changed by an amount."""
    return dataclasses.replace(
        body,
        template=body.template + amount * body.directions[coefficient],
        joint_template=body.joint_template + amount * body.joint_shapedirs[coefficient],
    )


def render(
    body: smpl_jax.SmplModel,
    wardrobe: Wardrobe,
    people: np.ndarray,
    version: Version,
    free_rotation: float | None = None,
) -> list[Sample]:
    """Render one image for each pose (N, 72), with the seeds of the test set.

    The i-th image always has the same clothes and light.

    Args:
      body: its shape varies about the mean.
      wardrobe: of this body, or of the body from which it was `reshaped`.
      people: poses, axis-angle, y up.
      version: of the test set.
      free_rotation: share of people with a random rotation. None: as in the test set.
    """
    rooms, spec = Backgrounds(), SceneSpec(size=SIZE)
    spec = spec if free_rotation is None else dataclasses.replace(spec, free_rotation=free_rotation)
    scene = lambda i: (people[i], np.random.default_rng([1, version.seed, i]), rooms, spec)
    one = lambda i: render_sample(body, wardrobe, *scene(i), appearance=version.appearance)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(len(people))))


def sweep(
    model: Recoverer,
    split: Split,
    corpus: str | Path | None,
    options: RecoverOptions,
    people: int = PEOPLE,
) -> dict[str, Any]:
    """Measure a model along all axes.

    Args:
      model: the model.
      split: the test set; its first `people` images are changed.
      corpus: pose corpus of the renderings. Without it there are no axes "pose", "direction" and
        "shape".
      options: of the recovery.
      people: number of people at each level.

    Returns:
      {"people", "axes": {axis: {level: row}}, "occlusion_map", "deciles"}. A row holds "found",
      "pa_mpjpe_mm", "mpjpe_mm", "confidence" (None for a model without) and "joints_pa_mm" {joint:
      error}. "occlusion_map" holds the increase of the error of each joint in the GRID x GRID
      cells, mm. "deciles" are those of the confidence over the people of all levels
      (`uncertainty.by_quantile`; [] for a model without confidences).
    """
    samples = split.samples[:people]
    measure = functools.partial(_measure, model, options)
    images = [as_test_image(sample, with_box=True) for sample in samples]
    truth = np.stack([sample.joints for sample in samples])

    def changed(change: Callable[[TestImage], np.ndarray]) -> Errors:
        """The errors on the same people in changed images."""
        return measure([dataclasses.replace(t, image=change(t)) for t in images], truth)

    # 1. Image operations.
    reference = measure(images, truth)
    cells = [(row, column) for row in range(GRID) for column in range(GRID)]
    hidden = [changed(lambda t, c=cell: occlude(t.image, t.box, *c)) for cell in cells]
    axes = {
        "none": {"as rendered": reference},
        "occlusion": {
            "mean of all places": _pooled(hidden),
            "worst place of each person": _worst(hidden),
        },
        "truncation": {
            f"{share:.0%} cut {side}": measure([cut(t, side, share) for t in images], truth)
            for side, shares in CUTS.items()
            for share in shares
        },
        "resolution": {
            f"{pixels} px": changed(lambda t, n=pixels: lower_resolution(t.image, t.box, n))
            for pixels in RESOLUTIONS
        },
        "light": {
            f"{stops:+d} stops": changed(lambda t, n=stops: relight(t.image, n)) for stops in STOPS
        },
    }

    # 2. Renderings of other people.
    if corpus:
        validation = poses.load_corpus(corpus, "val")
        axes |= _rendered_axes(measure, validation, len(samples), split.version)

    # 3. Confidence over all levels, with each image once.
    own = [levels.values() for axis, levels in axes.items() if axis not in ("none", "occlusion")]
    everyone = _pooled([reference, *hidden, *(errors for levels in own for errors in levels)])
    confidence, aligned = everyone.confidence.mean(1), everyone.aligned.mean(1)
    known = not np.isnan(confidence).any()
    increase = np.stack([errors.aligned.mean(0) for errors in hidden]) - reference.aligned.mean(0)
    increase = np.round(increase.reshape(GRID, GRID, 24), 1)
    return {
        "people": len(samples),
        "axes": {
            axis: {level: errors.row() for level, errors in levels.items()}
            for axis, levels in axes.items()
        },
        "occlusion_map": {name: increase[..., i].tolist() for i, name in enumerate(SMPL24)},
        "deciles": uncertainty.by_quantile(confidence, aligned) if known else [],
    }


@dataclasses.dataclass(frozen=True)
class Errors:
    """The errors of N people.

    Attributes:
      plain, aligned: (N, 24) mm, relative to the pelvis and after alignment.
      confidence: (N, 24).
      found: (N,) whether the person was found.
    """

    plain: np.ndarray
    aligned: np.ndarray
    confidence: np.ndarray
    found: np.ndarray

    def row(self) -> dict[str, Any]:
        """The means over the people."""
        unsure = np.isnan(self.confidence).any()
        return {
            "found": float(self.found.mean()),
            "pa_mpjpe_mm": float(self.aligned.mean()),
            "mpjpe_mm": float(self.plain.mean()),
            "confidence": None if unsure else float(self.confidence.mean()),
            "joints_pa_mm": joint_means(self.aligned),
        }


def _measure(
    model: Recoverer, options: RecoverOptions, images: Sequence[TestImage], truth: np.ndarray
) -> Errors:
    """The errors of a model on images of people with true joints (N, 24, 3)."""
    prediction = predictions.solve(model, predictions.prepare(model, images, options), options)
    errors = joint_errors(prediction.joints, truth)
    return Errors(errors["mpjpe"], errors["pa_mpjpe"], prediction.confidence, prediction.found)


def _rendered_axes(
    measure: Callable[[Sequence[TestImage], np.ndarray], Errors],
    corpus: poses.PoseCorpus,
    people: int,
    version: Version,
) -> dict[str, dict[str, Errors]]:
    """The axes whose images are rendered."""
    body = load_body()
    wardrobe, drawn = Wardrobe.of(body), corpus.poses[corpus.draw(np.arange(people), SEED)]

    def rendered(
        figure: smpl_jax.SmplModel, who: np.ndarray, free_rotation: float | None = None
    ) -> Errors:
        samples = render(figure, wardrobe, who, version, free_rotation)
        images = [as_test_image(sample, with_box=True) for sample in samples]
        return measure(images, np.stack([sample.joints for sample in samples]))

    return {
        "pose": {
            name: rendered(body, poses_between(corpus, *band, people))
            for name, band in UNUSUAL.items()
        },
        "direction": {"upright": rendered(body, drawn, 0.0), "any": rendered(body, drawn, 1.0)},
        "shape": {
            f"coefficient {i} {amount:+.1f}": rendered(reshaped(body, i, amount), drawn)
            for i, amount in SHAPES
        },
    }


def _pooled(parts: Sequence[Errors]) -> Errors:
    """The people of all parts."""
    names = [field.name for field in dataclasses.fields(Errors)]
    return Errors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _worst(parts: Sequence[Errors]) -> Errors:
    """For each person, the part with the largest PA error."""
    index = np.argmax(np.stack([part.aligned.mean(1) for part in parts]), axis=0)
    names = [field.name for field in dataclasses.fields(Errors)]
    stacked = (np.stack([getattr(part, name) for part in parts]) for name in names)
    return Errors(*(values[index, np.arange(len(index))] for values in stacked))


def table(report: dict[str, Any]) -> str:
    """The Markdown tables of `sweep`: axes, joints under the occluder, deciles of confidence."""
    lines = [
        f"Robustness, {report['people']} people a level, true boxes given.",
        "",
        "| axis | level | found, % | PA-MPJPE, mm | MPJPE, mm | confidence |",
        "|---|---|---|---|---|---|",
    ]
    for axis, levels in report["axes"].items():
        for level, row in levels.items():
            sure = "" if row["confidence"] is None else f"{row['confidence']:.2f}"
            errors = f"{row['pa_mpjpe_mm']:.1f} | {row['mpjpe_mm']:.1f}"
            lines.append(f"| {axis} | {level} | {100 * row['found']:.0f} | {errors} | {sure} |")
    plain = report["axes"]["none"]["as rendered"]["joints_pa_mm"]
    hidden = report["axes"]["occlusion"]["mean of all places"]["joints_pa_mm"]
    lines += [
        "",
        "| joint | PA error, mm | under the occluder | worst place: more by |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {plain[name]:.1f} | {hidden[name]:.1f} | {np.max(increase):.1f} |"
        for name, increase in report["occlusion_map"].items()
    ]
    if deciles := report["deciles"]:
        lines += [
            "",
            line("people of all levels, by confidence", *range(1, len(deciles) + 1)),
            "|---" * (len(deciles) + 1) + "|",
            line("confidence", *(f"{d['confidence']:.2f}" for d in deciles)),
            line("PA-MPJPE, mm", *(f"{d['error_mm']:.0f}" for d in deciles)),
        ]
    return "\n".join(lines)
