"""The evaluation on labelled data sets: records -> predictions -> errors under protocols.

The result is one dictionary of all figures.
"""

import dataclasses
import itertools
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import smpl_jax

from genhmr_jax.core.inputs import joined
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
    """A model or a baseline, with the settings under which it is evaluated."""

    labels: tuple[str, ...]

    def prepare(self, record: Record) -> Prepared:
        """Prepare the person of a record, one row. Raises InputError for a bad record."""

    def predict(self, prepared: Prepared, numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """Predict the bodies of a batch under each setting: (label of the setting, bodies).

        Args:
          prepared: the batch.
          numbers: of the records, for the random draws.
        """


@dataclasses.dataclass(frozen=True)
class MeanPose:
    """The baseline: the mean pose and shape for everybody."""

    body: smpl_jax.SmplModel
    labels = ("mean pose",)

    def prepare(self, record: Record) -> Prepared:
        """A row of a person who counts as found; the image is not read."""
        return Prepared(None, None, None, np.array([True]), np.array([1]), np.array([0.0]))

    def predict(self, prepared: Prepared, numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """The mean pose for each row."""
        yield self.labels[0], predictions.mean_pose(self.body, len(numbers))


@dataclasses.dataclass(frozen=True)
class ModelPredictor:
    """A trained model, with the labelled box and the 2D keypoints that our detector finds in it.

    Attributes:
      recoverer: the model with the body of the protocols.
      iterations: values of T, the iterations of uncertainty-guided sampling.
      refine_steps: steps of the refinement. Each T is evaluated with 0 steps and with this number.
      true_focal: use the labelled focal length and principal point, if there are any, instead of
        guesses from the image size.
      options: all other options.
    """

    recoverer: Recoverer
    iterations: tuple[int, ...] = (1, 3, 5, 10)
    refine_steps: int = RefineSpec.steps
    true_focal: bool = False
    options: RecoverOptions = RecoverOptions()

    @property
    def settings(self) -> dict[str, RecoverOptions]:
        """Label of a setting -> its options."""
        return predictions.settings(self.iterations, self.refine_steps, self.options)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the settings."""
        return tuple(self.settings)

    def prepare(self, record: Record) -> Prepared:
        """Decode the image, and detect the 2D keypoints of the person in the labelled box.

        Published regressors get the crop of their own evaluation (geometry/published_crop.py).

        Raises:
          InputError: the record has no image, the image cannot be decoded, or the box is outside.
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
        """See Predictor."""
        for label, options in self.settings.items():
            how = {"batch": len(numbers)}
            yield label, predictions.solve(self.recoverer, prepared, options, numbers, **how)


def decode(data: bytes, where: object) -> np.ndarray:
    """Decode an image to uint8 (H, W, 3) RGB.

    The EXIF rotation is not applied: the labels of these datasets are for pixels without it.

    Raises:
      InputError: the data are empty, not an image, or damaged.
    """
    if not data:
        raise InputError(where, "has no image", "evaluate a source that has images")
    try:
        with open_bytes(data) as image:
            return np.ascontiguousarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many types on broken files
        problem = f"its image cannot be decoded ({error})"
        remedy = "download it again, or leave it out with --skip-bad"
        raise InputError(where, problem, remedy) from error


@dataclasses.dataclass
class _Track:
    """One person in a video: the compared points, and the predicted SMPL joints in the camera."""

    frames: list[int] = dataclasses.field(default_factory=list)
    predicted: list[np.ndarray] = dataclasses.field(default_factory=list)
    target: list[np.ndarray] = dataclasses.field(default_factory=list)
    joints: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Sheet:
    """The figures of one setting under one protocol."""

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
    """Measure a predictor.

    Neither the batch size nor the number of processes changes the figures: each sequence belongs to
    one process.

    Args:
      records: person records (data/sources/records.py), in the order of the release.
      predictor: a model or a baseline.
      bodies: those that the protocols need.
      protocols: at least one.
      report: skips or refuses bad records.
      batch_size: people in a batch; the last batch is filled up with rows of weight 0.
      limit: the number of first records to use. None: all.
      frames_per_second: of videos; 0 measures no motion.

    Returns:
      {"people", "not_found", "seconds": {label: seconds}, "protocols": {name: {"text", "people",
      "results": {label: {measure: mean}}}}}. "people" is the number of people, and in a protocol
      the number of those with the required label. "not_found" is the number of people whom the
      detector did not find. "seconds" are those for each person.

    Raises:
      InputError: a record is bad.
    """
    sheets = {p.name: {label: _Sheet() for label in predictor.labels} for p in protocols}
    prepared_records = _prepared(records, predictor, report, limit)
    clock, first = Means(), True
    for rows, prepared, numbers, weight in _batches(prepared_records, batch_size):
        # 1. Labels as points.
        truths = {p.name: measuring.truth(p, bodies, rows) for p in protocols}

        # 2. Predict. The first batch is predicted twice: the clock excludes compilation.
        if first:
            list(predictor.predict(prepared, numbers))
        first = False
        clock.add({"found": prepared.found}, weight)
        for label, prediction in predictor.predict(prepared, numbers):
            clock.add({f"seconds {label}": prepared.seconds + prediction.seconds}, weight)

            # 3. Measure errors, and collect the points of videos.
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

    # 4. Means over all processes.
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
    """Prepare the records of this process; also their numbers."""
    first = True
    for number, record in enumerate(itertools.islice(records, limit)):
        if zlib.crc32(record["sequence"].encode()) % jax.process_count() != jax.process_index():
            continue
        prepared = None
        with report.skipping():
            prepared = predictor.prepare(record)
            if first:
                prepared = predictor.prepare(record)  # without the time of compilation
            first = False
        if prepared is not None:
            yield number, record, prepared


def _batches(
    records: Iterable[tuple[int, Record, Prepared]], size: int
) -> Iterator[tuple[dict[str, Any], Prepared, np.ndarray, np.ndarray]]:
    """Batches: stacked labels, prepared people, record numbers, and weights.

    Copies of the last record fill up the last batch; their weight is 0.
    """
    records = iter(records)
    while batch := list(itertools.islice(records, size)):
        weight = (np.arange(size) < len(batch)).astype(np.float64)
        batch += [batch[-1]] * (size - len(batch))
        numbers, labels, prepared = zip(*batch, strict=True)
        rows: dict[str, Any] = {name: [label[name] for label in labels] for name in _FIELDS}
        rows |= {name: np.stack([label[name] for label in labels]) for name in _ARRAYS}
        yield rows, joined(prepared), np.array(numbers), weight


def _follow(
    tracks: dict[tuple[str, int], _Track],
    rows: Mapping[str, Any],
    weight: np.ndarray,
    predicted: np.ndarray,
    target: np.ndarray,
    joints: np.ndarray,
) -> None:
    """Add the points of a batch to the tracks of its people."""
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
