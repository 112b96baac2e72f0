"""The baselines' losses against terms of their public `compute_loss` (public_outputs.npz)."""

import dataclasses
import types

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.data.rows import Known, Rows
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.systems import registry
from genhmr_jax.systems.regressors import objective
from genhmr_jax.systems.regressors.heads import Body
from support import public_inputs as inputs
from support.paths import SUPPORT

PUBLIC = np.load(SUPPORT / "public_outputs.npz")
TERMS = ("joints3d", "joints2d", "orient", "pose", "betas")


def as_matrices(angles):
    return Rotation.from_rotvec(angles.reshape(-1, 3)).as_matrix().reshape(4, 24, 3, 3)


@pytest.mark.parametrize(("name", "kind"), [("tiny", "hmr2"), ("tiny_tokenhmr", "tokenhmr")])
def test_terms(get_config, monkeypatch, name, kind):
    given, config = inputs.labels(), get_config(f"regressors/{name}")
    config.loss.loose.points2d = tuple(given["points2d_thresholds"].tolist())
    config.loss.loose.angles = tuple(given["angle_thresholds"].tolist())
    task = registry.make_task(config)
    rotmats = as_matrices(given["label_angles"])
    body = Body(
        (rotmats @ as_matrices(given["turns"])).astype(np.float32), given["betas"], given["weak"]
    )
    monkeypatch.setattr(task, "bodies", lambda *_: body)
    monkeypatch.setattr(
        objective,
        "smpl_jax",
        types.SimpleNamespace(forward=lambda *_: types.SimpleNamespace(joints=given["joints"])),
    )
    monkeypatch.setattr(objective, "keypoint_points", lambda *_: given["points"])
    # Image px are crop sides from the crop's middle.
    crop = np.tile(np.float32([0, 0, 1]), (4, 1))
    rows = Rows(
        view=CropCamera(crop, np.ones(4, np.float32), np.zeros((4, 2), np.float32)),
        rotmats=rotmats.astype(np.float32),
        betas=given["label_betas"],
        joints=given["label_joints"],
        joints_confidence=np.ones((4, 24), np.float32),
        keypoints=np.zeros((4, 23, 3), np.float32),
        points2d=given["label_points2d"],
        points2d_confidence=given["confidence"],
        weak_camera=given["weak"],
        exact=given["exact"],
        known=dataclasses.replace(
            Known.everything(4), rotation=given["has_rotation"], betas=given["has_betas"]
        ),
        images=np.zeros((4, 1), np.float32),
    )
    _, found = task.loss({}, {}, task.frozen, task.prepare(task.frozen, {"images": rows}))
    for term, wanted in zip(TERMS, PUBLIC[f"{kind}_losses"], strict=True):
        np.testing.assert_allclose(4 * found["terms"][term], wanted, rtol=2e-5, err_msg=term)


def test_the_recorded_losses_differ():
    """Each of TokenHMR's rules makes a difference in the rows that were recorded."""
    assert (PUBLIC["tokenhmr_losses"] < 0.95 * PUBLIC["hmr2_losses"]).all()
