"""Validation of NeurIK in training: windows of unseen subjects at the rate of the labels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.systems.biopose.labels import RATE, AngleClips
from genhmr_jax.systems.biopose.objective import Errors
from genhmr_jax.systems.biopose.samples import AngleRows, Sample, SampleMaker, rows_of
from genhmr_jax.systems.biopose.spec import NeurIkSpec
from genhmr_jax.train.validation import ROWS

NOISE = 0.010
"""Metres, in each coordinate of each marker in each frame."""
FEET = ("ankle_angle", "subtalar_angle", "mtp_angle")
"""Coordinates of the feet, whose markers are close together."""
NOT_FEET = np.array([not name.startswith(FEET) for name in ANGLES])
_INNER = NOT_FEET[3:].astype(np.float32)


def rows(clips: AngleClips, spec: NeurIkSpec, most: int) -> AngleRows:
    """Windows of all validation clips, evenly chosen; `most` of them, the last one repeated."""
    starts = [
        (clip, first)
        for clip in clips.of("val")
        for first in range(0, int(clips.ends[clip] - clips.starts[clip]), spec.window)
    ]
    chosen = np.linspace(0, len(starts) - 1, most).round().astype(int)
    clip, first = np.array(starts)[chosen].T
    return rows_of(clips, spec, clip, first, np.arange(most))


def sample(maker: SampleMaker, rows: AngleRows, noise: float) -> Sample:
    """Windows at the rate of the labels, without mirroring, with white noise (metres)."""
    count = len(rows.count)
    times = jnp.broadcast_to(jnp.arange(maker.spec.window) / RATE, (count, maker.spec.window))
    posed = maker.posed(rows, RATE * times)
    draw = lambda number: jax.random.normal(
        jax.random.fold_in(jax.random.key(0), number), posed.markers.shape[1:]
    )
    markers = posed.markers + noise * jax.vmap(draw)(rows.number)
    return maker.sample(posed, markers, times, rows.scales, jnp.ones(count))


def sums(terms: dict[str, Float[Array, "B"]], errors: Errors, sample: Sample) -> dict[str, Array]:
    """Sums over frames of mean absolute errors, and their number.

    mae_deg: of all 44 angles but those of the feet. all_mae_deg: with them. spread_log: of the
    likelihood. Turns of the pelvis about its axes count as its angles.
    """
    frames = jnp.sum(sample.good)
    angles = jnp.abs(jnp.degrees(errors.joined()[..., :-3]))
    weight = np.concatenate([_INNER, np.ones(3, np.float32)])
    mean = lambda w: jnp.sum(sample.good * jnp.einsum("bta,a->bt", angles, w / w.sum()))
    per_window = jnp.sum(sample.good, 1)
    return {
        "mae_deg": mean(weight),
        "all_mae_deg": mean(np.ones_like(weight)),
        "marker_mm": 1000 * jnp.sum(per_window * terms["marker"]),
        "spread_log": jnp.sum(per_window * terms["spread"]),
        ROWS: frames,
    }
