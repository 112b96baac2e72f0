"""Gait: events of walking, and the parameters of its cycles."""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.signal import find_peaks

from genhmr_jax.geometry.motion import frame_interval

_SHORTEST, _LONGEST = 0.5, 2.5  # seconds of a stride
_FEWEST = 0.15  # metres: a foot moves less against the pelvis when nobody walks


@dataclasses.dataclass(frozen=True)
class Cycle:
    """A stride: from a heel strike to the next one of the same foot.

    Attributes:
      side: "r" or "l".
      start, toe_off, end: seconds.
      length: metres on the ground; near 0 on a treadmill.
    """

    side: str
    start: float
    toe_off: float
    end: float
    length: float

    @property
    def seconds(self) -> float:
        """Duration of the stride."""
        return self.end - self.start

    @property
    def stance(self) -> float:
        """Part of the stride, 0..1, in which the foot carries the body."""
        return (self.toe_off - self.start) / self.seconds

    @property
    def cadence(self) -> float:
        """Steps a minute: two in a stride."""
        return 120 / self.seconds

    @property
    def speed(self) -> float:
        """Metres a second."""
        return self.length / self.seconds


def gait_cycles(
    times: Float[np.ndarray, "F"],
    heels: Float[np.ndarray, "F 2 3"],
    toes: Float[np.ndarray, "F 2 3"],
    sacrum: Float[np.ndarray, "F 3"],
    forward: Float[np.ndarray, "F 3"],
) -> list[Cycle]:
    """The complete strides of a person, in order.

    Heel strikes are where a heel is farthest before the sacrum, and toe offs where a toe is
    farthest behind it (Zeni et al. 2008, Gait and Posture 27:710), along the direction in which the
    pelvis faces: so it also works on a treadmill.

    Args:
      times: seconds, at a constant rate.
      heels, toes: right and left, metres, y up; without noise of high frequency.
      sacrum: metres.
      forward: direction of the pelvis.

    Returns:
      nothing if the person does not walk: fewer than two strikes of each foot, or strikes of one
      foot that do not alternate with those of the other.
    """
    if len(times) < 3:
        return []
    ahead = forward * [1, 0, 1]
    ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
    gap = max(1, round(_SHORTEST / frame_interval(times)))
    events = []
    for foot in range(2):
        heel, toe = (
            np.einsum("fi,fi->f", points[:, foot] - sacrum, ahead) for points in (heels, toes)
        )
        strikes, _ = find_peaks(heel, distance=gap, prominence=_FEWEST)
        leaves, _ = find_peaks(-toe, distance=gap, prominence=_FEWEST)
        events.append((strikes, leaves))
    if min(len(strikes) for strikes, _ in events) < 2:
        return []
    cycles = []
    for foot, side in enumerate("rl"):
        strikes, leaves = events[foot]
        others = events[1 - foot][0]
        for first, last in zip(strikes, strikes[1:], strict=False):
            between = leaves[(leaves > first) & (leaves < last)]
            alternate = ((others > first) & (others < last)).sum() == 1
            if len(between) != 1 or not alternate or times[last] - times[first] > _LONGEST:
                continue
            way = (heels[last, foot] - heels[first, foot]) * [1, 0, 1]
            start, leave, end = (float(times[i]) for i in (first, between[0], last))
            cycles.append(Cycle(side, start, leave, end, float(np.linalg.norm(way))))
    return sorted(cycles, key=lambda cycle: cycle.start)
