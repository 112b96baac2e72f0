"""One person of a clip: from the answers of single frames to a steady motion.

answers of each frame -> the likely sequence -> one shape -> windows with a motion prior
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.core.assignments import assigned, best_sequence
from genhmr_jax.core.motion_refinement import MotionSpec, Window
from genhmr_jax.core.window_solve import solve_window
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE
from genhmr_jax.geometry.motion import ABSENT, FILLED, OBSERVED, frame_interval
from genhmr_jax.recover.photo import Recoverer

WINDOW, CONTEXT = 64, 8
"""Frames of a window, and those of them on either side that belong to the neighbouring windows."""
LONGEST_GAP = 0.5  # seconds that are filled, in a clip of more than 3 frames a second
_SOLVED = (
    "global_orient", "body_pose", "translation", "joints", "joints2d", "projected_keypoints"
)  # fmt: skip

Rows = Mapping[str, np.ndarray]
"""Columns of the table of recover.clip_frames."""


@dataclasses.dataclass(frozen=True)
class PersonMotion:
    """The motion of one person in the F frames of a clip.

    Fields under the names of recover.clip.Clip, without the axis of people; `answer` is the chosen
    assignment of each frame (core.assignments.ASSIGNMENTS).
    """

    state: Int[np.ndarray, "F"]
    betas: Float[np.ndarray, "10"]
    global_orient: Float[np.ndarray, "F 3"]
    body_pose: Float[np.ndarray, "F 69"]
    translation: Float[np.ndarray, "F 3"]
    joints: Float[np.ndarray, "F 24 3"]
    joints2d: Float[np.ndarray, "F 24 2"]
    joint_confidence: Float[np.ndarray, "F 24"]
    projected_keypoints: Float[np.ndarray, "F K 2"]
    answer: Int[np.ndarray, "F"]


def steady_person(
    recoverer: Recoverer,
    rows: Rows,
    mine: Int[np.ndarray, "N"],
    times: Float[np.ndarray, "F"],
    betas: Float[np.ndarray, "10"],
    spec: MotionSpec,
    contact: Float[np.ndarray, "F 2"] | None = None,
) -> PersonMotion:
    """Recover the motion of one person.

    Args:
      recoverer: the system and the body.
      rows: of all people.
      mine: indices of the person's rows, one a frame, in the order of frames.
      times: seconds of all frames of the clip.
      betas: shape, the same in all frames.
      spec: settings of the refinement.
      contact: weights with which the feet rest from a frame to the next one.
    """
    frames = np.asarray(rows["frame"][mine])
    # 1. The likely sequence of answers.
    confidence = rows["keypoints"][mine, :, 2].mean(-1)
    count = len(times)
    interval = frame_interval(times)
    answer, fits = best_sequence(rows["joints"][mine], confidence, interval)
    # 2. Segments between long gaps, and windows in each.
    contact = np.zeros((count, 2), np.float32) if contact is None else contact
    state = np.full(count, ABSENT)
    found: dict[str, np.ndarray] = {}
    longest = max(LONGEST_GAP, 1.5 * interval)
    breaks = np.flatnonzero(np.diff(times[frames]) > longest) + 1
    for part in np.split(np.arange(len(mine)), breaks):
        segment = _Segment(rows, mine[part], answer[part], fits[part], betas, times, contact)
        span = slice(segment.first, segment.last + 1)
        state[span] = FILLED
        for name, value in segment.solved(recoverer, spec).items():
            if name not in found:
                found[name] = np.zeros((count, *value.shape[1:]), np.float32)
            found[name][span] = value
    state[frames] = OBSERVED
    every = np.zeros(count, int)
    every[frames] = answer
    return PersonMotion(state=state, betas=betas, answer=every, **found)


def steady_shape(
    betas: Float[np.ndarray, "N 10"], weights: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "10"]:
    """One shape for all frames: the weighted median of each coefficient."""
    order = np.argsort(betas, 0)
    share = np.cumsum((weights + 1e-6)[order], 0)
    middle = (share >= share[-1] / 2).argmax(0)
    return np.take_along_axis(np.asarray(betas), order, 0)[middle, np.arange(betas.shape[1])]


class _Segment:
    """The frames of a person between two long gaps. Some were not detected.

    Attributes:
      first, last: frames of the clip.
    """

    def __init__(
        self,
        rows: Rows,
        mine: Int[np.ndarray, "N"],
        answer: Int[np.ndarray, "N"],
        fits: Bool[np.ndarray, "N"],
        betas: Float[np.ndarray, "10"],
        times: Float[np.ndarray, "F"],
        contact: Float[np.ndarray, "F 2"],
    ):
        """Arguments as of `steady_person`, for the detections of the segment; `answer` and `fits`
        are of `best_sequence`."""
        frames = np.asarray(rows["frame"][mine])
        self.first, self.last = int(frames[0]), int(frames[-1])
        self._rows, self._mine, self._answer, self._betas = rows, mine, answer, betas
        at = np.arange(self.first, self.last + 1)
        self._times, self._contact = times[at], contact[at]
        # Where no answer of a frame continues the motion, it starts between those of other frames.
        likely = np.flatnonzero(fits) if fits.any() else np.arange(len(frames))
        self._detections = _Between.of(np.arange(len(frames)), frames, at, times)
        self._answers = _Between.of(likely, frames[likely], at, times)

    def __len__(self) -> int:
        return len(self._times)

    def solved(self, recoverer: Recoverer, spec: MotionSpec) -> dict[str, np.ndarray]:
        """The fields of PersonMotion for the frames of the segment."""
        parts: list[dict[str, np.ndarray]] = []
        done, before = 0, None
        while done < len(self):
            # 1. A window. Its first frames are final; they are context and do not change.
            first = max(done - CONTEXT, 0)
            window = self.window(first)
            if before is not None:
                window.embeddings[: done - first], window.weak_camera[: done - first] = before
                window.free[: done - first] = False
            arguments = recoverer.system, recoverer.params, recoverer.surface, window, spec
            solved = solve_window(*arguments)
            # 2. Its last frames are solved again with those after them.
            ends = first + WINDOW >= len(self)
            final = len(self) if ends else first + WINDOW - CONTEXT
            own, kept = (
                slice(done - first, final - first),
                slice(final - first - CONTEXT, final - first),
            )
            values = {name: np.asarray(getattr(solved, name)) for name in _SOLVED}
            parts.append({name: value[own] for name, value in values.items()})
            before = np.asarray(solved.embeddings)[kept], np.asarray(solved.weak_camera)[kept]
            done = final
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        found["joint_confidence"] = self._confidence()
        return found

    def window(self, first: int) -> Window:
        """The window that begins at a frame of the segment; its start is that of the answers."""
        wanted = np.arange(first, first + WINDOW)
        index = np.minimum(wanted, len(self) - 1)
        view = CropCamera(
            crop=self._between("crop", index),
            focal=self._between("focal", index),
            centre=self._between("centre", index),
            region=self._regions(index),
        )
        observed = self._detections.exact[index]
        low = self._detections.low[index]
        keypoints = assigned(self._rows["keypoints"][self._mine[low]], self._answer[low])
        keypoints[(keypoints[..., 2] < MIN_CONFIDENCE) | ~observed[:, None]] = 0
        # Padding comes after the last frame.
        late = np.maximum(wanted - (len(self) - 1), 0)
        return Window(
            times=(self._times[index] - self._times[index[0]] + late).astype(np.float32),
            known=wanted < len(self),
            free=wanted < len(self),
            embeddings=self._between("embeddings", index, chosen=True),
            prior=self._between("sampled", index, chosen=True),
            betas=np.tile(self._betas, (WINDOW, 1)),
            weak_camera=view.weak(self._between("translation", index, chosen=True)),
            keypoints=keypoints,
            view=view,
            contact=self._contact[index].astype(np.float32),
            weight=self._between("certainty", index),
        )

    def _between(
        self, column: str, index: Int[np.ndarray, "T"], chosen: bool = False
    ) -> Float[np.ndarray, "T ..."]:
        """A column at frames, linearly interpolated; `chosen`: that of the likely answers."""
        between = self._answers if chosen else self._detections
        low, high = (self._at(column, rows[index], chosen) for rows in (between.low, between.high))
        share = between.share[index].reshape(-1, *[1] * (low.ndim - 1))
        return (low + share * (high - low)).astype(np.float32)

    def _at(self, column: str, rows: np.ndarray, chosen: bool) -> np.ndarray:
        values, mine = self._rows[column], self._mine[rows]
        return np.asarray(values[mine, self._answer[rows]] if chosen else values[mine])

    def _regions(self, index: Int[np.ndarray, "T"]) -> Float[np.ndarray, "T 4"]:
        """The detector's regions; angles are interpolated on the shorter arc."""
        ends = self._detections.low, self._detections.high
        low, high = (self._at("region", rows[index], False) for rows in ends)
        change = high - low
        change[:, 3] = (change[:, 3] + np.pi) % (2 * np.pi) - np.pi
        return (low + self._detections.share[index][:, None] * change).astype(np.float32)

    def _confidence(self) -> Float[np.ndarray, "T 24"]:
        """Of the likely answers; between two of them it falls to half of the lower one."""
        between = self._answers
        low, high = (self._at("confidence", rows, True) for rows in (between.low, between.high))
        ends = np.minimum(low, high) * (1 - np.minimum(between.share, 1 - between.share))[:, None]
        return np.where(between.exact[:, None], low, ends).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Between:
    """The two known rows around each of the T frames of a segment.

    Attributes:
      low, high: rows at or before, and after it. At the ends both are the nearest one.
      share: of the second one in the time between them, 0..1; 0.5 beyond the ends.
      exact: whether the frame itself is known, which is `low`.
    """

    low: Int[np.ndarray, "T"]
    high: Int[np.ndarray, "T"]
    share: Float[np.ndarray, "T"]
    exact: Bool[np.ndarray, "T"]

    @classmethod
    def of(
        cls,
        rows: Int[np.ndarray, "K"],
        frames: Int[np.ndarray, "K"],
        at: Int[np.ndarray, "T"],
        times: Float[np.ndarray, "F"],
    ) -> "_Between":
        """For known rows and their frames, in order."""
        low = np.searchsorted(frames, at, "right") - 1
        high = np.minimum(low + 1, len(frames) - 1)
        low = np.maximum(low, 0)
        before, after = times[frames[low]], times[frames[high]]
        share = np.clip((times[at] - before) / np.maximum(after - before, 1e-9), 0, 1)
        exact = frames[low] == at
        share = np.where((low == high) & ~exact, 0.5, share)
        return cls(rows[low], rows[high], share, exact)
