"""One evaluation: records stream in, a predictor sees them, protocols measure, and one dictionary with all figures comes out."""

import dataclasses
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genhmr_jax.data.sources import Record, Report
from genhmr_jax.evaluate import measuring
from genhmr_jax.evaluate.bodies import Bodies
from genhmr_jax.evaluate.predictors import Predictor, Sight
from genhmr_jax.evaluate.protocols import Protocol
from genhmr_jax.geometry.metrics import Means

_WORDS = ("sequence", "gender")
_ARRAYS = ("global_orient", "body_pose", "betas", "has_pose", "has_betas", "keypoints3d", "joints24_3d")


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
    """Measures a predictor. Neither the batch size nor the number of processes changes the figures (each sequence is of one process).

    Args:
      records: person records (data/sources/records.py), in the release's order.
      predictor: a model or a baseline.
      bodies: that the protocols need.
      protocols: at least one.
      report: images that cannot be decoded are treated as it says.
      batch_size: people at a time; the last batch is filled up, and the filling weighs nothing.
      limit: only the first so many records.
      frames_per_second: of videos; 0 measures no motion.

    Returns:
      {"people": how many, "not_found": by the detector, "seconds": {label: a person}, "protocols": {name: {"text", "people" (with the
      label that it needs), "results": {label: {measure: mean}}}}}.

    Raises:
      InputError: a record is bad.
    """
    sheets = {protocol.name: {label: _Sheet() for label in predictor.labels} for protocol in protocols}
    clock, first = Means(), True
    for rows, sights, numbers, weight in _batches(_seen(records, predictor, report, limit), batch_size):
        truths = {p.name: measuring.truth(p, bodies, rows) for p in protocols}
        if first:
            list(predictor.predict(sights, numbers))  # compiles: the clock shall measure work
        first = False
        clock.add({"found": [sight.found for sight in sights]}, weight)
        for label, prediction in predictor.predict(sights, numbers):
            shared = prediction.seconds / len(sights)
            clock.add({f"seconds {label}": [sight.seconds + shared for sight in sights]}, weight)
            posed = bodies.pose(prediction.pose, prediction.betas, ["neutral"] * len(sights))
            for protocol in protocols:
                sheet, truth = sheets[protocol.name][label], truths[protocol.name]
                errors = measuring.measure(protocol, bodies, posed, truth)
                sheet.means.add(errors, truth.weight * weight)
                if frames_per_second and {"accel", "jitter"} & set(protocol.measures):
                    points = measuring.compared_points(protocol, measuring.all_points(protocol, bodies, posed))
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


def _seen(records: Iterable[Record], predictor: Predictor, report: Report, limit: int | None) -> Iterator[tuple[int, Record, Sight]]:
    """This process's records with their numbers and what the predictor saw of them."""
    first = True
    for number, record in enumerate(itertools.islice(records, limit)):
        if zlib.crc32(record["sequence"].encode()) % jax.process_count() != jax.process_index():
            continue
        sight = None
        with report.skipping():
            sight = predictor.see(record)
            if first:
                sight = predictor.see(record)  # the first time, the detector was compiled
            first = False
        if sight is not None:
            yield number, record, sight


def _batches(seen: Iterable[tuple[int, Record, Sight]], size: int) -> Iterator[tuple[dict[str, Any], list[Sight], np.ndarray, np.ndarray]]:
    """Stacked labels, sights, numbers, and weights: 0 for the copies of the last record that fill up the last batch."""
    seen = iter(seen)
    while batch := list(itertools.islice(seen, size)):
        weight = (np.arange(size) < len(batch)).astype(np.float64)
        batch += [batch[-1]] * (size - len(batch))
        numbers, records, sights = zip(*batch, strict=True)
        rows: dict[str, Any] = {name: [record[name] for record in records] for name in (*_WORDS, "frame", "person")}
        rows |= {name: np.stack([record[name] for record in records]) for name in _ARRAYS}
        yield rows, list(sights), np.array(numbers), weight


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


def _figures(protocol: Protocol, sheets: Mapping[str, _Sheet], frames_per_second: float) -> dict[str, Any]:
    """What the result says about one protocol."""
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
