"""The evaluation on labelled data sets: records in, predicted batch by batch, measured under
protocols; one dictionary of all figures out."""

import dataclasses
import itertools
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import smpl_jax

from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.data.sources import Record, Report
from genhmr_jax.evaluate import measuring, predictions
from genhmr_jax.evaluate.bodies import Bodies
from genhmr_jax.evaluate.predictions import Prediction, Prepared, TestImage
from genhmr_jax.evaluate.protocols import Protocol
from genhmr_jax.geometry.metrics import Means
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import open_bytes
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

_FIELDS = ("sequence", "gender", "frame", "person")
_ARRAYS = (
    "global_orient",
    "body_pose",
    "betas",
    "has_pose",
    "has_betas",
    "keypoints3d",
    "joints24_3d",
)


class Predictor(typing.Protocol):
    """Prepares records one by one, then predicts batches of them under each of its settings."""

    labels: tuple[str, ...]

    def prepare(self, record: Record) -> Prepared:
        """The record's person, one row. Raises InputError for a bad record."""

    def predict(self, prepared: Prepared, numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """The bodies under each setting, by its label.

        Args:
          numbers: of the records, for the random draws.
        """


@dataclasses.dataclass(frozen=True)
class MeanPose:
    """The baseline that every model must beat: the mean pose and shape for everyone."""

    body: smpl_jax.SmplModel
    labels = ("mean pose",)

    def prepare(self, record: Record) -> Prepared:
        """A person who counts as found; the image is not read."""
        return Prepared(None, None, None, np.array([True]), np.array([1]), np.array([0.0]))

    def predict(self, prepared: Prepared, numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """The same for all."""
        yield self.labels[0], predictions.mean_pose(self.body, len(numbers))


@dataclasses.dataclass(frozen=True)
class ModelPredictor:
    """A trained model: the person's box from the labels, the 2D keypoints in it from our own
    detector.

    Attributes:
      recoverer: the model with the body of the protocols.
      iterations: each T of uncertainty-guided sampling to evaluate.
      refine_steps: of the refinement; each T is evaluated with 0 steps and with these.
      true_focal: take focal length and principal point of the labels where they have them, in place
        of a guess from the image size.
      options: everything else.
    """

    recoverer: Recoverer
    iterations: tuple[int, ...] = (1, 3, 5, 10)
    refine_steps: int = RefineSpec.steps
    true_focal: bool = False
    options: RecoverOptions = RecoverOptions()

    @property
    def settings(self) -> dict[str, RecoverOptions]:
        """Label -> options."""
        return predictions.settings(self.iterations, self.refine_steps, self.options)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(self.settings)

    def prepare(self, record: Record) -> Prepared:
        """Decodes the image and detects the 2D keypoints of the person in the labelled box.

        Published regressors get the crop of their own evaluation (geometry/published_crop.py).

        Raises:
          InputError: the record has no image, or it cannot be decoded, or the box lies outside.
        """
        name = f"{record['sequence']}, frame {record['frame']}, person {record['person']}"
        where = f"{name} ({record['image_name']})"
        camera = None
        if self.true_focal and record["has_intrinsics"]:
            matrix = record["intrinsics"]
            camera = PhotoCamera(float(matrix[0, 0]), tuple(matrix[:2, 2].tolist()))
        image = decode(record["image"], where)
        test_image = TestImage(image, box=record["box"], camera=camera)
        try:
            return predictions.prepare(
                self.recoverer, [test_image], self.options, published_crop=True
            )
        except ValueError as error:
            raise InputError(where, str(error), "leave it out with --skip-bad") from error

    def predict(self, prepared: Prepared, numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """The bodies under each setting."""
        for label, options in self.settings.items():
            how = {"batch": len(numbers)}
            yield label, predictions.solve(self.recoverer, prepared, options, numbers, **how)


def decode(data: bytes, where: object) -> np.ndarray:
    """An encoded image as uint8 (H, W, 3) RGB; EXIF turns are not applied, as by all makers of
    these datasets.

    Raises:
      InputError: empty, no image, or damaged.
    """
    if not data:
        raise InputError(where, "has no image", "evaluate a source that has images")
    try:
        with open_bytes(data) as image:
            return np.ascontiguousarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many types on broken files
        problem = f"its image cannot be decoded ({error})"
        raise InputError(
            where, problem, "download it again, or leave it out with --skip-bad"
        ) from error


@dataclasses.dataclass
class _Track:
    """One person in a video: the compared points, and SMPL's joints as predicted in the camera."""

    frames: list[int] = dataclasses.field(default_factory=list)
    predicted: list[np.ndarray] = dataclasses.field(default_factory=list)
    target: list[np.ndarray] = dataclasses.field(default_factory=list)
    joints: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Sheet:
    """What one protocol has measured of one setting."""

    means: Means = dataclasses.field(default_factory=Means)
    tracks: dict[tuple[str, int], _Track] = dataclasses.field(default_factory=dict)


def evaluate(
    records: Iterable[Record],
    predictor: Predictor,
    bodies: Bodies,
    protocols: Sequence[Protocol],
    report: Report,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    frames_per_second: float = 0.0,
) -> dict[str, Any]:
    """Measures a predictor. Neither the batch size nor the number of processes changes the figures
    (each sequence belongs to one process).

    Args:
      records: person records (data/sources/records.py), in the release's order.
      predictor: a model or a baseline.
      bodies: that the protocols need.
      protocols: at least one.
      report: decides what happens to images that cannot be decoded.
      batch_size: people at a time; the last batch is filled up with rows of weight 0.
      limit: only the first so many records.
      frames_per_second: of videos; 0 measures no motion.

    Returns:
      {"people": how many, "not_found": by the detector, "seconds": {label: a person}, "protocols":
      {name: {"text", "people" (with the label that it needs), "results": {label: {measure:
      mean}}}}}.

    Raises:
      InputError: a record is bad.
    """
    sheets = {p.name: {label: _Sheet() for label in predictor.labels} for p in protocols}
    clock, first = Means(), True
    for rows, prepared, numbers, weight in _batches(
        _prepared(records, predictor, report, limit), batch_size
    ):
        # 1. Labels as points.
        truths = {p.name: measuring.truth(p, bodies, rows) for p in protocols}

        # 2. Predict. The first batch twice: the clock does not count compilation.
        if first:
            list(predictor.predict(prepared, numbers))
        first = False
        clock.add({"found": prepared.found}, weight)
        for label, prediction in predictor.predict(prepared, numbers):
            clock.add({f"seconds {label}": prepared.seconds + prediction.seconds}, weight)

            # 3. Measure.
            posed = bodies.pose(prediction.pose, prediction.betas, ["neutral"] * len(numbers))
            for protocol in protocols:
                sheet, truth = sheets[protocol.name][label], truths[protocol.name]
                errors = measuring.measure(protocol, bodies, posed, truth)
                sheet.means.add(errors, truth.weight * weight)
                if frames_per_second and {"accel", "jitter"} & set(protocol.measures):
                    every = measuring.all_points(protocol, bodies, posed)
                    points = measuring.compared_points(protocol, every)
                    arrays = map(np.asarray, (points, truth.points, posed.joints))
                    _follow(sheet.tracks, rows, truth.weight * weight, *arrays)
    clock = clock.across_processes()
    seconds = clock.means()
    return {
        "people": int(clock.count("found")),
        "not_found": round((1 - seconds.get("found", 1.0)) * clock.count("found")),
        "seconds": {label: seconds.get(f"seconds {label}", 0.0) for label in predictor.labels},
        "protocols": {p.name: _figures(p, sheets[p.name], frames_per_second) for p in protocols},
    }


def _prepared(
    records: Iterable[Record], predictor: Predictor, report: Report, limit: int | None
) -> Iterator[tuple[int, Record, Prepared]]:
    """This process's records with their numbers, prepared."""
    first = True
    for number, record in enumerate(itertools.islice(records, limit)):
        if zlib.crc32(record["sequence"].encode()) % jax.process_count() != jax.process_index():
            continue
        prepared = None
        with report.skipping():
            prepared = predictor.prepare(record)
            if first:
                prepared = predictor.prepare(record)  # the first time, the detector was compiled
            first = False
        if prepared is not None:
            yield number, record, prepared


def _batches(
    records: Iterable[tuple[int, Record, Prepared]], size: int
) -> Iterator[tuple[dict[str, Any], Prepared, np.ndarray, np.ndarray]]:
    """Stacked labels, prepared people, numbers, and weights: 0 for the copies of the last record
    that fill up the last batch."""
    records = iter(records)
    while batch := list(itertools.islice(records, size)):
        weight = (np.arange(size) < len(batch)).astype(np.float64)
        batch += [batch[-1]] * (size - len(batch))
        numbers, labels, prepared = zip(*batch, strict=True)
        rows: dict[str, Any] = {name: [label[name] for label in labels] for name in _FIELDS}
        rows |= {name: np.stack([label[name] for label in labels]) for name in _ARRAYS}
        yield rows, predictions.joined(prepared), np.array(numbers), weight


def _follow(
    tracks: dict[tuple[str, int], _Track],
    rows: Mapping[str, Any],
    weight: np.ndarray,
    predicted: np.ndarray,
    target: np.ndarray,
    joints: np.ndarray,
) -> None:
    """Adds a batch's points to the tracks of their people."""
    for i in np.flatnonzero(weight):
        track = tracks.setdefault((rows["sequence"][i], int(rows["person"][i])), _Track())
        track.frames.append(int(rows["frame"][i]))
        track.predicted.append(predicted[i])
        track.target.append(target[i])
        track.joints.append(joints[i])


def _figures(
    protocol: Protocol, sheets: Mapping[str, _Sheet], frames_per_second: float
) -> dict[str, Any]:
    """The figures of one protocol."""
    results, people = {}, 0.0
    for label, sheet in sheets.items():
        for track in sheet.tracks.values():
            frames = np.array(track.frames)
            if "accel" in protocol.measures:
                points = np.stack(track.predicted), np.stack(track.target)
                sheet.means.add({"accel_mm": measuring.acceleration_errors(*points, frames)})
            if "jitter" in protocol.measures:
                jitter = measuring.emdb_jitter(np.stack(track.joints), frames, frames_per_second)
                sheet.means.add({"jitter": jitter})
        means = sheet.means.across_processes()
        results[label], people = means.means(), means.count("mpjpe_mm")
    return {"text": protocol.text, "people": int(people), "results": results}
