"""`emdb-official` against EMDB's own evaluation, as recorded.

emdb_official_reference.npz holds two made-up sequences, the first with gaps between its good
frames, and what `EvaluationEngine(compute_metrics).run` (commit 9a4eab6 of eth-ait/emdb) printed
for both together. Only the posing of SMPL was replaced, by a made-up body, whose joints, vertices
and rotations in the good frames are recorded: the predicted ones, and the true ones in the world.
"""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.data.sources import Report
from genhmr_jax.evaluate import predictions, runner
from genhmr_jax.evaluate.bodies import Bodies, Posed
from genhmr_jax.evaluate.protocols import PROTOCOLS
from genhmr_jax.geometry.bodies import load_body
from support.paths import SUPPORT

with np.load(SUPPORT / "emdb_official_reference.npz") as data:
    GIVEN = dict(data)
COUNT = len(GIVEN["frame"])


def in_camera():
    """The true body of each frame as the readers give it: turned into the camera."""
    turn = GIVEN["world_to_camera"][:, :3, :3]
    points = [
        np.einsum("nij,nkj->nki", turn, GIVEN[f"true_{kind}"]) for kind in ("joints", "vertices")
    ]
    return [*points, turn[:, None] @ GIVEN["true_rotations"]]


PREDICTED = Posed(*(GIVEN[f"predicted_{kind}"] for kind in ("vertices", "joints", "rotations")))
TRUE = Posed(*(in_camera()[i] for i in (1, 0, 2)))


@dataclasses.dataclass(frozen=True)
class Recorded(Bodies):
    """Bodies of the recorded arrays: a row's first shape coefficient is its number."""

    def pose(self, pose, betas, genders):
        chosen = PREDICTED if set(genders) == {"neutral"} else TRUE
        rows = np.asarray(betas)[:, 0].astype(int)
        return Posed(*(jnp.asarray(array[rows], jnp.float32) for array in chosen))


class Predictor:
    labels = ("it",)
    prepare = runner.MeanPose(None).prepare

    def predict(self, prepared, numbers):
        betas = np.zeros((len(numbers), 10))
        betas[:, 0] = numbers
        mean = predictions.mean_pose(load_body("lite"), len(numbers))
        yield "it", dataclasses.replace(mean, betas=betas)


def records(order):
    """The recorded frames with these row numbers."""
    for row in order:
        yield {
            "sequence": f"P{GIVEN['sequence'][row]}", "frame": int(GIVEN["frame"][row]),
            "person": 0, "gender": "male", "global_orient": np.zeros(3), "body_pose": np.zeros(69),
            "betas": np.eye(1, 10)[0] * row, "has_pose": 1.0, "has_betas": 1.0,
            "keypoints3d": np.zeros((44, 4)), "joints24_3d": np.zeros((24, 4)),
        }  # fmt: skip


def test_every_figure_is_the_one_that_emdb_prints():
    """Joints, vertices, angles: over all frames; jitter: over sequences, across the gaps."""
    found = runner.evaluate(
        records(range(COUNT)),
        Predictor(),
        Recorded({}, {}, ""),
        [PROTOCOLS["emdb-official"]],
        Report(),
        batch_size=4,
        frames_per_second=30.0,
    )
    results = found["protocols"]["emdb-official"]["results"]["it"]
    wanted = dict(zip(GIVEN["names"].tolist(), GIVEN["values"], strict=True))
    assert results == pytest.approx(wanted, rel=2e-5), json.dumps(results)


def test_the_reference_tells_readings_apart():
    """There are gaps and lengths that differ; a jitter relative to the pelvis is another one."""
    joints, sequence = GIVEN["predicted_joints"], GIVEN["sequence"]
    assert (np.diff(GIVEN["frame"])[sequence[1:] == sequence[:-1]] > 1).sum() == 2 and len(
        set(np.bincount(sequence))
    ) == 2
    still = np.isin(np.arange(24), [0, 7, 8, 10, 11, 20, 21, 22, 23])

    def jitter(points):
        steps = [
            np.diff(points[sequence == s].astype(np.float64), 3, axis=0) * 27_000 for s in (0, 1)
        ]
        return np.mean(
            [np.where(still, 0, np.linalg.norm(step, axis=-1)).mean() / 10 for step in steps]
        )

    wanted = dict(zip(GIVEN["names"].tolist(), GIVEN["values"], strict=True))["jitter"]
    assert jitter(joints) == pytest.approx(wanted, rel=1e-5)
    assert jitter(joints - joints[:, 1:3].mean(1, keepdims=True)) < 0.95 * wanted
