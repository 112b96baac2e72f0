"""Identities of the people of a clip: detections of successive frames become tracks.

Association in two stages, as in ByteTrack (Zhang et al., ECCV 2022, arXiv:2110.06864): detections
of high score first, then those of low score with the tracks that are left. Then people who were
lost for a short time are recognised by appearance, size and place. NumPy on the host.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from smpl_jax.keypoints import COCO17

from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.movenet import COCO_TOLERANCE
from genhmr_jax.geometry.boxes import box_areas, box_overlap

HIGH, BIRTH = 0.3, 0.1
"""Scores: of the first stage of association, and from which a detection can start a track."""
LOST = 2.0
"""Seconds without a detection after which a track ends."""
UNCERTAIN_HITS, UNCERTAIN_LOST = 3, 0.25
"""A track of fewer detections ends after this many seconds without one."""
_INTERVALS = 1.5  # between frames, within which no track ends: times of frames are not regular
# Smallest likeness (see _likeness) of a detection and a track in the two stages.
LIKE_HIGH, LIKE_LOW = 0.3, 0.4
OTHER_LOOK, SAME_LOOK = 0.45, 0.85
"""Likeness of appearances up to which two are of different people, and from which of one.

Of people who walk in the open, two frames of one person are below 0.85 in 10 % of the cases after
a second; half of all pairs of different people are below 0.65.
"""
LIKE_LOOK = 0.7
"""Smallest likeness of the appearance of a person who comes back."""
GAP_PENALTY = 0.1  # of the likeness, a second without a detection
# A person who comes back, or has moved unexpectedly: largest distance from the expected place, in
# sides of the box, at once and for each second; largest factor of the sizes of the last seconds.
REACH, REACH_PER_SECOND, RESIZED = 0.3, 0.7, 1.4
REMEMBERED = 1.0
"""Seconds whose sizes of a track count: a person whom an object covers looks smaller and smaller,
and comes back in full size."""
LONGEST_MOTION = 1.0  # seconds for which the velocity of a lost person is trusted
SMOOTHING = 0.3  # seconds over which velocities are averaged
LOOK_SHARE = 0.1  # of the newest frame in the appearance of a track
SEEN = 0.3  # smallest confidence of shoulders and hips whose clothes are looked at
LUMINANCE_BINS, CHROMA_BINS = 8, 6
LOOK_SIZE = 2 * (LUMINANCE_BINS + CHROMA_BINS**2)
"""Length of an appearance: two histograms, of the torso and of the thighs."""
_GRID = 12  # samples along each side of the torso and of a thigh
_INDEX = {name: i for i, name in enumerate(COCO17)}
TORSO = [_INDEX[f"{side}_{part}"] for part in ("shoulder", "hip") for side in ("left", "right")]


@dataclasses.dataclass
class _Track:
    """A person: the last detection, and the velocity in px a second."""

    number: int
    time: float
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "23 3"]
    look: Float[np.ndarray, "D"]
    velocity: Float[np.ndarray, "2"] = dataclasses.field(default_factory=lambda: np.zeros(2))
    hits: int = 1
    before: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """Times and sizes (see _sides) of the detections of REMEMBERED seconds before the last one."""

    @property
    def sizes(self) -> tuple[float, float]:
        """The smallest and the largest side of the box in the last REMEMBERED seconds, px."""
        every = [size for _, size in self.before] + [_sides(self.box[None])[0]]
        return min(every), max(every)

    def shift(self, time: float) -> Float[np.ndarray, "2"]:
        """The expected motion, px, since the last detection."""
        return self.velocity * min(time - self.time, LONGEST_MOTION)

    def see(self, time: float, box: np.ndarray, keypoints: np.ndarray, look: np.ndarray) -> None:
        """Add a detection."""
        # 1. The velocity of the torso: it does not swing as arms and legs do.
        passed = time - self.time
        motion = (keypoints[TORSO, :2] - self.keypoints[TORSO, :2]).mean(0) / passed
        # The first ones are averaged: a new track has no velocity with which to mix them.
        share = max(1 / self.hits, 1 - np.exp(-passed / SMOOTHING))
        self.velocity = self.velocity + share * (motion - self.velocity)
        # 2. The sizes before this one.
        seen = [*self.before, (self.time, _sides(self.box[None])[0])]
        self.before = [(at, size) for at, size in seen if time - at <= REMEMBERED]
        # 3. Everything else.
        if look.any():
            self.look = look if not self.look.any() else _mixed(self.look, look)
        self.time, self.box, self.keypoints = time, box, keypoints
        self.hits += 1


class Tracker:
    """Identities over the frames of a clip, which are given in order.

    Args:
      interval: seconds between two frames. No track ends before the next frame could continue it.
    """

    def __init__(self, interval: float = 0.0) -> None:
        self._longest = _INTERVALS * interval
        self._tracks: list[_Track] = []
        self._next, self._time = 1, -np.inf

    def update(
        self, time: float, detections: Detections, looks: Float[np.ndarray, "P D"] | None = None
    ) -> Int[np.ndarray, "P"]:
        """The identities of the people of the next frame.

        A track starts with its first detection, so that a false detection can start one: drop
        tracks that stay short.

        Args:
          time: seconds, later than that of the frame before.
          detections: the people; boxes, scores and keypoints are used.
          looks: their `appearance`; rows of zeros are not known.

        Returns:
          a number from 1 for each person, the same in all frames, different for two people; 0 for
          a detection of too low a score to start a track.

        Raises:
          ValueError: the time is not later than that of the frame before.
        """
        if not time > self._time:
            raise ValueError(f"a frame at {time} s after one at {self._time} s")
        looks = np.zeros((len(detections), LOOK_SIZE)) if looks is None else looks
        # 1. Tracks that are not over.
        lost = lambda track: LOST if track.hits >= UNCERTAIN_HITS else UNCERTAIN_LOST
        self._tracks = [
            track for track in self._tracks if time - track.time <= max(lost(track), self._longest)
        ]
        # 2. Association: (detection, track) pairs, in stages.
        likeness = _likeness(time, self._tracks, detections, looks)
        returning = _returning(time, self._tracks, detections, looks)
        high = detections.scores >= HIGH
        seen_before = np.array([track.time == self._time for track in self._tracks], bool)
        everyone = np.ones_like(seen_before)
        ids, free = np.zeros(len(detections), int), everyone.copy()
        for values, least, people, tracks in (
            (likeness, LIKE_HIGH, high, everyone),
            (likeness, LIKE_LOW, ~high, seen_before),
            (returning, 0.0, detections.scores >= BIRTH, everyone),
        ):
            rows, columns = np.flatnonzero(people & (ids == 0)), np.flatnonzero(tracks & free)
            for i, j in _pairs(values[np.ix_(rows, columns)], least):
                ids[rows[i]], free[columns[j]] = self._tracks[columns[j]].number, False
        # 3. Births, from left to right: the order of the detections must not count.
        unknown = np.flatnonzero((ids == 0) & (detections.scores >= BIRTH))
        for i in sorted(unknown, key=lambda i: tuple(detections.boxes[i])):
            ids[i], self._next = self._next, self._next + 1
        # 4. New states.
        known = {track.number: track for track in self._tracks}
        boxes, keypoints = detections.boxes.astype(float), detections.keypoints.astype(float)
        for i in np.flatnonzero(ids):
            state = boxes[i], keypoints[i], looks[i]
            if ids[i] in known:
                known[ids[i]].see(time, *state)
            else:
                self._tracks.append(_Track(int(ids[i]), time, *state))
        self._time = time
        return ids


def keypoint_similarity(
    first: Float[np.ndarray, "A K 3"],
    second: Float[np.ndarray, "B K 3"],
    first_areas: Float[np.ndarray, "A"],
    second_areas: Float[np.ndarray, "B"],
) -> Float[np.ndarray, "A B"]:
    """COCO's object keypoint similarity of each pair of people, 0..1.

    exp(-d^2 / (2 s^2 k^2)) for each of the 17 keypoints (cocodataset.org, keypoint evaluation),
    averaged with the product of the confidences as weight. The area s^2 is the mean of both areas,
    px^2, because none of the two is the truth. Keypoints after the 17 are not compared.
    """
    count = len(COCO_TOLERANCE)
    a, b = first[:, None, :count], second[None, :, :count]
    area = np.maximum((first_areas[:, None] + second_areas[None]) / 2, 1.0)[..., None]
    distance = np.sum((a[..., :2] - b[..., :2]) ** 2, -1)
    alike = np.exp(-distance / (2 * area * COCO_TOLERANCE**2))
    weight = a[..., 2] * b[..., 2] + 1e-6
    return (alike * weight).sum(-1) / weight.sum(-1)


def appearance(pixels: np.ndarray, detections: Detections) -> Float[np.ndarray, "P D"]:
    """Colours of the clothes: histograms of torso and thighs, each of sum 1/2.

    Each histogram has LUMINANCE_BINS of luminance, and CHROMA_BINS squared of its two differences
    from red and blue; each half counts the same.

    Args:
      pixels: uint8 (H, W, 3), RGB.
      detections: the people; keypoints are used.

    Returns:
      (P, LOOK_SIZE); zero for a person whose shoulders or hips are hardly seen: the colours there
      are those of what covers them.
    """
    found = np.zeros((len(detections), LOOK_SIZE))
    steps = np.linspace(0.1, 0.9, _GRID)
    for person, keypoints in enumerate(detections.keypoints.astype(float)):
        if keypoints[TORSO, 2].min() < SEEN:
            continue
        # 1. A grid on the torso, and one across each thigh, a third of the hips' width wide.
        (left, right, left_hip, right_hip) = keypoints[TORSO, :2]
        knees = (keypoints[_INDEX[f"{side}_knee"], :2] for side in ("left", "right"))
        torso = _between(_between(left, right, steps), _between(left_hip, right_hip, steps), steps)
        across = (left_hip - right_hip) / 3
        thighs = [
            _between(hip + steps[:, None] * across - across / 2,
                     knee + steps[:, None] * across - across / 2, steps)
            for hip, knee in zip((left_hip, right_hip), knees, strict=True)
        ]  # fmt: skip
        # 2. Their colours.
        parts = [_histogram(pixels, torso), _histogram(pixels, np.concatenate(thighs))]
        found[person] = np.concatenate(parts) / 2
    return found


def _between(start: np.ndarray, end: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Points (S, *start.shape) on the lines from `start` to `end`."""
    share = steps.reshape(-1, *[1] * np.ndim(start))
    return start + share * (end - start)


def _histogram(pixels: np.ndarray, points: np.ndarray) -> Float[np.ndarray, "D/2"]:
    """The colours at points (..., 2) px, of sum 1; points outside the picture do not count."""
    at = np.floor(points.reshape(-1, 2)).astype(int)
    at = at[((at >= 0) & (at < pixels.shape[1::-1])).all(-1)]
    red, green, blue = pixels[at[:, 1], at[:, 0]].astype(float).T / 255
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = np.stack([red - luminance, blue - luminance], -1) * 1.5  # clothes are rarely vivid
    weight = np.full(len(at), 0.5 / max(len(at), 1))
    light = np.histogram(luminance, LUMINANCE_BINS, (0, 1), weights=weight)[0]
    edges = np.linspace(-0.5, 0.5, CHROMA_BINS + 1)
    chroma = np.clip(chroma, -0.499, 0.499)
    colour = np.histogram2d(*chroma.T, bins=(edges, edges), weights=weight)[0]
    return np.concatenate([light, colour.ravel()])


def _mixed(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The appearance of a track, averaged over time."""
    return (1 - LOOK_SHARE) * old + LOOK_SHARE * new


def _pairs(values: Float[np.ndarray, "A B"], least: float) -> list[tuple[int, int]]:
    """The pairs of the assignment of the largest sum, without those of less than `least`.

    Pairs below `least` do not count in the sum, so that they do not displace good ones.
    """
    allowed = values > least
    rows, columns = linear_sum_assignment(-np.where(allowed, values, 0.0))
    return [(i, j) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]


def _likeness(
    time: float, tracks: list[_Track], detections: Detections, looks: np.ndarray
) -> Float[np.ndarray, "P T"]:
    """Likeness of detections and of tracks where they are expected, at most 1.

    It is the mean of box overlap and keypoint similarity, times a factor from 0.5 to 1 for the
    appearance where it is known: a person in full light who steps into the shade is still found.
    """
    if not len(detections) or not tracks:
        return np.zeros((len(detections), len(tracks)))
    boxes, keypoints = detections.boxes.astype(float), detections.keypoints.astype(float)
    shifts = np.stack([track.shift(time) for track in tracks])
    expected = np.stack([track.box for track in tracks]) + np.tile(shifts, 2)
    points = np.stack([track.keypoints for track in tracks])
    points[..., :2] += shifts[:, None]
    near = box_overlap(boxes[:, None], expected[None])
    near += keypoint_similarity(keypoints, points, box_areas(boxes), box_areas(expected))
    near /= 2
    look = _look_likeness(looks, tracks)
    trust = np.where(look < 0, 1.0, np.clip((look - OTHER_LOOK) / (SAME_LOOK - OTHER_LOOK), 0, 1))
    penalty = GAP_PENALTY * np.array([time - track.time for track in tracks])
    return near * (1 + trust) / 2 - penalty


def _returning(
    time: float, tracks: list[_Track], detections: Detections, looks: np.ndarray
) -> Float[np.ndarray, "P T"]:
    """For each detection and track, how well a person who comes back fits: above 0 if at all."""
    if not len(detections) or not tracks:
        return np.zeros((len(detections), len(tracks)))
    boxes = detections.boxes.astype(float)
    gaps = np.array([time - track.time for track in tracks])
    known = np.stack([track.box for track in tracks])
    expected = known + np.tile(np.stack([track.shift(time) for track in tracks]), 2)
    centre = lambda box: (box[:, :2] + box[:, 2:]) / 2
    away = np.linalg.norm(centre(boxes)[:, None] - centre(expected)[None], axis=-1)
    smallest, largest = np.array([track.sizes for track in tracks]).T
    far = away / largest / (REACH + REACH_PER_SECOND * gaps)
    # The factor to the nearest one of the sizes that the track has had.
    size = _sides(boxes)[:, None]
    resized = np.log(size / np.clip(size, smallest, largest))
    look = _look_likeness(looks, tracks)
    fits = (far < 1) & (np.abs(resized) < np.log(RESIZED)) & ((look < 0) | (look >= LIKE_LOOK))
    return np.where(fits, 1 - far + np.maximum(look, 0.0), 0.0)


def _sides(boxes: Float[np.ndarray, "P 4"]) -> Float[np.ndarray, "P"]:
    """The longer sides of boxes xyxy, px, at least 1."""
    return np.maximum((boxes[:, 2:] - boxes[:, :2]).max(-1), 1.0)


def _look_likeness(looks: np.ndarray, tracks: list[_Track]) -> Float[np.ndarray, "P T"]:
    """Bhattacharyya coefficient of appearances, 0..1; -1 where one is not known."""
    stored = np.stack([track.look for track in tracks])
    known = looks.any(-1)[:, None] & stored.any(-1)[None]
    return np.where(known, np.sqrt(looks[:, None] * stored[None]).sum(-1), -1.0)
