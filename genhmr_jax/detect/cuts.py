"""Cuts of a clip: where another shot begins.

The change from frame to frame is that of PySceneDetect's ContentDetector, the mean of the absolute
differences of hue, saturation and value. As in its AdaptiveDetector, a frame is compared with its
neighbours, so that a fast camera is no cut
(https://www.scenedetect.com/docs/latest/api/detectors.html, read 2026-11). When the exposure
changes, all pixels change but the details stay: changes count as much as details are lost.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageFilter

SUDDEN = 10.0
"""Smallest change of a cut, of 255."""
FACTOR, NEIGHBOURS = 3.0, 2
"""How many times the largest change of the frames around, and how many on either side.

AdaptiveDetector takes their mean. With the largest one a flash of light, which is two changes, is
no cut.
"""
_NEAR = 0.5  # seconds
_WIDTH, _DETAIL = 96, 8  # px: of the reduced picture, and the radius of what is a detail in it
_HUES = 180 / 255  # OpenCV's hue has 180 levels, Pillow's has 256


class Changes:
    """The change of each frame from the one before."""

    def __init__(self) -> None:
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, pixels: np.ndarray) -> float:
        """The change, 0..255; 0 for the first frame.

        Args:
          pixels: uint8 (H, W, 3), RGB.
        """
        # 1. Colours, and details: the grey picture without its local mean.
        height, width = pixels.shape[:2]
        size = _WIDTH, max(round(height * _WIDTH / width), 1)
        small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
        colours = np.asarray(small.convert("HSV"), np.float32) * np.float32([_HUES, 1, 1])
        grey = small.convert("L")
        mean = np.asarray(grey.filter(ImageFilter.BoxBlur(_DETAIL)), np.float32)
        details = np.asarray(grey, np.float32) - mean
        details /= max(float(np.linalg.norm(details)), 1e-6)
        # 2. The change of the colours, times the loss of details.
        before, self._before = self._before, (colours, details)
        if before is None:
            return 0.0
        kept = float(np.clip((details * before[1]).sum(), 0, 1))
        return (1 - kept) * float(np.abs(colours - before[0]).mean())


def shots(
    changes: Float[np.ndarray, "F"], times: Float[np.ndarray, "F"], dissolves: Sequence[float] = ()
) -> Int[np.ndarray, "F"]:
    """The number of each frame's shot, from 0.

    Args:
      changes: of `Changes`, of all frames in order.
      times: of the frames, seconds.
      dissolves: the middles of dissolves, seconds (detect/dissolves.py). Near a cut they do not
        count.
    """
    padded, count = np.pad(changes, NEIGHBOURS), len(changes)
    shifts = [by for by in range(2 * NEIGHBOURS + 1) if by != NEIGHBOURS]
    others = np.max([padded[by : by + count] for by in shifts], 0)
    cuts = (changes >= SUDDEN) & (changes >= FACTOR * others)
    for middle in dissolves:
        if not cuts[np.abs(times - middle) < _NEAR].any():
            cuts[np.searchsorted(times, middle).clip(0, count - 1)] = True
    return np.cumsum(cuts)
