"""Dissolves of a clip: one shot fades into another one.

Within a dissolve every frame is a mixture of both shots. So the frames inside of a span are
mixtures of its ends, a growing share of the later one, although the ends have nothing in common.
A mean of two pictures that have nothing in common has half the variance of their details: so the
details are faint in the middle. A camera or a motion does not do that.
"""

import collections

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

SPANS = (0.4, 0.8, 1.6, 2.8)
"""Seconds of the compared spans."""
UNLIKE = 0.35
"""Correlation of the details of the ends, below which they have nothing in common."""
MIXED = 0.5
"""Largest distance of a frame from the nearest mixture, relative to the distance of the ends.

For a frame of a third, unrelated picture it is 0.87.
"""
FAINT = 0.75
"""Largest variance of details in the middle, relative to what lies between those of the ends."""
_CHANGE = 8.0  # of 255: smallest mean difference of the ends
_WIDTH, _DETAIL = 64, 6  # px: of the reduced picture, and the radius of what is a detail in it
_SHARES = (0.25, 0.5, 0.75)  # of a span: where it is compared
_LEAST = 0.06  # of the later end at the first of them, and of the earlier end at the last
_APART = 1.5  # seconds: two dissolves are farther apart


class Dissolves:
    """Compares each frame with those of the last seconds."""

    def __init__(self) -> None:
        self._past: collections.deque[tuple[float, np.ndarray, np.ndarray]] = collections.deque()

    def update(self, time: float, pixels: np.ndarray) -> float:
        """The middle of a span that ends here and is part of a dissolve, seconds; NaN without.

        Args:
          time: of the frame, seconds; increasing.
          pixels: uint8 (H, W, 3), RGB.
        """
        height, width = pixels.shape[:2]
        size = _WIDTH, max(round(height * _WIDTH / width), 1)
        small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX).convert("L")
        mean = np.asarray(small.filter(ImageFilter.BoxBlur(_DETAIL)), np.float32)
        grey = np.asarray(small, np.float32)
        self._past.append((time, grey, grey - mean))
        while self._past[0][0] < time - SPANS[-1] - 0.5:
            self._past.popleft()
        times = np.array([past[0] for past in self._past])
        for span in SPANS:
            if times[0] <= time - span and self._is_mixed(times, time - span):
                return time - span / 2
        return float("nan")

    def _is_mixed(self, times: Float[np.ndarray, "N"], start: float) -> bool:
        """Whether the frames from a time on are mixtures of that frame and of the newest one."""
        nearest = lambda time: self._past[int(np.abs(times - time).argmin())]
        (_, first, details), (end, last, other) = nearest(start), self._past[-1]
        norms = np.linalg.norm(details) * np.linalg.norm(other)
        if np.abs(last - first).mean() < _CHANGE or norms == 0:
            return False
        if (details * other).sum() / norms > UNLIKE:
            return False
        apart, shares = last - first, []
        for part in _SHARES:
            _, frame, inner = nearest(start + part * (end - start))
            share = float(((frame - first) * apart).sum() / (apart**2).sum())
            rest = np.linalg.norm(frame - first - share * apart) / np.linalg.norm(apart)
            if rest > MIXED:
                return False
            shares.append(share)
            if part == 0.5 and _faintness(details, inner, other, share) > FAINT:
                return False
        return _LEAST < shares[0] < shares[1] < shares[2] < 1 - _LEAST


def _faintness(
    first: Float[np.ndarray, "H W"],
    middle: Float[np.ndarray, "H W"],
    last: Float[np.ndarray, "H W"],
    share: float,
) -> float:
    """The variance of the details in the middle, relative to the mean of those of the ends."""
    between = (1 - share) * (first**2).sum() + share * (last**2).sum()
    return float((middle**2).sum() / max(between, 1e-9))


def middles(found: Float[np.ndarray, "F"]) -> list[float]:
    """The middle of each dissolve, seconds, from what `Dissolves.update` gave for all frames."""
    times = np.sort(found[np.isfinite(found)])
    if not len(times):
        return []
    groups = np.split(times, np.flatnonzero(np.diff(times) > _APART) + 1)
    return [float(np.median(group)) for group in groups]
