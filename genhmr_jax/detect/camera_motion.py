"""Whether the camera of a clip moves: shifts of the background between frames.

Blocks of the grey picture are compared by normalised cross-correlation (Lewis 1995). Phase
correlation would weigh all frequencies the same: then noise before a smooth background seems to
move. Blocks with people, and blocks without texture, do not count.
"""

import collections

import numpy as np
from jaxtyping import Float
from PIL import Image

INTERVAL = 0.5
"""Seconds between the compared frames."""
MOVING = 0.006
"""Shift in INTERVAL, as a share of the picture's diagonal, from which the camera moves."""
_WIDTH, _BLOCK = 256, 32  # px of the reduced picture
_TEXTURE = 6.0  # smallest standard deviation of a block, grey levels
_PEAK = 0.5  # smallest correlation that counts
_FEWEST = 3  # blocks


class CameraMotion:
    """Compares each frame with the one INTERVAL seconds before it."""

    def __init__(self) -> None:
        self._earlier: collections.deque = collections.deque()

    def update(self, time: float, pixels: np.ndarray, boxes: Float[np.ndarray, "P 4"]) -> float:
        """The shift of the background in INTERVAL, as a share of the picture's diagonal.

        Args:
          time: seconds.
          pixels: uint8 (H, W, 3).
          boxes: xyxy px of the people.

        Returns:
          the median over the blocks; NaN for the first frames, and if too few blocks can be
          compared.
        """
        height, width = pixels.shape[:2]
        scale = _WIDTH / width
        size = _WIDTH, max(round(height * scale), _BLOCK)
        small = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX)
        grey = np.asarray(small, np.float32)
        people = np.zeros(grey.shape, bool)
        for box in boxes * scale:
            x0, y0, x1, y1 = np.clip(np.round(box), 0, max(size)).astype(int)
            people[y0 : y1 + 1, x0 : x1 + 1] = True
        self._earlier.append((time, grey, people))
        while len(self._earlier) > 2 and time - self._earlier[1][0] >= INTERVAL:
            self._earlier.popleft()
        then, before, hidden = self._earlier[0]
        if time - then < INTERVAL / 2:
            return float("nan")
        shifts = _shifts(before, grey, people | hidden)
        if len(shifts) < _FEWEST:
            return float("nan")
        moved = float(np.median(shifts)) / float(np.hypot(*size))
        return moved * INTERVAL / (time - then)


def is_moving(shifts: Float[np.ndarray, "F"]) -> bool:
    """Whether the camera moves in at least a fifth of the frames in which that is known."""
    known = shifts[np.isfinite(shifts)]
    return bool(len(known)) and float((known > MOVING).mean()) >= 0.2


def _shifts(before: np.ndarray, after: np.ndarray, hidden: np.ndarray) -> list[float]:
    """Lengths of the shifts of the blocks, px; half of a block at most.

    The window makes shifts of smooth blocks seem shorter, but not those of a static camera longer.
    """
    window = np.outer(np.hanning(_BLOCK), np.hanning(_BLOCK))
    found = []
    for row in range(0, before.shape[0] - _BLOCK + 1, _BLOCK):
        for column in range(0, before.shape[1] - _BLOCK + 1, _BLOCK):
            at = slice(row, row + _BLOCK), slice(column, column + _BLOCK)
            pair = [grey[at] - grey[at].mean() for grey in (before, after)]
            if hidden[at].mean() > 0.1 or min(block.std() for block in pair) < _TEXTURE:
                continue
            pair = [block * window for block in pair]
            first, second = (np.fft.rfft2(block / np.linalg.norm(block)) for block in pair)
            peak = np.fft.irfft2(second * first.conj(), (_BLOCK, _BLOCK))
            if peak.max() < _PEAK:
                continue
            shift = np.array(np.unravel_index(peak.argmax(), peak.shape), float)
            shift -= _BLOCK * (shift > _BLOCK / 2)
            found.append(float(np.hypot(*shift)))
    return found
