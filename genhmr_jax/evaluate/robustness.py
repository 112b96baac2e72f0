"""Where a model breaks: the error under occlusion, truncation, low resolution, bad light, unusual poses, directions and body shapes.

All pictures are made from the synthetic test set and its seeds: image operations on its first images, or renderings that differ from
them in one thing. The true box is given, so that the axes measure the pose and not the search for people.
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
from genhmr_jax.evaluate import looking, uncertainty
from genhmr_jax.evaluate.looking import Shot
from genhmr_jax.evaluate.synthetic_split import SEED, SIZE, Split
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

PEOPLE = 20
GREY = 127
GRID = 5  # the occluder is a fifth of the crop and takes 5 x 5 places
CUTS = {"below": (0.25, 0.5), "above": (0.25,), "left": (0.25, 0.5)}  # sides, shares of the box cut away
RESOLUTIONS = (96, 48, 24, 12)  # px of the longer side of the box
STOPS = (-6, -4, -2, 2)  # doublings of the light
UNUSUAL = {"most usual 10 %": (0.0, 0.1), "middle": (0.45, 0.55), "most unusual 10 %": (0.9, 1.0), "most unusual 1 %": (0.99, 1.0)}
SHAPES = ((0, -2.5), (0, 2.5), (1, -2.5), (1, 2.5))  # shape coefficient, by how much everybody's is moved


def occlude(image: np.ndarray, box: np.ndarray, row: int, column: int, grid: int = GRID) -> np.ndarray:
    """A grey square over one of grid x grid places of the square crop around a box.

    As PARE (Kocabas et al. 2021) slides it, after Zeiler and Fergus 2014; here the places do not overlap.

    Args:
      image: uint8 (H, W, 3).
      box: (4,) xyxy px.
      row: from above, 0..grid-1.
      column: from the left.
      grid: places in each direction.
    """
    side = float(max(box[2:] - box[:2]))
    x0, y0 = (box[:2] + box[2:]) / 2 - side / 2 + np.array([column, row]) * side / grid
    x, y = (np.round([low, low + side / grid]).astype(int) for low in (x0, y0))
    result = image.copy()
    result[max(y[0], 0) : max(y[1], 0), max(x[0], 0) : max(x[1], 0)] = GREY
    return result


def cut(shot: Shot, side: str, share: float) -> Shot:
    """The picture ends within the person: what lies beyond is grey, and the 2D detector does not get to see it.

    The picture keeps its size, so that the camera, its centre and the scale stay what they were.

    Args:
      shot: with a box.
      side: "above", "below", "left" or "right".
      share: of the box that is cut away, 0..1.
    """
    height, width = shot.image.shape[:2]
    x0, y0, x1, y1 = shot.box
    window = [0, 0, width, height]
    edge = {
        "above": (1, y0 + share * (y1 - y0)),
        "below": (3, y1 - share * (y1 - y0)),
        "left": (0, x0 + share * (x1 - x0)),
        "right": (2, x1 - share * (x1 - x0)),
    }
    index, position = edge[side]
    window[index] = int(round(float(position)))
    image = np.full_like(shot.image, GREY)
    inside = np.s_[window[1] : window[3], window[0] : window[2]]
    image[inside] = shot.image[inside]
    return dataclasses.replace(shot, image=image, window=tuple(window))


def lower_resolution(image: np.ndarray, box: np.ndarray, pixels: int) -> np.ndarray:
    """The image as if the longer side of the box (4,) had only so many pixels: averaged down, and interpolated back to its size."""
    height, width = image.shape[:2]
    scale = min(pixels / float(max(box[2:] - box[:2])), 1.0)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def relight(image: np.ndarray, stops: float) -> np.ndarray:
    """The image with 2^stops times the light (of a display gamma of 2.2), clipped at white."""
    return np.round(255 * np.clip((image / 255.0) ** 2.2 * 2.0**stops, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def unusualness(body_poses: np.ndarray) -> np.ndarray:
    """(N,) mean angle, radians, between the 23 joint rotations of poses (N, 69) and the mean rotation of each joint."""
    angles = [
        (rotation * rotation.mean().inv()).magnitude()
        for rotation in (Rotation.from_rotvec(body_poses[:, 3 * joint : 3 * joint + 3]) for joint in range(23))
    ]
    return np.mean(angles, axis=0)


def poses_between(corpus: poses.PoseCorpus, low: float, high: float, count: int) -> np.ndarray:
    """(count, 72): spread over the corpus, those whose `unusualness` lies between two quantiles."""
    how = unusualness(corpus.poses[:, 3:])
    chosen = np.flatnonzero((how >= np.quantile(how, low)) & (how <= np.quantile(how, high)))
    return corpus.poses[chosen[np.linspace(0, len(chosen) - 1, count).astype(int)]]


def reshaped(body: smpl_jax.SmplModel, coefficient: int, amount: float) -> smpl_jax.SmplModel:
    """The body whose mean shape is its own with one shape coefficient moved."""
    return dataclasses.replace(
        body,
        template=body.template + amount * body.directions[coefficient],
        joint_template=body.joint_template + amount * body.joint_shapedirs[coefficient],
    )


def render(body: smpl_jax.SmplModel, wardrobe: Wardrobe, people: np.ndarray, free_rotation: float | None = None) -> list[Sample]:
    """One image for each pose (N, 72), with the seeds of the test set: the i-th wears the same and stands in the same light each time.

    Args:
      body: whose shape varies about its own mean.
      wardrobe: of this body, or of one that it was `reshaped` from.
      people: poses, axis-angle, y up.
      free_rotation: share that is turned any way, None: as in the test set.
    """
    rooms, spec = Backgrounds(), SceneSpec(size=SIZE)
    spec = spec if free_rotation is None else dataclasses.replace(spec, free_rotation=free_rotation)
    one = lambda i: render_sample(body, wardrobe, people[i], np.random.default_rng([1, SEED, i]), rooms, spec)  # noqa: E731
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(len(people))))


def sweep(model: Recoverer, split: Split, corpus: str | Path | None, options: RecoverOptions, people: int = PEOPLE) -> dict[str, Any]:
    """All axes.

    Args:
      model: the recoverer.
      split: the test set; its first `people` images are changed.
      corpus: pose corpus of the renderings; without it there is neither "pose", "direction" nor "shape".
      options: how to recover.
      people: how many each level is measured on.

    Returns:
      {"people", "axes": {axis: {level: row}}, "occlusion_map": {joint: GRID x GRID increase of its error, mm}, "deciles": of the
      confidence over people of all levels (`uncertainty.by_quantile`; none of a model without confidences)}; a row holds "found",
      "pa_mpjpe_mm", "mpjpe_mm", "confidence" (None without) and "joints_pa_mm" {joint: error}.
    """
    samples = split.samples[:people]
    ask = functools.partial(_ask, model, options)
    plain = [looking.shot_of(sample, with_box=True) for sample in samples]
    truth = np.stack([sample.joints for sample in samples])
    reference = ask(plain, truth)
    axes = {"none": {"as rendered": reference}}
    places = [(row, column) for row in range(GRID) for column in range(GRID)]
    hidden = [ask(_changed(plain, lambda s, p=p: occlude(s.image, s.box, *p)), truth) for p in places]
    axes["occlusion"] = {"mean of all places": _pooled(hidden), "worst place of each person": _worst(hidden)}
    axes["truncation"] = {
        f"{share:.0%} cut {side}": ask([cut(shot, side, share) for shot in plain], truth)
        for side, shares in CUTS.items()
        for share in shares
    }
    axes["resolution"] = {
        f"{pixels} px": ask(_changed(plain, lambda s, n=pixels: lower_resolution(s.image, s.box, n)), truth) for pixels in RESOLUTIONS
    }
    axes["light"] = {f"{stops:+d} stops": ask(_changed(plain, lambda s, n=stops: relight(s.image, n)), truth) for stops in STOPS}
    if corpus:
        axes |= _rendered_axes(ask, poses.load_corpus(corpus, "val"), len(samples))
    everyone = [reference, *hidden, *(found for name in axes if name not in ("none", "occlusion") for found in axes[name].values())]
    confidence, errors = (np.concatenate([getattr(found, name).mean(1) for found in everyone]) for name in ("confidence", "aligned"))
    increase = np.stack([found.aligned.mean(0) for found in hidden]).reshape(GRID, GRID, 24) - reference.aligned.mean(0)
    return {
        "people": len(samples),
        "axes": {axis: {level: found.row() for level, found in levels.items()} for axis, levels in axes.items()},
        "occlusion_map": {name: np.round(increase[..., i], 1).tolist() for i, name in enumerate(SMPL24)},
        "deciles": [] if np.isnan(confidence).any() else uncertainty.by_quantile(confidence, errors),
    }


@dataclasses.dataclass(frozen=True)
class Found:
    """Errors, mm, relative to the pelvis (`plain`) and PA (`aligned`), and confidence (each (N, 24)); found (N,)."""

    plain: np.ndarray
    aligned: np.ndarray
    confidence: np.ndarray
    found: np.ndarray

    def row(self) -> dict[str, Any]:
        """Its means."""
        return {
            "found": float(self.found.mean()),
            "pa_mpjpe_mm": float(self.aligned.mean()),
            "mpjpe_mm": float(self.plain.mean()),
            "confidence": None if np.isnan(self.confidence).any() else float(self.confidence.mean()),
            "joints_pa_mm": dict(zip(SMPL24, np.round(self.aligned.mean(0), 2).tolist(), strict=True)),
        }


def _ask(model: Recoverer, options: RecoverOptions, shots: Sequence[Shot], truth: np.ndarray) -> Found:
    """The model's errors on shots whose true joints (N, 24, 3) are known."""
    answers = looking.solve(model, looking.look(model, shots), options)
    errors = looking.joint_errors(answers.joints, truth)
    return Found(errors["mpjpe"], errors["pa_mpjpe"], answers.confidence, answers.found)


def _changed(shots: Sequence[Shot], change: Callable[[Shot], np.ndarray]) -> list[Shot]:
    return [dataclasses.replace(shot, image=change(shot)) for shot in shots]


def _rendered_axes(ask: Callable, corpus: poses.PoseCorpus, people: int) -> dict[str, dict[str, Found]]:
    """The axes that are rendered anew."""
    body = load_body()
    wardrobe, drawn = Wardrobe.of(body), corpus.poses[corpus.draw(np.arange(people), SEED)]

    def asked(figure: smpl_jax.SmplModel, who: np.ndarray, free_rotation: float | None = None) -> Found:
        samples = render(figure, wardrobe, who, free_rotation)
        return ask([looking.shot_of(sample, with_box=True) for sample in samples], np.stack([sample.joints for sample in samples]))

    return {
        "pose": {name: asked(body, poses_between(corpus, *band, people)) for name, band in UNUSUAL.items()},
        "direction": {"upright": asked(body, drawn, 0.0), "any": asked(body, drawn, 1.0)},
        "shape": {f"coefficient {i} {amount:+.1f}": asked(reshaped(body, i, amount), drawn) for i, amount in SHAPES},
    }


def _pooled(parts: Sequence[Found]) -> Found:
    return Found(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Found)))


def _worst(parts: Sequence[Found]) -> Found:
    """Of each person the part with the largest PA error."""
    index = np.argmax(np.stack([part.aligned.mean(1) for part in parts]), axis=0)
    stacked = (np.stack([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Found))
    return Found(*(values[index, np.arange(len(index))] for values in stacked))


def table(report: dict[str, Any]) -> str:
    """Markdown of what `sweep` measured: the axes, the joints under the occluder, and the deciles of confidence."""
    lines = [
        f"Robustness, {report['people']} people a level, true boxes given.",
        "",
        "| axis | level | found, % | PA-MPJPE, mm | MPJPE, mm | confidence |",
        "|---|---|---|---|---|---|",
    ]
    for axis, levels in report["axes"].items():
        for level, row in levels.items():
            sure = "" if row["confidence"] is None else f"{row['confidence']:.2f}"
            figures = f"{100 * row['found']:.0f} | {row['pa_mpjpe_mm']:.1f} | {row['mpjpe_mm']:.1f} | {sure}"
            lines.append(f"| {axis} | {level} | {figures} |")
    plain, hidden = report["axes"]["none"]["as rendered"], report["axes"]["occlusion"]["mean of all places"]
    lines += ["", "| joint | PA error, mm | under the occluder | worst place: more by |", "|---|---|---|---|"]
    for name, places in report["occlusion_map"].items():
        lines.append(f"| {name} | {plain['joints_pa_mm'][name]:.1f} | {hidden['joints_pa_mm'][name]:.1f} | {np.max(places):.1f} |")
    if deciles := report["deciles"]:
        lines += ["", "| people of all levels, by confidence | " + " | ".join(str(i + 1) for i in range(len(deciles))) + " |"]
        lines += ["|---" * (len(deciles) + 1) + "|"]
        lines += ["| confidence | " + " | ".join(f"{d['confidence']:.2f}" for d in deciles) + " |"]
        lines += ["| PA-MPJPE, mm | " + " | ".join(f"{d['error_mm']:.0f}" for d in deciles) + " |"]
    return "\n".join(lines)
