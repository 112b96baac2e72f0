"""The first pass over a clip: the people of every frame, each frame by itself.

    frame -> detection, or following -> System.prepare -> core.assignments.solve_frames -> tables

The tables are on disk, so that a long clip needs no memory, and an interrupted pass can be resumed.
A chunk of frames is solved in a thread while the people of the next one are detected.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from genhmr_jax.core.assignments import FrameAnswers, solve_frames
from genhmr_jax.core.inputs import Inputs, joined
from genhmr_jax.data.annotations.clip_masks import ClipMasks
from genhmr_jax.detect.camera_motion import INTERVAL, CameraMotion
from genhmr_jax.detect.cuts import SUDDEN, Changes
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import detect
from genhmr_jax.detect.dissolves import SPANS, Dissolves
from genhmr_jax.detect.following import ClipDetector
from genhmr_jax.detect.tracker import appearance
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.row_table import RowTable
from genhmr_jax.io.video import Frame, FrameSource
from genhmr_jax.recover.photo import Recoverer, RecoverOptions, in_chunks, keys_of

CHUNK = 16
"""Frames that are solved and written together. Solving never mixes frames of two chunks."""


class FrameTables:
    """What the first pass has found; two tables in one folder.

    `frames` has index, time (seconds), people (number of rows), shift (of the background), change
    (of the picture) and dissolve (seconds, of Dissolves.update). Each row of `people` is a person
    in a frame: frame (number among the chosen ones), box, score, keypoints, certainty, look
    (tracker.appearance), label (of the user's masks; 0 without), the camera and crop, and
    FrameAnswers.
    """

    def __init__(self, frames: RowTable, people: RowTable):
        """Wrap two tables that belong together."""
        self.frames, self.people = frames, people

    @classmethod
    def make(cls, folder: pathlib.Path, identity: dict[str, Any]) -> "FrameTables":
        """Empty tables. `identity`: JSON, what the results depend on."""
        folder.mkdir(parents=True, exist_ok=True)
        notes = {"identity": identity, "since_search": 0}
        return cls(RowTable(folder / "frames", notes), RowTable(folder / "people", {}))

    @classmethod
    def resume(cls, folder: pathlib.Path, identity: dict[str, Any]) -> "FrameTables":
        """The tables of an interrupted pass, or empty ones if there are none.

        Raises:
          InputError: they are damaged, or are those of another clip or of other options.
        """
        try:
            frames, people = RowTable.open(folder / "frames"), RowTable.open(folder / "people")
        except FileNotFoundError:
            return cls.make(folder, identity)
        if frames.notes.get("identity") != identity:
            problem = "was made from another clip, or with other options"
            raise InputError(folder, problem, "give the same ones, or leave out --resume")
        # Rows are written before their frames.
        people.truncate(int(frames.read()["people"].sum()) if len(frames) else 0)
        return cls(frames, people)

    @property
    def complete(self) -> bool:
        """Whether the pass has reached the end of the clip."""
        return bool(self.frames.notes.get("complete"))

    def people_of(self, frames: range) -> Iterator[Detections]:
        """The people of successive frames; only boxes, scores and keypoints are known."""
        ends = np.cumsum(self.frames.read()["people"])
        columns = self.people.read()
        for frame in frames:
            rows = slice(int(ends[frame - 1]) if frame else 0, int(ends[frame]))
            found = Detections.empty(rows.stop - rows.start)
            for name, column in (("boxes", "box"), ("scores", "score"), ("keypoints", "keypoints")):
                if len(found):
                    getattr(found, name)[:] = columns[column][rows]
            yield found

    def delete(self) -> None:
        """Delete both, and their folder if nothing else is in it."""
        self.frames.delete()
        self.people.delete()
        with contextlib.suppress(OSError):
            self.frames.path.parent.rmdir()


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A frame whose people are detected, and their inputs; None without people."""

    frame: int
    source: Frame
    people: Detections
    looks: np.ndarray
    labels: np.ndarray
    shift: float
    change: float
    dissolve: float
    inputs: Inputs | None


def observe(
    source: FrameSource,
    recoverer: Recoverer,
    options: RecoverOptions,
    tables: FrameTables,
    search_every: int,
    progress: Callable[[int, int], None] = lambda frames, people: None,
    masks: ClipMasks | None = None,
) -> bool:
    """Fill the tables with the frames that they lack.

    Args:
      source: the frames.
      recoverer, options: as for a photo; one hypothesis.
      tables: of `FrameTables.make` or `FrameTables.resume`.
      search_every: of ClipDetector.
      progress: called after each chunk with the numbers of its frames, and of its people in all.
      masks: of the user, in place of the search for people.

    Returns:
      False if the pass was interrupted (KeyboardInterrupt). All complete chunks are written.
    """
    if tables.complete:
        return True
    detector = ClipDetector(every=search_every, max_people=options.max_people)
    detector.since_search = int(tables.frames.notes["since_search"])
    seen = _detected(source, recoverer, options, detector, tables, masks)
    pending: Future | None = None
    with ThreadPoolExecutor(1) as pool:
        try:
            for chunk, since_search in seen:
                if pending is not None:
                    progress(*pending.result())
                arguments = recoverer, options, tables, chunk, since_search
                pending = pool.submit(_solve_and_write, *arguments)
            if pending is not None:
                progress(*pending.result())
        except KeyboardInterrupt:
            return False
    tables.frames.note(complete=True)
    return True


def _detected(
    source: FrameSource,
    recoverer: Recoverer,
    options: RecoverOptions,
    detector: ClipDetector,
    tables: FrameTables,
    masks: ClipMasks | None,
) -> Iterator[tuple[list[_Seen], int]]:
    """Chunks of frames whose people are detected, and the state of the detector after each."""
    motion, changes, dissolves = CameraMotion(), Changes(), Dissolves()
    chunk, done = [], len(tables.frames)
    previous, again, first, earlier = None, 0, 0, []
    if done:
        # After an interruption, frames that are done are read again for cuts and the motion of the
        # camera. They are counted in the tables: the source may lack frames that cannot be decoded.
        frames = tables.frames.read()
        longest = max(2 * INTERVAL, SPANS[-1] + INTERVAL)
        again = int(np.searchsorted(frames["time"], frames["time"][-1] - longest))
        first = int(frames["index"][again])
        earlier = list(tables.people_of(range(again, done)))
        previous = earlier[-1]
    for number, frame in enumerate(source.frames(first), again):
        change = changes.update(frame.pixels)
        dissolve = dissolves.update(frame.time, frame.pixels)
        if number < done:
            motion.update(frame.time, frame.pixels, earlier[number - again].boxes)
            continue
        # After a cut, nobody is where the frame before suggests.
        previous = None if change >= SUDDEN else previous
        if masks is None:
            previous = recoverer.recoverable(detector.detect(frame.pixels, previous))
            labels = np.zeros(len(previous), np.int32)
        else:
            previous, labels = _in_masks(frame, recoverer, options, masks)
        shift = motion.update(frame.time, frame.pixels, previous.boxes)
        looks, inputs = appearance(frame.pixels, previous), None
        if len(previous):
            camera = options.camera(*source.size)
            inputs = recoverer.system.prepare(frame.pixels, previous, camera, len(previous))
        light = dataclasses.replace(frame, pixels=np.zeros((0, 0, 3), np.uint8))
        seen = previous, looks, labels, shift, change, dissolve
        chunk.append(_Seen(number, light, *seen, inputs))
        if len(chunk) == CHUNK:
            yield chunk, detector.since_search
            chunk = []
    if chunk:
        yield chunk, detector.since_search


def _in_masks(
    frame: Frame, recoverer: Recoverer, options: RecoverOptions, masks: ClipMasks
) -> tuple[Detections, np.ndarray]:
    """The people whose masks are given for a frame, and their labels."""
    size = frame.pixels.shape[1], frame.pixels.shape[0]
    given, labels = masks.people_of(frame.index, size, options.max_people)
    people = recoverer.recoverable(given.replace(detect(frame.pixels, given.boxes)))
    return people, labels[people.given].astype(np.int32)


def _solve_and_write(
    recoverer: Recoverer,
    options: RecoverOptions,
    tables: FrameTables,
    chunk: list[_Seen],
    since_search: int,
) -> tuple[int, int]:
    """Solve the people of a chunk, and append them; the numbers of frames and of people."""
    found = [one for one in chunk if one.inputs is not None]
    if found:
        how = options.solving(recoverer.system)

        def run(inputs: Inputs, numbers: np.ndarray) -> FrameAnswers:
            keys = keys_of(np.uint32(options.seed % 2**32), numbers)
            what = recoverer.system, recoverer.params, recoverer.surface
            return solve_frames(*what, inputs, keys, how)

        inputs = joined([one.inputs for one in found])
        numbers = np.concatenate([np.arange(len(one.people)) for one in found])
        # One size, so that a clip needs one program.
        answers = in_chunks(run, inputs, numbers, fewest=1)
        tables.people.append(_rows(found, inputs, answers))
    counts = np.array([len(one.people) for one in chunk], np.int32)
    tables.frames.notes["since_search"] = since_search
    tables.frames.append({
        "index": np.array([one.source.index for one in chunk], np.int32),
        "time": np.array([one.source.time for one in chunk]),
        "people": counts,
        "shift": np.array([one.shift for one in chunk]),
        "change": np.array([one.change for one in chunk]),
        "dissolve": np.array([one.dissolve for one in chunk]),
    })  # fmt: skip
    return len(chunk), int(counts.sum())


def _rows(found: list[_Seen], inputs: Inputs, answers: FrameAnswers) -> dict[str, np.ndarray]:
    """The columns of `people`."""
    people = [one.people for one in found]
    view = inputs.view
    region = view.region
    if region is None:  # the upright crop
        region = np.concatenate([view.crop, np.zeros_like(view.crop[:, :1])], -1)
    rows = {
        "frame": np.repeat([one.frame for one in found], list(map(len, people))).astype(np.int32),
        "box": np.concatenate([one.boxes for one in people]),
        "score": np.concatenate([one.scores for one in people]),
        "keypoints": np.concatenate([one.keypoints for one in people]),
        "certainty": np.concatenate([one.certainty for one in people]),
        "look": np.concatenate([one.looks for one in found]).astype(np.float32),
        "label": np.concatenate([one.labels for one in found]),
        "crop": view.crop,
        "focal": view.focal,
        "centre": view.centre,
        "region": region,
    }
    for field in dataclasses.fields(answers):
        rows[field.name] = np.asarray(getattr(answers, field.name))[: inputs.rows]
    return {name: np.asarray(value) for name, value in rows.items()}
